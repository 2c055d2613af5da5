"""README.md of a shared run: what it asked and found, what is in each table, how to run it again, whom to cite."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.report.claim import kept_claims
from ssn_probe.report.conclusions import claims_section
from ssn_probe.report.document import Bullets, Table, section
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.markdown import as_markdown
from ssn_probe.report.rerun_command import shared_rerun
from ssn_probe.text import listing, markdown, plain

PAPER = (
    "Zhang et al.: Who Transfers Safety? Identifying and Targeting Cross-Lingual Shared Safety Neurons. ICML 2026, "
    "arXiv:2602.01283."
)
TABLES = {
    "summary": "every measure per language and arm, with its interval and its difference from the untouched model",
    "comparisons": "what the compared sets gave, beside the tested one",
    "samples": "a row per prompt and arm: verdict, tokens, and of the response what may be passed on",
    "responses": "responses that showed whether the model refuses, before neurons were chosen",
    "neurons": "every chosen neuron with its score",
    "overlap": "neurons that two languages share, beside what chance gives",
    "nulls": "what the same method finds under exchanged labels",
    "stability": "how far half of the prompts choose the same neurons",
    "log_odds": "the refusal log-odds per prompt and arm",
    "kl": "how far an arm moves the model on harmless text",
    "language_log_odds": "the log-odds of the prompt's language against the others, per prompt and arm",
    "truth": "the sets against the neurons that were planted",
    "verification": "how many neurons were verified by ablation, and an audit of the others",
    "compared_sets": "every neuron of the sets that the tested one is compared with",
    "stability_curve": "how far fewer prompts choose the same neurons",
    "curves": "what a training gave and cost, step by step",
    "training": "the loss of a training, step by step",
    "again": "how many neurons of a set were found again after training",
    "dissociation": "two behaviours under two sets, and their difference",
    "lm_eval": "scores of lm-eval per task and arm",
}


def dataset_card(run: FinishedRun, tables: Mapping[str, pl.DataFrame], texts: str) -> str:
    """The card, with a header from which `datasets` loads each table. `texts`: which texts the tables hold, and why."""
    manifest = run.manifest
    model, languages = manifest["model"]["name"], manifest["evaluated"]
    answer = section("Answer", Bullets(tuple(manifest["answer"])))
    claims = claims_section(kept_claims(manifest))
    rows = tuple((name, f"{table.height:,}", TABLES.get(name, "see the page")) for name, table in tables.items())
    rerun = shared_rerun(run.recipe, manifest)
    parts = [
        f"# {markdown(title(run))}\n",
        as_markdown(section("Question", f"{run.recipe.question} The model is {model}; {_evaluated(languages)}.")),
        as_markdown(answer),
        as_markdown(claims) if claims else "",
        as_markdown(section("Tables", Table(("table", "rows", "what a row is"), rows), texts)),
        "The whole report is `report.html`, a page that needs no network; `run.json` says how the run was made.\n",
        f"## Load it\n\n    datasets.load_dataset(FOLDER_OR_NAME, {first(tables)!r})\n",
        f"## Run it again\n\n{rerun.where}\n\n    {plain(rerun.command)}\n",
        f"## Citation\n\nThe method: {PAPER} The tool: ssn-probe {manifest['packages'].get('ssn-probe', '')}.\n",
    ]
    return f"---\n{_header(run, tables)}\n---\n\n" + "\n".join(part for part in parts if part)


def title(run: FinishedRun) -> str:
    return f"{run.recipe.name} on {run.manifest['model']['name']}"


def first(tables: Mapping[str, pl.DataFrame]) -> str:
    """The table that is loaded where none is named."""
    return "summary" if "summary" in tables else next(iter(tables))


def licence(manifest: Mapping[str, Any]) -> str:
    """That of the prompts, where they have one and the same."""
    found = {str(one.get("license") or "") for one in manifest["data"]}
    return found.pop() if len(found) == 1 and "" not in found else "other"


def _header(run: FinishedRun, tables: Mapping[str, pl.DataFrame]) -> str:
    from huggingface_hub import DatasetCardData

    configs = [
        {"config_name": name, "data_files": f"tables/{name}.parquet"}
        | ({"default": True} if name == first(tables) else {})
        for name in tables
    ]
    return DatasetCardData(
        pretty_name=title(run),
        license=licence(run.manifest).lower(),
        language=list(run.manifest["evaluated"]),
        tags=["ssn-probe", "interpretability", "safety", "multilingual", "refusal"],
        configs=configs,
    ).to_yaml()


def _evaluated(languages: Sequence[str]) -> str:
    return f"evaluated in {listing(list(languages))}" if languages else "no language was evaluated"
