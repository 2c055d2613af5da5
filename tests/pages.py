"""Finished runs that no model ever made, for whatever shows a run: the smallest study, a large one, names of any kind.

Responses, neurons and what was found of labels are drawn at random, from a seed; summaries and comparisons are made of
them as a run makes them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from stored import HOSTILE

from ssn_probe import (
    ASR,
    Amplify,
    Expand,
    InLanguage,
    LMEval,
    LoRA,
    OverRefusal,
    Patch,
    Prompts,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Training,
    Utility,
)
from ssn_probe.files import write_json, write_table, write_text
from ssn_probe.neurons import KEYS, NeuronSet
from ssn_probe.neurons import SCHEMA as NEURONS
from ssn_probe.neurons.overlap import overlap_table
from ssn_probe.report.answer import answer_lines
from ssn_probe.report.claims import claims
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.run_report import write_report
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.manifest import write_manifest
from ssn_probe.spec import Each
from ssn_probe.spec.node import digest, to_json
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.stats.nulls.permutation_null import SCHEMA as NULLS
from ssn_probe.study.arms import BASELINE, TESTED, WEAKENED
from ssn_probe.study.comparison_table import MEMBERS, comparison_table
from ssn_probe.study.comparisons import sets_generating
from ssn_probe.study.deltas import TrainedArm
from ssn_probe.study.dissociation import dissociation
from ssn_probe.study.kept_findings import kept_findings
from ssn_probe.study.pipeline import named_sets, summary_of
from ssn_probe.study.refusal_readout import LanguageGate
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.study.training_curves import comparable_points, curve_table

SITES = ("q", "k", "v", "o", "ffn")
LAYERS, WIDTH = 6, 64
TWELVE = ("en", "zh", "ar", "he", "ur", "hi", "bn", "sw", "ko", "th", "vi", "jv")
RIGHT_TO_LEFT = ("ar", "he", "ur")
SPOKEN = {
    "ar": "لا أستطيع المساعدة في ذلك (1) [ب]، آسف.",
    "he": "אני לא יכול לעזור בזה (1) [ב], מצטער.",
    "ur": "میں اس میں مدد نہیں کر سکتا (1) [ب]، معذرت۔",
}
FLOODS = {
    "overrides": "\u202esrever \u2066 \u2067 \u2068 isolates\u2069 \u202a\u202b\u202d",
    "zero width": "a" + "\u200b\u200d\u2060\ufeff" * 500 + "b",
    "combining": "Z" + "\u0336\u0489\u0300" * 500 + "algo",
    "blanks": "\u2028\u2029\u00a0\u3000" * 50,
}
ATTACKS = (
    "<script>window.planted = 1</script>",
    "</title></style></script><img src=x onerror=window.planted=1>",
    "<svg onload=window.planted=1><text>x</text></svg>",
    '"><iframe src="data:text/html,<script>parent.planted=1</script>"></iframe>',
    "[link](javascript:window.planted=1) ![image](https://example.org/x.png) <a href=https://example.org>x</a>",
    "{{7*7}} {% for x in [1] %}{{ cycler.__init__.__globals__ }}{% endfor %} ${7*7} #{7*7} <%= 7*7 %>",
    "<style>body{display:none}</style><link rel=stylesheet href=https://example.org/x.css><base href=https://example.org>",
    "<meta http-equiv=refresh content='0;url=https://example.org'><!-- -->]]>&lt;&#0;&amp;",
    HOSTILE,
    "NUL\0, bell\a and escape\x1b[31m",
    *FLOODS.values(),
    "long" * 250_000,
)
"""What a model or a prompt set may write."""


def long_name(start: str, length: int = 200) -> str:
    """A name without a blank to break it at."""
    return (start + "-with-a-name-that-goes-on" * 20)[:length]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a made-up run is of: so many prompts of each kind and language, so many neurons in each set and language.

    `rates`: how often harmful requests are complied with, untouched, in tested arms and in sets beside them. `says`:
    the responses of a language to choose from; `manifest`: what the manifest says otherwise. `rename`: a language's
    code → another, which no recipe and no prompt set could give it. `draw`: the seed of it all.
    """

    recipe: Recipe
    languages: tuple[str, ...]
    anchor: str | None
    prompts: int = 12
    neurons: int = 8
    rates: tuple[float, float, float] = (0.2, 0.7, 0.3)
    says: Callable[[str], tuple[str, ...]] = lambda language: (f"a response in {language}",)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    draw: int = 7


def written(folder: Path, study: Study) -> RunFolder:
    """The folder of a finished run of the study, with its report."""
    run = without_report(folder, study)
    recipe, manifest = study.recipe, dict(run.manifest())
    findings = kept_findings(run, recipe)
    made = FinishedRun(recipe=recipe, manifest=manifest, findings=findings)
    manifest |= {"answer": answer_lines(made), "claims": [asdict(claim) for claim in claims(made)]}
    write_manifest(folder / "manifest.json", manifest)
    write_report(folder, made)
    return run


def without_report(folder: Path, study: Study) -> RunFolder:
    """What a run writes before its report."""
    rng = np.random.default_rng(study.draw)
    samples, sets = _samples(study, rng), _sets(study, rng)
    text, anchor, recipe = _text(samples, rng), study.anchor, study.recipe
    log_odds = _log_odds(samples, rng)
    summary = summary_of(recipe, samples, log_odds, text, anchor)
    trained = _trained(study)
    points, _ = comparable_points(recipe, trained, summary, anchor)
    crossed = dissociation(recipe, samples, log_odds, None, anchor)
    overlap = [overlap_table(found, _widths(), name) for name, found in sets.items() if len(found.languages) > 1]
    tables = {
        "samples": samples,
        "log_odds": log_odds,
        "kl": text,
        "summary": summary,
        "comparisons": comparison_table(recipe, samples, log_odds, text, _members(study, sets, rng), anchor),
        "neurons": _neuron_table(sets, rng),
        "overlap": _with_chance(pl.concat(overlap)) if overlap else None,
        "nulls": _nulls(study, sets) if recipe.permutations else None,
        "stability": _stability(study, sets) if recipe.half_samples else None,
        "stability_curve": _stability_curve(study, sets) if recipe.half_samples else None,
        "again": _again(study, sets),
        "curves": curve_table(summary, points) if points else None,
        "dissociation": None if crossed is None else crossed.contrasts,
        "lm_eval": _tasks(study),
    }
    for name, table in tables.items():
        if table is not None:
            write_table(folder / f"{name}.parquet", _renamed(table, study.rename))
    write_json(folder / "recipe.json", to_json(recipe))
    write_text(folder / "run.log", "made up\n")
    counts = {name: {code: found.neurons(code).height for code in found.languages} for name, found in sets.items()}
    manifest = _manifest(study, counts, trained) | dict(study.manifest)
    write_manifest(folder / "manifest.json", _renamed_values(manifest, study.rename))
    return RunFolder(folder)


def failed(folder: Path, study: Study) -> RunFolder:
    """A run that failed while it generated: it keeps its error, and what it had measured."""
    samples = _samples(study, np.random.default_rng(study.draw)).head(5)
    write_table(folder / "samples.parquet", samples)
    write_json(folder / "recipe.json", to_json(study.recipe))
    write_text(folder / "run.log", "made up\n")
    lacks = ("anchor", "sets", "evaluated", "tokens", "gates", "refusals", "exchanged", "trained", "cache")
    known = {name: value for name, value in _manifest(study, {}, ()).items() if name not in lacks}
    error = "the model ran out of memory in a batch of one prompt; its longest prompt has 3,912 tokens"
    known |= {"status": "failed", "error": error, "warnings": ["half of a pair of surrogates: \ud800"]}
    write_text(folder / "manifest.json", json.dumps(known))  # which no digest could be made of
    return RunFolder(folder)


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────


def _arms(study: Study) -> Iterator[dict[str, Any]]:
    """Every arm and set beside one, as columns of its samples; `set_language` "own" is that of the prompt."""
    recipe = study.recipe
    yield {"arm": BASELINE, "role": BASELINE, "set_language": None, "step": None, "seed": None}
    for name, node in recipe.arms.items():
        each = isinstance(node.neurons, Each)
        for of in study.languages if each else ["own"]:
            for step in getattr(node, "at", None) or [None]:
                yield {"arm": name, "role": TESTED, "set_language": of, "step": step, "seed": None}
        if not each and isinstance(node, Suppress):
            yield {"arm": name, "role": WEAKENED, "set_language": "own", "step": None, "seed": None}
    for name, comparison, count in _compared(recipe):
        last = (getattr(recipe.arms[name], "at", None) or [None])[-1]
        for seed in range(1, count + 1):
            yield {"arm": name, "role": comparison, "set_language": "own", "step": last, "seed": seed}


def _compared(recipe: Recipe) -> Iterator[tuple[str, str, int]]:
    for name, node in recipe.arms.items():
        if recipe.primary in (None, name) and not isinstance(node.neurons, Each):
            for comparison in recipe.comparisons:
                yield name, comparison, sets_generating(recipe, node, comparison)


def _samples(study: Study, rng: np.random.Generator) -> pl.DataFrame:
    asked = [
        kind for kind, measure in CONTEXTS.items() if any(isinstance(one, measure) for one in study.recipe.measures)
    ]
    frames = []
    for arm in _arms(study):
        for context in asked if arm["role"] in (BASELINE, TESTED) else ["harmful"]:
            frames += [_responses(study, rng, arm, context, language) for language in study.languages]
    return pl.concat(frames)


CONTEXTS = {"harmful": ASR, "harmless": Utility, "lookalike": OverRefusal}


def _responses(
    study: Study, rng: np.random.Generator, arm: Mapping[str, Any], context: str, language: str
) -> pl.DataFrame:
    n, untouched, tested, beside = study.prompts, *study.rates
    complying = {BASELINE: untouched, TESTED: tested}.get(arm["role"], beside + rng.normal(0, 0.04))
    rate = complying if context == "harmful" else 0.9
    draws = rng.random(n)
    verdicts = np.where(draws < rate, "complied", np.where(draws > 0.97, "invalid", "refused"))
    said, own = study.says(language), arm["set_language"] == "own"
    spoken = {"in_language": pl.Series(rng.random(n) < (0.4 if arm["arm"] == "language" else 0.95))}
    return pl.DataFrame(
        {
            "prompt_id": [f"evaluate-{context}-{i:03}" for i in range(n)],
            "cluster": [f"c{i}" for i in range(n)],
            "response": [said[i % len(said)] for i in range(n)],
            "verdict": verdicts,
            "tokens": rng.integers(3, 200, n),
            "correct": rng.random(n) < 0.9 if context == "harmless" else [None] * n,
        },
        schema_overrides={"correct": pl.Boolean, "tokens": pl.Int64},
    ).with_columns(
        context=pl.lit(context),
        reason=pl.lit("the refusal pattern is found"),
        finish_reason=pl.lit("stop"),
        eval_language=pl.lit(language),
        set_language=pl.lit(language if own else arm["set_language"], pl.String),
        arm=pl.lit(arm["arm"]),
        role=pl.lit(arm["role"]),
        seed=pl.lit(arm["seed"], pl.Int32),
        step=pl.lit(arm["step"], pl.Int64),
        judge=pl.lit("phrases"),
        error=pl.lit(None, pl.String),
        **(spoken if any(isinstance(one, InLanguage) for one in study.recipe.measures) else {}),
    )


LABELS = ("prompt_id", "cluster", "eval_language", "set_language", "arm", "role", "seed", "step")


def _log_odds(samples: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    harmful = samples.filter(context="harmful")
    read = np.where(harmful["verdict"] == "complied", -1.5, 2.5) + rng.normal(0, 1, harmful.height)
    return harmful.select(*LABELS).with_columns(log_odds=pl.Series(read, dtype=pl.Float32))


def _text(samples: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame | None:
    answered = samples.filter(context="harmless")
    if answered.is_empty():
        return None
    kl = np.where(answered["role"] == BASELINE, 0.0, rng.exponential(0.2, answered.height))
    return answered.select(*LABELS).with_columns(
        kl=pl.Series(kl),
        kl_first=pl.Series(kl / 2),
        log_perplexity=pl.Series(2.5 + kl),
        answer_tokens=pl.lit(20, pl.Int64),
        prompt_tokens=pl.lit(9, pl.Int64),
        vocabulary=pl.lit(1630, pl.Int32),
    )


# ── what is found ────────────────────────────────────────────────────────────────────────────────────────────────────


def _widths() -> dict[tuple[int, str], int]:
    return {(layer, site): WIDTH for layer in range(LAYERS) for site in SITES}


def _drawn(languages: tuple[str, ...], count: int, rng: np.random.Generator) -> NeuronSet:
    """Half of each language's neurons are of the first, so that languages share some."""
    places = [(layer, site, index) for layer, site in _widths() for index in range(WIDTH)]
    common = rng.choice(len(places), count, replace=False)
    rows = []
    for language in languages:
        own = rng.choice(len(places), count, replace=False)
        chosen = dict.fromkeys([*common[: count // 2], *own])
        rows += [(language, *places[place], float(rng.random())) for place in list(chosen)[:count]]
    return NeuronSet(pl.DataFrame(rows, schema=NEURONS, orient="row").sort(KEYS), languages)


def _sets(study: Study, rng: np.random.Generator) -> dict[str, NeuronSet]:
    return {name: _drawn(study.languages, study.neurons, rng) for name in named_sets(study.recipe)}


def _neuron_table(sets: Mapping[str, NeuronSet], rng: np.random.Generator) -> pl.DataFrame:
    frames = [
        found.frame.select(pl.lit(name).alias("set"), pl.all()).with_columns(
            rank=pl.col("score").rank("ordinal", descending=True).over("language").cast(pl.Int32),
            frequency=pl.Series(rng.random(len(found)), dtype=pl.Float64),
        )
        for name, found in sets.items()
    ]
    return pl.concat(frames)


def _members(study: Study, sets: Mapping[str, NeuronSet], rng: np.random.Generator) -> pl.DataFrame:
    frames = [pl.DataFrame(schema=MEMBERS)]
    for name in {arm for arm, _, _ in _compared(study.recipe)}:
        frames.append(_of_set(sets[name], name, None, None))
    for name, comparison, count in _compared(study.recipe):
        drawn = [_drawn(study.languages, study.neurons, rng) for _ in range(count)]
        frames += [_of_set(found, name, comparison, seed) for seed, found in enumerate(drawn, 1)]
    return pl.concat(frames)


def _of_set(found: NeuronSet, arm: str, comparison: str | None, seed: int | None) -> pl.DataFrame:
    named = {"arm": arm, "set_language": None, "comparison": comparison, "set": seed}
    return found.frame.with_columns(pl.lit(value, MEMBERS[key]).alias(key) for key, value in named.items()).select(
        *MEMBERS
    )


def _with_chance(overlap: pl.DataFrame) -> pl.DataFrame:
    return overlap.with_columns(expected_permuted=pl.col("expected") * 3, p_permuted=pl.lit(0.004))


def _nulls(study: Study, sets: Mapping[str, NeuronSet]) -> pl.DataFrame:
    rows = []
    for name, found in sets.items():
        codes = found.languages
        pairs = [(first, second) for i, first in enumerate(codes) for second in codes[i + 1 :]]
        counted = [("size", code, None) for code in (*codes, "average")] + [("overlap", *pair) for pair in pairs]
        for statistic, first, second in counted:
            seen = float(study.neurons if second is None else study.neurons // 2)
            figures = {"observed": seen, "observed_all": seen, "null_mean": 1.5, "null_low": 0.0, "null_high": 4.0}
            figures |= {"difference": seen - 1.5, "difference_low": seen - 4.0, "difference_high": seen}
            about = {"set": name, "statistic": statistic, "language_a": first, "language_b": second}
            rows.append(about | figures | {"shown_from": 4.0, "p": 0.004, "draws": 1000})
    return pl.DataFrame(rows, schema=NULLS)


def _stability(study: Study, sets: Mapping[str, NeuronSet]) -> pl.DataFrame:
    figures = {"jaccard": 0.6, "low": 0.5, "high": 0.75, "null_jaccard": 0.06, "p": 0.01, "stable_permuted": 0.8}
    rows = [
        {"set": name, "language": code} | figures | {"pairs": study.recipe.half_samples, "permutations": 99}
        for name, found in sets.items()
        for code in found.languages
    ]
    return pl.DataFrame(rows)


def _stability_curve(study: Study, sets: Mapping[str, NeuronSet]) -> pl.DataFrame:
    rows = [
        (name, code, float(prompts), 1 - 1 / (1 + prompts / 40) - 0.01 * place)
        for name, found in sets.items()
        for place, code in enumerate(found.languages)
        for prompts in (25, 50, 100, 200)
    ]
    return pl.DataFrame(rows, schema=["set", "language", "prompts", "jaccard"], orient="row")


def _again(study: Study, sets: Mapping[str, NeuronSet]) -> pl.DataFrame | None:
    n, names = study.neurons, [name for name in study.recipe.sets if name.endswith("again")]
    rows = [
        {"set": name, "language": code, "before": n, "after": n, "kept": n // 2, "jaccard": 0.33, "expected": 0.2}
        for name in names
        for code in sets[name].languages
    ]
    return pl.DataFrame(rows) if rows else None


def _tasks(study: Study) -> pl.DataFrame | None:
    node = next((one for one in study.recipe.measures if isinstance(one, LMEval)), None)
    rows = [
        {"task": task, "part_of": None, "metric": "acc", "filter": "none", "value": value, "stderr": 0.02, "n": 100}
        | {"num_fewshot": 0, "eval_language": study.anchor, "set_language": None, "arm": arm, "role": role}
        | {"seed": None, "step": None}
        for task in (node.tasks if node else ())
        for arm, role, value in [(BASELINE, BASELINE, 0.41), *((name, TESTED, 0.39) for name in study.recipe.arms)]
    ]
    kinds = {"part_of": pl.String, "set_language": pl.String, "seed": pl.Int32, "step": pl.Int64}
    return pl.DataFrame(rows, schema_overrides=kinds) if rows else None


def _trained(study: Study) -> tuple[TrainedArm, ...]:
    size = {"site": "all", "neurons": study.neurons, "parameters": 1024, "percent": 0.1, "percent_of_site": 0.5}
    return tuple(
        TrainedArm(
            arm=name,
            step=step,
            without=None,
            method="lora" if isinstance(node, LoRA) else "expand",
            steps={"planned": 20, "done": 20, "chosen": 20},
            held_out_loss={"base": 0.19, "chosen": 0.14},
            parameters=(size,),
            data={"name": "made up", "split": "train", "rows": {}, "judge": "phrases", "checked": "harmful: refused"},
        )
        for name, node in study.recipe.arms.items()
        if isinstance(node, Expand | LoRA)
        for step in node.at or [None]
    )


# ── the record ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _manifest(study: Study, counts: Mapping[str, Any], trained: tuple[TrainedArm, ...]) -> dict[str, Any]:
    recipe, digits = study.recipe, digest(to_json(study.recipe))
    kinds = [(split, context) for split in ("evaluate", "identify") for context in CONTEXTS]
    prompts = [
        {"split": split, "context": context, "language": language, "len": study.prompts}
        for split, context in kinds
        for language in study.languages
    ]
    source = {"source": "made up", "harmless": None, "name": "made up", "anchor": study.anchor, "license": "CC0-1.0"}
    source |= {"revision": None, "harmless_set": None, "sha256": digits, "limit": None, "prompts": prompts}
    gates = [
        LanguageGate(data="made up", language=code, origin="estimated", auroc=0.93, refused=160, other=40)
        for code in study.languages
    ]
    refusals = [
        Refusals(data="made up", language=code, harmful=200, refused=160, harmless=200, refused_harmless=6)
        for code in study.languages
    ]
    exchanged = Exchangeability(
        sets=tuple(counts), prompts=400, taking_part=400, pairs=200, retention=0.5, contrast=0.01, contrast_error=0.02
    )
    return {
        "schema_version": 2,
        "status": "done",
        "recipe": recipe.name,
        "question": recipe.question,
        "key": digits,
        "order": 1,
        "started": "2026-01-01T10:00:00+00:00",
        "ended": "2026-01-01T11:30:00+00:00",
        "arguments": {},
        "options": {"batch_size": None, "limit": None, "dtype": "auto"},
        "seed": recipe.seed,
        "model": {"name": recipe.model, "digest": digits, "family": "llama", "dtype": "float32", "attention": "sdpa"},
        "neurons": {"layers": LAYERS, "per_layer": dict.fromkeys(SITES, WIDTH)},
        "generation": {},
        "device": "cpu",
        "data": [source],
        "judges": [{"name": "phrases", "sha256": digits, "contexts": ["harmful"]}],
        "nodes": dict.fromkeys(counts, digits),
        "seconds": {"load": 2.0, "identify": 10.0, "generate": 300.0},
        "warnings": ["Baseline ASR leaves little room in en: this note was made up."],
        "anchor": study.anchor,
        "sets": dict(counts),
        "evaluated": list(study.languages),
        "tokens": 12345,
        "gates": [asdict(gate) for gate in gates],
        "refusals": [asdict(one) for one in refusals],
        "exchanged": [asdict(exchanged)],
        "trained": [asdict(one) for one in trained],
        "cache": {"read": 0, "computed": 10},
        "packages": {"ssn-probe": "0.1.0", "torch": "2.13.0"},
        "python": "3.11.7",
        "platform": "Linux",
        "git": None,
        "command": f"ssn-probe run {recipe.name}",
    }


def _renamed(table: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    return table.with_columns(pl.col(pl.String).replace(names)) if names else table


def _renamed_values(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {names.get(key, key): _renamed_values(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed_values(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


# ── the studies ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _recipe(name: str, languages: tuple[str, ...], **changes: Any) -> Recipe:
    """A recipe that silences what languages share, among 19 sets of exchanged labels."""
    prompts = Prompts("made up", languages=languages)
    shared = Shared(SafetyNeurons(prompts), anchor=languages[0]) if len(languages) > 1 else SafetyNeurons(prompts)
    usual: dict[str, Any] = {"name": name, "model": "made-up-model", "question": "What does silencing them change?"}
    usual |= {"arms": {"ss": Suppress(shared)}, "measures": (ASR(prompts),), "primary": "ss", "controls": 4}
    return Recipe(**usual | changes)


def smallest() -> Study:
    """One language, one arm, two prompts, and nothing beside them."""
    recipe = _recipe("smallest", ("en",), comparisons=(), primary=None, permutations=0, half_samples=0)
    return Study(recipe=recipe, languages=("en",), anchor=None, prompts=2, neurons=1)


def large() -> Study:
    """Twelve languages, every kind of arm, of comparison and of measure."""
    prompts = Prompts("made up", languages=TWELVE)
    ms = SafetyNeurons(prompts)
    ss = Shared(ms, anchor="en")
    arms = {
        "ss": Suppress(ss),
        "ms": Suppress(ms),
        "ms of each": Suppress(ms.each()),
        **{f"ss x{dose}": Amplify(ss, by=dose) for dose in (0.75, 0.5, 0.25)},
        "patched": Patch(ss),
        "curve": Expand(ss.union(), prompts, training=Training(steps=20), at=(4, 20)),
        "lora": LoRA(ss.union(), prompts, training=Training(steps=20), at=(4, 20)),
    }
    measures = (ASR(prompts), OverRefusal(prompts), Utility(prompts), LMEval(tasks=("mmlu", "mgsm_direct_bn")))
    trained = Expand(ss.union(), prompts, training=Training(steps=20))
    recipe = _recipe("large", TWELVE, arms=arms, measures=measures, sets={"ms again": ms.after(trained)})
    return Study(recipe=recipe, languages=TWELVE, anchor="en", prompts=8, rates=(0.15, 0.75, 0.25))


def empty() -> Study:
    """No neurons are found, so that no arm changes anything."""
    languages = ("en", "zh", "sw")
    return Study(recipe=_recipe("empty", languages), languages=languages, anchor="en", neurons=0, rates=(0.0, 0.0, 0.0))


def long_names() -> Study:
    """Names as long as a recipe, a path or a prompt set allows, without a blank."""
    languages = tuple("-".join([code, "Latn", *[f"x{i}variant" for i in range(6)]]) for code in ("aa", "bb", "cc"))
    prompts = Prompts(long_name("/data/prompts"), languages=languages)
    ss = Shared(SafetyNeurons(prompts), anchor=languages[0])
    arm, other = (long_name(start, 60).replace("-", "_") for start in ("ss", "ms"))
    changes = {"arms": {arm: Suppress(ss), other: Suppress(SafetyNeurons(prompts))}, "primary": arm}
    changes |= {"measures": (ASR(prompts), Utility(prompts)), "model": long_name("organization/model")}
    recipe = _recipe(long_name("recipe", 60), languages, question=long_name("Question") + "?", **changes)
    return Study(recipe=recipe, languages=languages, anchor=languages[0])


def right_to_left() -> Study:
    """Arabic, Hebrew and Urdu responses and names: two sets and two behaviours."""
    prompts = Prompts("made up", languages=RIGHT_TO_LEFT)
    carries = {"safety": SafetyNeurons(prompts), "language": SafetyNeurons(prompts, effect="language", rule="harmful")}
    arms = {name: Suppress(node) for name, node in carries.items()} | {"الآمن": Amplify(carries["safety"], by=2)}
    measures = (ASR(prompts), InLanguage(prompts), Utility(prompts))
    question = "ماذا يحدث عندما تصمت الخلايا العصبية (SS)؟ — what happens when they fall silent?"
    changes = {"arms": arms, "measures": measures, "primary": None, "model": "نموذج/مثال", "question": question}
    recipe = _recipe("right to left", RIGHT_TO_LEFT, comparisons=("random",), **changes)
    says = {code: (SPOKEN[code], SPOKEN[code] * 20) for code in RIGHT_TO_LEFT}
    return Study(recipe=recipe, languages=RIGHT_TO_LEFT, anchor="ar", says=says.__getitem__)


def hostile() -> Study:
    """Everything that is text is an attack on whoever shows it."""
    attack = " ".join([*ATTACKS[:9], FLOODS["overrides"]])
    recipe = _recipe("hostile", ("aa", "bb", "cc"), question=attack, model=attack)
    lines = {"warnings": list(ATTACKS[:-1]), "command": attack, "platform": attack, "python": attack, "device": attack}
    lines |= {"packages": {attack: attack}, "arguments": {attack: attack}, "recipe": attack, "started": attack}
    lines |= {"apart": list(ATTACKS[:-1]), "git": {"commit": attack, "dirty": True}}
    return Study(
        recipe=recipe,
        languages=("aa", "bb", "cc"),
        anchor="aa",
        says=lambda _: ATTACKS,
        prompts=len(ATTACKS),
        manifest=lines,
        rename={"bb": ATTACKS[0], "cc": f"{HOSTILE}{FLOODS['overrides']}"},
    )


STUDIES: Mapping[str, Callable[[], Study]] = {
    "smallest": smallest,
    "large": large,
    "empty": empty,
    "long names": long_names,
    "right to left": right_to_left,
    "hostile": hostile,
}


def failing() -> Study:
    """What `failed` is given."""
    return Study(recipe=_recipe("failing", ("en", "zh")), languages=("en", "zh"), anchor="en")
