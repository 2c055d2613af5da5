"""The public interface, pinned: whoever changes a name, an option, a node or a file of a run changes this file, too."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
import ssn_probe.recipes
from rich.console import Console

import ssn_probe
from ssn_probe import ASR, Expand, Prompts, Recipe, Result, SafetyNeurons, Shared, Suppress, Training
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.cli.commands import main
from ssn_probe.data.judges import JUDGES
from ssn_probe.report.claim import Claim
from ssn_probe.spec.node import NODES

NAMES = """
ASR Ablation Amplify Comparison DataError Each Effect Exchanged Expand Final FinalAblation InLanguage Intervention
JudgeError Language LMEval LoRA Local MeanOf ModelError NeST NeuronFile OverRefusal Patch Peak Perplexity Placebo
Preview ProbedNeurons Prompts RandomLike Recipe RecipeError Refusal RemoteError Result ResultError SSNProbeError
SafetyNeurons SetExpression Shared SparseEdit Suppress Training Utility compare edits evaluate open_run paper preview
prompts_from_frame recipe register_family run scores
"""
RECIPES = """
after_expand amplify_ss dissociation expand_controls expand_ss identify_ms leave_one_out overlap patch_ss
reproduce_advbench_x reproduce_multijail suppress_ss transfer
"""
ARGUMENTS = {
    "run": "what model out batch_size device dtype limit gradient_checkpointing fresh remote engine processes "
    "progress parameters",
    "preview": "what model out batch_size device dtype limit remote engine time parameters",
    "evaluate": "expression model out batch_size device dtype limit remote progress system chat",
    "open_run": "reference out",
    "compare": "first second arms out",
}
COMMANDS = {
    "": "--version --debug --extend",
    "list": "path",
    "show": "recipe --judge -T --limit --engine --batch-size --device --dtype -o --remote --host -y --yes --time "
    "--no-time",
    "run": "recipe --judge -T --limit --engine --batch-size --device --dtype -o --remote --host -y --yes "
    "--gradient-checkpointing --fresh --processes --track",
    "results": "reference -o --sort --status --recipe --model --export --measure --responses --language --arm "
    "--verdict -n --show-text",
    "judge": "reference --with -o --device",
    "compare": "first second -o --arm --page --export",
    "view": "-o --open --pages --no-pages --serve --port",
    "scores": "reference file --set --language --context -o",
    "share": "reference --to --with-text --public -y --yes -o",
    "certify": "spec --data --languages -o --device",
    "verify": "reference -o --strict",
    "report": "reference -o --open --unredacted",
    "clean": "-o --yes -y --dry-run -n",
    "doctor": "--model --device --dtype --system --chat -o --remote --host",
    "model": "",
    "models": "--refused --json --remote --host",
    "model fetch": "name --wheel",
    "organism": "",
    "organism info": "--model",
    "organism train": "--seed --variant --base --languages -o",
    "organism study": "--seeds --variant --recipe -T --organisms -o",
    "delta": "",
    "delta train": "neurons -m --model --data -o --overwrite --language --union --contexts --languages --lr --batch "
    "--epochs --steps --warmup --clip --held-out --evaluate-every --seed --micro-batch --gradient-checkpointing "
    "--checkpoints --checkpoint-every --judge --system --chat --shard --device --dtype",
    "delta info": "file",
    "delta diff": "first second",
    "delta merge": "file -m --model -o --dtype",
    "delta unmerge": "folder -o",
    "delta apply": "file prompts -m --model --dtype --device --system --chat --max-new-tokens --full",
}
TRAINS = "neurons data training contexts languages at references"
KINDS = {
    "Local": "position exact_qk",
    "Final": "position probes seed exact_qk",
    "FinalAblation": "position",
    "Refusal": "at candidates exact_qk",
    "Ablation": "candidates",
    "Language": "at candidates exact_qk",
    "Peak": "",
    "Prompts": "source harmless languages limit max_new_tokens",
    "SafetyNeurons": "prompts effect rule top sites pool stable fdr labels scoring_dtype verify audit_seed verify_most",
    "Exchanged": "seed draw",
    "Placebo": "seed split",
    "Shared": "neurons anchor at_least by",
    "RandomLike": "neurons seed",
    "NeuronFile": "path",
    "ProbedNeurons": "scored threshold penalty",
    "Combine": "operation left right",
    "Of": "neurons language",
    "UnionOf": "neurons",
    "WithoutStrongest": "neurons",
    "Only": "neurons layers sites languages",
    "WholeLayers": "neurons",
    "LeaveOneOut": "neurons",
    "Each": "neurons",
    "Training": "lr batch epochs steps warmup schedule clip held_out evaluate_every patience seed",
    "MeanOf": "prompts",
    "Suppress": "neurons to",
    "Amplify": "neurons by",
    "Patch": "neurons source positions",
    "Expand": TRAINS,
    "LoRA": TRAINS,
    "NeST": f"{TRAINS} clusters most",
    "SparseEdit": f"{TRAINS} rank keep ridge",
    "Then": "first then",
    "After": "neurons trained",
    "ASR": "prompts",
    "OverRefusal": "prompts",
    "Utility": "prompts",
    "InLanguage": "prompts",
    "Perplexity": "prompts",
    "LMEval": "tasks limit num_fewshot languages chat_template",
    "Recipe": "model sets arms comparisons label_sets log_odds_label_sets controls permutations half_samples measures "
    "primary seed name question judge system chat",
}
VERSIONS = {
    "Ablation": 2,
    "Final": 2,
    "Language": 3,
    "Local": 2,
    "RandomLike": 2,
    "Recipe": 2,
    "Refusal": 3,
    "ProbedNeurons": 2,
    "SafetyNeurons": 2,
    "UnionOf": 2,
}
"""Every other kind has version 1."""
FILES = """
compared_sets.parquet comparisons.parquet curves.parquet kl.parquet log_odds.parquet manifest.json neurons.parquet
nulls.parquet overlap.parquet parts.json recipe.json report.html report.md responses.parquet run.log samples.parquet
stability.parquet stability_curve.parquet summary.parquet training.parquet
"""
RESULT = """
answer card claims comparisons export export_scores folder manifest neurons overlap overlaps path plot recipe samples
summary table
"""
SAMPLES = """
prompt_id cluster cluster_2 context response verdict reason tokens finish_reason correct eval_language set_language arm
role seed step judge error
"""
"""Columns of samples.parquet."""


def test_names() -> None:
    assert set(ssn_probe.__all__) == set(NAMES.split())
    assert all(hasattr(ssn_probe, name) for name in ssn_probe.__all__)
    assert set(ssn_probe.recipes.__all__) == set(RECIPES.split())


def test_no_public_name_hides_a_module() -> None:
    assert not {module.name for module in pkgutil.iter_modules(ssn_probe.__path__)} & set(ssn_probe.__all__)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("ssn_probe.recipe")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str) -> None:
    assert list(inspect.signature(getattr(ssn_probe, name)).parameters) == ARGUMENTS[name].split()


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, list[str]]]:
    yield name, [text for option in command.params for text in (*option.opts, *option.secondary_opts)]
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}".strip())


def test_what_a_result_and_a_claim_have() -> None:
    own = {name for name in vars(Result) if not name.startswith("_")}
    assert own | {one.name for one in fields(Result)} == set(RESULT.split())
    assert [one.name for one in fields(Claim)] == ["claim", "verdict", "figures", "why", "primary"]


def test_commands_and_their_options() -> None:
    assert dict(commands(main)) == {name: options.split() for name, options in COMMANDS.items()}


def test_judges() -> None:
    assert " ".join(JUDGES) == "patterns phrases qwen3guard polyguard wildguard openai python file none"


def test_kinds_of_nodes() -> None:
    """Fields and versions are parts of keys: a change here makes every result of the kind unreachable."""
    ours = {name: kind for name, kind in NODES.items() if kind.__module__.startswith("ssn_probe.spec.")}
    assert {name: [field.name for field in fields(kind)] for name, kind in ours.items()} == {
        name: names.split() for name, names in KINDS.items()
    }
    assert {name: kind.version for name, kind in ours.items() if kind.version != 1} == VERSIONS


def test_files_of_a_run(tmp_path: Path) -> None:
    prompts = Prompts("organism", languages=("qaa", "qab"), limit=24)
    ss = Shared(SafetyNeurons(prompts, effect="local", rule="paper"))
    trained = Expand(ss.union(), prompts, training=Training(steps=2, batch=8), at=(1, 2))
    arms = {"silent": Suppress(ss), "trained": trained}
    numbers = {"controls": 1, "log_odds_label_sets": 1, "permutations": 99, "half_samples": 2}
    recipe = Recipe(sets={"ms": ss.neurons}, arms=arms, measures=(ASR(prompts),), **numbers)  # type: ignore[arg-type]
    run = run_recipe(recipe, Options(out=tmp_path), Console(quiet=True))
    assert {path.name for path in run.path.iterdir() if path.is_file()} == set(FILES.split())
    assert {path.name for path in run.path.iterdir() if path.is_dir()} <= {"deltas", "plots"}
    assert run.table("samples").columns == SAMPLES.split()
