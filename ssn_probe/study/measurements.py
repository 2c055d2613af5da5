"""What is measured of a model under a change: responses and log-odds, each kept under all that decides it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl

from ssn_probe.data.judges import Judge, JudgedRow, make_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.sameness import seen
from ssn_probe.model.chat import encode
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.runs.verdict_store import stored
from ssn_probe.spec import Intervention
from ssn_probe.spec.node import digest
from ssn_probe.study.progress import Advance
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.batching import (
    Memory,
    Part,
    PartInMemory,
    Shelf,
    all_done,
    covered,
    gather_array,
    no_progress,
)
from ssn_probe.tracing.edits import NO_EDITS, Edits
from ssn_probe.tracing.responses import finish, new_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from ssn_probe.tracing.carried import Carried

T = TypeVar("T")
RESPONSE = {
    "response": pl.String,
    "verdict": pl.String,
    "reason": pl.String,
    "tokens": pl.Int64,
    "finish_reason": pl.String,
}


def rows_of(bench: Workbench, prompts: PromptSet, context: str, language: str) -> pl.DataFrame:
    """The *evaluate* rows of a context and language, which every arm asks for again."""
    key = ("rows", prompts.digest, context, language)
    return bench.remember_prompts(key, lambda: prompts.select("evaluate", context, language))


def tokens_of(bench: Workbench, rows: pl.DataFrame) -> list[list[int]]:
    """Token ids of some prompts in the model's chat template."""
    texts = tuple(rows["text"])
    return bench.remember_prompts(("tokens", texts), lambda: encode(bench.subject, texts))


def tokens_digest(bench: Workbench, rows: pl.DataFrame) -> str:
    """The digest of `tokens_of`, by which a measurement's key names its prompts."""
    key = ("tokens digest", tuple(rows["text"]))
    return bench.remember_prompts(key, lambda: digest(tokens_of(bench, rows)))


@dataclass(frozen=True, eq=False)
class Carry:
    """Values from another run: `inputs` names that run in JSON, `values` makes them when they are needed."""

    inputs: Any
    values: "Callable[[], Carried]"


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What is changed while the model runs, by which intervention, and with whose values."""

    edits: Edits = NO_EDITS
    does: Intervention | None = None
    carry: Carry | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        """The change in JSON; without an edit nothing changes, whatever the intervention."""
        if not self.edits:
            return {"edits": None}
        method = None if self.does is None else [type(self.does).__name__, self.does.version]
        carried = None if self.carry is None else self.carry.inputs
        return {"edits": digest(_plain(self.edits)), "by": method, "carried": carried}

    def values(self, shelf: Shelf, prompts: int) -> "Carried | None":
        """The values to carry over; None where there are none, or nothing has to run."""
        return None if self.carry is None or covered(shelf, prompts) else self.carry.values()


UNCHANGED = Change()


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def judge_of(bench: Workbench, prompts: PromptSet, languages: Sequence[str] | None = None) -> Judge:
    """The judge of a prompt set's responses, on the model's device, with the verdicts that are kept; made once."""
    device = bench.subject.device if bench.subject.host is None else "auto"

    def make() -> Judge:
        judge = make_judge(prompts.judge, judged, prompts.name, device, asked=asked)
        if bench.cache is None or not judge.stored:
            return judge
        kept = stored(judge, bench.cache.root, compute=bench.cache.compute)
        return bench.remember_prompts(("judge", digest(dict(judge.identity))), lambda: kept)  # it counts all its costs

    judged = tuple(languages or prompts.languages)
    asked = bench.cache is None or bench.cache.compute
    return bench.remember_prompts(("judge", prompts.digest, judged), make)


def response_inputs(bench: Workbench, prompts: PromptSet, rows: pl.DataFrame, change: Change) -> dict[str, Any]:
    """What decides the responses to some prompts: their tokens, the change, and how many tokens may come."""
    tokens = tokens_digest(bench, rows)
    engine = {} if bench.engine is None else {"engine": bench.engine.identity}
    return bench.inputs("responses", prompts=tokens, max_new_tokens=prompts.max_new_tokens, **change.inputs, **engine)


def responses(
    bench: Workbench,
    prompts: PromptSet,
    rows: pl.DataFrame,
    language: str,
    change: Change,
    advance: Advance,
    reads: Openings | Direction | None = None,
) -> pl.DataFrame:
    """One row per prompt: `response, verdict, reason, correct, tokens, finish_reason`, greedy, under a change.

    `correct` says whether a reader sees the reference in the response, and is null where there is none. `reads`: how
    the log-odds of the same prompts will be read; where the pass over the prompts decides them, `log_odds` has them
    from the generation then.
    """

    def compute() -> pl.DataFrame:
        found = finish(bench.subject, _new_tokens(bench, prompts, rows, change, advance, reads))
        if unwritten := sum(response.unwritten > 0 for response in found):
            bench.warn(
                f"{language}: {unwritten} of {rows.height} responses have tokens that the tokenizer has no text for "
                "(the embedding is larger than the tokenizer): the judge sees them without these tokens"
            )
        asked = zip(rows["text"], found, strict=True)
        judged = judge_of(bench, prompts).judge([JudgedRow(language, text, one.text) for text, one in asked])
        frame = pl.DataFrame(
            {
                "response": [response.text for response in found],
                "verdict": [one.verdict for one in judged],
                "reason": [one.reason for one in judged],
                "tokens": [response.tokens for response in found],
                "finish_reason": [response.finish_reason for response in found],
            },
            schema_overrides=RESPONSE,
        )
        return frame.hstack([_same(frame["response"], rows["reference"]).alias("correct")])

    key = ("responses", prompts.digest, language, tuple(rows["prompt_id"]), digest(change.inputs), change.edits)
    return measured_once(bench, key, compute, rows.height, advance)


def _same(texts: pl.Series, others: pl.Series) -> pl.Series:
    """Does a reader see the same in both? Null where there is nothing to compare."""
    if others.null_count() == len(others):
        return pl.Series([None] * len(texts), dtype=pl.Boolean)
    spelled = [
        pl.Series([None if text is None else seen(text) for text in column], dtype=pl.String).str.strip_chars()
        for column in (texts, others)
    ]
    return spelled[0] == spelled[1]


def _new_tokens(
    bench: Workbench,
    prompts: PromptSet,
    rows: pl.DataFrame,
    change: Change,
    advance: Advance,
    reads: Openings | Direction | None = None,
) -> list[list[int]]:
    """The responses to some prompts as token ids, from the cache or generated now, with log-odds beside them."""
    with bench.shelf(response_inputs(bench, prompts, rows, change), rows.height) as shelf:
        if not all_done(shelf, rows.height, advance):
            from ssn_probe.tracing.generate import greedy_tokens

            beside = _beside(bench, rows, change, reads)
            greedy_tokens(
                bench.subject,
                tokens_of(bench, rows),
                edits=change.edits,
                carried=change.values(shelf, rows.height),
                max_new_tokens=prompts.max_new_tokens,
                engine=bench.engine,
                readings=[] if beside is None else [(beside.reads, beside)],
                batch_size=bench.size("responses"),
                shelf=shelf,
                advance=advance,
            )
            if beside is not None:
                beside.remember()
        return new_tokens(shelf.parts(), rows.height, prompts.max_new_tokens)


def untouched_tokens(
    bench: Workbench, prompts: PromptSet, rows: pl.DataFrame, advance: Advance = no_progress
) -> list[list[int]]:
    """The greedy responses of the bench's own model, as token ids, with what a longer batch made after their ends."""
    return _new_tokens(bench, prompts, rows, UNCHANGED, advance)


def log_odds_inputs(
    bench: Workbench, rows: pl.DataFrame, change: Change, reads: Openings | Direction
) -> dict[str, Any]:
    """What decides the refusal log-odds of some prompts: their tokens, the change, and how refusal is read."""
    tokens = tokens_digest(bench, rows)
    return bench.inputs("log odds", prompts=tokens, reads=reads_json(reads), **change.inputs)


def log_odds(
    bench: Workbench, rows: pl.DataFrame, change: Change, reads: Openings | Direction, advance: Advance
) -> pl.Series:
    """The refusal log-odds of every prompt under a change, as `reads` reads it."""
    inputs = log_odds_inputs(bench, rows, change, reads)

    def compute() -> pl.Series:
        with bench.shelf(inputs, rows.height) as shelf:
            if not all_done(shelf, rows.height, advance):
                from ssn_probe.tracing.effects import refusal_log_odds

                refusal_log_odds(
                    bench.subject,
                    tokens_of(bench, rows),
                    reads,
                    edits=change.edits,
                    carried=change.values(shelf, rows.height),
                    batch_size=bench.size("log odds"),
                    shelf=shelf,
                    advance=advance,
                )
            return _odds(shelf, rows.height)

    return measured_once(bench, _odds_key(inputs, change), compute, rows.height, advance)


def _odds(shelf: Shelf, prompts: int) -> pl.Series:
    return pl.Series(gather_array(shelf.parts(), "log_odds", np.zeros(prompts, np.float32)))


def _odds_key(inputs: Mapping[str, Any], change: Change) -> tuple[Any, ...]:
    return ("log odds", digest(dict(inputs)), change.edits)


@dataclass(frozen=True, kw_only=True, eq=False)
class BesideResponses:
    """The shelf of log-odds that a generation gives: every batch is kept as if it had been measured by itself.

    What is there already stays. `mine` are the batches that were not.
    """

    bench: Workbench
    rows: int
    change: Change
    reads: Openings | Direction
    inputs: Mapping[str, Any]
    mine: Memory = field(default_factory=Memory)

    def parts(self) -> Sequence[Part]:
        return self.mine.parts()

    def put(self, rows: Sequence[int], values: "Mapping[str, Tensor]") -> None:
        if self.bench.add(self.inputs, PartInMemory(rows=tuple(rows), values=values)):
            self.mine.put(rows, values)

    def remember(self) -> None:
        """For `log_odds`, where no prompt is missing."""
        if covered(self, self.rows):
            values = _odds(self, self.rows)
            self.bench.remember(_odds_key(self.inputs, self.change), lambda: values)


def _beside(
    bench: Workbench, rows: pl.DataFrame, change: Change, reads: Openings | Direction | None
) -> BesideResponses | None:
    """None where log-odds are not asked for, or are not those of a prompt as a generation begins with it."""
    if reads is None or change.carry is not None or bench.engine is not None:
        return None
    from ssn_probe.tracing.readout import read_at_prompt

    if not read_at_prompt(bench.subject, reads):
        return None
    inputs = log_odds_inputs(bench, rows, change, reads)
    return BesideResponses(bench=bench, rows=rows.height, change=change, reads=reads, inputs=inputs)


def reads_json(reads: Openings | Direction) -> Any:
    """How refusal is read, in JSON."""
    if isinstance(reads, Direction):
        return {"direction": digest(list(reads.vector))}
    return {"refusal": _plain(reads.refusal), "compliant": _plain(reads.compliant)}


def states(bench: Workbench, rows: pl.DataFrame) -> Any:
    """The final state of every prompt at its last token, [prompt, hidden]."""
    from ssn_probe.tracing.effects import final_states

    tokens = tokens_of(bench, rows)
    with bench.shelf(bench.inputs("final states", prompts=digest(tokens)), rows.height) as shelf:
        return final_states(bench.subject, tokens, batch_size=bench.size("final states"), shelf=shelf)


def measured_once(
    bench: Workbench, key: tuple[Any, ...], compute: Callable[[], T], prompts: int, advance: Advance
) -> T:
    """A measurement for all who ask for it; whoever comes later has its prompts done at once."""
    computed: list[T] = []

    def compute_here() -> T:
        computed.append(compute())
        return computed[0]

    found = bench.remember(key, compute_here)
    if not computed:
        advance(prompts)
    return found
