"""Which responses are in the language of their prompt?"""

import polars as pl

from ssn_probe.data.response_language import told
from ssn_probe.spec import Recipe
from ssn_probe.study.resolve import measured
from ssn_probe.study.summary import IN_LANGUAGE
from ssn_probe.study.workbench import Workbench


def with_language(bench: Workbench, recipe: Recipe, samples: pl.DataFrame) -> pl.DataFrame:
    """Samples with the column `in_language`; every distinct response is looked at once."""
    is_in = {context: told(prompts) for context, prompts in measured(recipe, bench.data).items()}
    keys = ["context", "eval_language", "response"]
    different = samples.select(keys).unique(maintain_order=True)
    found = [is_in[context](response, language) for context, language, response in different.iter_rows()]
    column = different.with_columns(pl.Series(IN_LANGUAGE, found, pl.Boolean))
    return samples.join(column, on=keys, how="left", maintain_order="left")
