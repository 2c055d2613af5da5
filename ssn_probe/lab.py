"""The bench that a run works at: the model, the prompt sets, and everything already computed.

Every step asks the bench for what it needs by key; what was computed once in a run is never computed again, so two
arms that come to the same neurons in a language share one measurement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from ssn_probe.judges import make_judge
from ssn_probe.neurons import NeuronSet, Site
from ssn_probe.progress import Advance, Silent, Tracker
from ssn_probe.prompts import PromptSet
from ssn_probe.recipe import Amplify, Intervention, MeanOf, Patch, Prompts, Suppress
from ssn_probe.subject import Direction, Openings, Subject, encode
from ssn_probe.tracing.carry import Carried
from ssn_probe.tracing.edits import NO_EDITS, Edits, amplification, carrying, suppression
from ssn_probe.tracing.generate import generate
from ssn_probe.tracing.means import mean_activations
from ssn_probe.tracing.score import refusal_log_odds

T = TypeVar("T")
Values = Callable[[], Carried]
"""What is carried over from another run, made when it is needed."""
RESPONSE = {
    "response": pl.String,
    "verdict": pl.String,
    "tokens": pl.Int64,
    "finish_reason": pl.String,
    "reference": pl.String,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Lab:
    """A subject, its data, the anchor, settings that change no number (batch size, cache, progress), and a memory."""

    subject: Subject
    data: Mapping[Prompts, PromptSet]
    anchor: str | None = None
    batch_size: int = 200
    cache: Path | None = None
    tracker: Tracker = field(default_factory=Silent)
    memory: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def remember(self, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """The value under `key`, computed on first request."""
        if key not in self.memory:
            self.memory[key] = compute()
        return self.memory[key]

    def warn(self, message: str) -> None:
        """Notes something that a reader of the results must know; said once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def widths(self) -> dict[tuple[int, str], int]:
        """The number of neurons of every (layer, site)."""
        return {(layer, site): n for layer in range(self.subject.n_layers) for site, n in self.subject.widths.items()}


def rows_of(lab: Lab, prompts: PromptSet, context: str, language: str) -> pl.DataFrame:
    """The *evaluate* rows of one context and language: every arm asks for them again."""
    key = ("rows", prompts.digest, context, language)
    return lab.remember(key, lambda: prompts.select("evaluate", context, language))


def tokens_of(lab: Lab, rows: pl.DataFrame) -> list[list[int]]:
    """Token ids of some prompts in the model's chat template."""
    texts = tuple(rows["text"])
    return lab.remember(("tokens", texts), lambda: encode(lab.subject, texts))


def edits_for(
    lab: Lab,
    neurons: NeuronSet | None,
    language: str,
    does: Intervention | None = None,
    source: str | None = None,
) -> Edits:
    """What changes while `language` is evaluated under a set, silenced unless `does` says otherwise.

    Nothing for the baseline. `source` is the language that a Patch carries over from.
    """
    if neurons is None:
        return NO_EDITS
    rows = neurons.neurons(language).select("layer", "site", "index").iter_rows()
    match does:
        case Amplify(by=by):
            return amplification(rows, by)
        case Patch(positions=positions):
            return carrying(rows, f"{source}, {positions}")
        case Suppress(to=MeanOf() as mean):
            return suppression(rows, harmless_means(lab, mean, language))
    return suppression(rows)


def harmless_means(lab: Lab, node: MeanOf, language: str) -> Mapping[Site, Any]:
    """Mean activations over the harmless identify prompts of a language."""

    def compute() -> Mapping[Site, Any]:
        rows = lab.data[node.prompts].select("identify", "harmless", language)
        return mean_activations(lab.subject, tokens_of(lab, rows), batch_size=lab.batch_size)

    return lab.remember(("means", lab.data[node.prompts].digest, language), compute)


def responses(
    lab: Lab,
    prompts: PromptSet,
    rows: pl.DataFrame,
    language: str,
    edits: Edits,
    advance: Advance,
    carried: Values | None = None,
) -> pl.DataFrame:
    """One row per prompt: `response, verdict, correct, tokens, finish_reason`, greedy, under `edits`.

    `correct` says whether the response equals the reference, and is null where there is none. `carried` gives the
    values that edits carry over, and is called only where the responses are not known yet: the edits name the run that
    the values are from.
    """
    judge = lab.remember(("judge", prompts.digest), lambda: make_judge(prompts.judge, prompts.languages, prompts.name))

    def compute() -> pl.DataFrame:
        made = generate(
            lab.subject,
            tokens_of(lab, rows),
            edits=edits,
            carried=carried() if carried else None,
            max_new_tokens=prompts.max_new_tokens,
            batch_size=lab.batch_size,
            advance=advance,
        )
        frame = pl.DataFrame(
            {
                "response": [one.text for one in made],
                "verdict": [judge(language, one.text) for one in made],
                "tokens": [one.tokens for one in made],
                "finish_reason": [one.finish_reason for one in made],
                "reference": rows["reference"],
            },
            schema_overrides=RESPONSE,
        )
        same = pl.col("response").str.strip_chars() == pl.col("reference").str.strip_chars()
        return frame.with_columns(correct=same).drop("reference")

    key = ("responses", prompts.digest, language, tuple(rows["prompt_id"]), edits)
    return _shared(lab, key, compute, rows.height, advance)


def log_odds(
    lab: Lab,
    prompts: PromptSet,
    rows: pl.DataFrame,
    language: str,
    edits: Edits,
    advance: Advance,
    *,
    reads: Openings | Direction,
    carried: Values | None = None,
) -> pl.Series:
    """The refusal log-odds of every prompt under `edits`, as `reads` reads it; otherwise see `responses`."""

    def compute() -> pl.Series:
        values = refusal_log_odds(
            lab.subject,
            tokens_of(lab, rows),
            reads,
            edits=edits,
            carried=carried() if carried else None,
            batch_size=lab.batch_size,
            advance=advance,
        )
        return pl.Series(values.numpy())

    key = ("log odds", prompts.digest, language, tuple(rows["prompt_id"]), reads, edits)
    return _shared(lab, key, compute, rows.height, advance)


def _shared(lab: Lab, key: tuple[Any, ...], compute: Callable[[], T], prompts: int, advance: Advance) -> T:
    """One measurement for all who ask for it; whoever comes later has its prompts done at once."""
    if key in lab.memory:
        advance(prompts)
    return lab.remember(key, compute)
