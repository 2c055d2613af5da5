"""The same request in another language: where a Patch takes its values from, and whether every prompt has a parallel.

Parallel prompts share their `prompt_id`. What is missing is found from the data alone, before a model is loaded.
"""

from collections.abc import Mapping

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.errors import DataError, RecipeError, nearest
from ssn_probe.spec import Recipe
from ssn_probe.spec.anchors import source_of

SHOWN = 5
"""So many missing prompts are named."""


def check_sources(recipe: Recipe, contexts: Mapping[str, PromptSet], anchor: str | None) -> None:
    """Every prompt that a patched arm is measured on must exist in the arm's source language.

    `contexts`: those that the recipe's measures read, with their prompt sets. Raises RecipeError for a source that is
    no language of these sets or is their only one, DataError for prompts without a parallel, naming them.
    """
    sources = {source for node in recipe.arms.values() if (source := source_of(node, anchor)) is not None}
    for source in sorted(sources):
        for context, prompts in contexts.items():
            _check_language(prompts, source)
            _check_parallels(prompts, context, source)


def _check_language(prompts: PromptSet, source: str) -> None:
    if source not in prompts.languages:
        raise RecipeError(
            f"Patch(…) names the unknown source language {source!r} ({prompts.name})",
            nearest(source, prompts.languages),
        )
    if prompts.languages == (source,):
        raise RecipeError(f"{prompts.name} has no language besides the source {source} of Patch(…)", "Add one.")


def _check_parallels(prompts: PromptSet, context: str, source: str) -> None:
    rows = prompts.select("evaluate", context)
    known = rows.filter(pl.col("language") == source).select("prompt_id")
    missing = rows.filter(pl.col("language") != source).join(known, on="prompt_id", how="anti")
    if missing.height:
        ids = missing["prompt_id"].unique(maintain_order=True)
        names = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
        raise DataError(
            f"{prompts.name}: {context} prompts to evaluate on have no parallel in {source}, the source of Patch(…): "
            f"{names}",
            f"Add them in {source} under the same prompt_id, or carry over from another language with source=….",
        )
