"""The bench that a run works at: the model, the prompt sets, and everything already computed.

Every step asks the bench for what it needs by key; what was computed once in a run is never computed again, so two
arms that come to the same neurons in a language share one measurement.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import polars as pl

from ssn_probe.data.judges import make_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.model.subject import Direction, Openings, Subject, encode
from ssn_probe.neurons import NeuronSet, Site
from ssn_probe.runs.cache import Cache, Frames
from ssn_probe.spec import Amplify, Intervention, MeanOf, Patch, Prompts, Suppress, Trains
from ssn_probe.spec.node import digest
from ssn_probe.study.progress import Advance, Silent, Tracker
from ssn_probe.tracing.batching import BatchSize, Memory, Shelf, covered
from ssn_probe.tracing.carried import Carried
from ssn_probe.tracing.edits import NO_EDITS, Edits, amplification, carrying, suppression
from ssn_probe.tracing.effects import final_states, refusal_log_odds
from ssn_probe.tracing.generate import generate
from ssn_probe.tracing.means import mean_activations

T = TypeVar("T")
METHODS = {
    "responses": 1,
    "log odds": 1,
    "final states": 1,
    "mean activations": 1,
    "activations": 1,
    "scores": 1,
    "null": 1,
    "stability": 1,
    "discoveries": 1,
    "expansion": 2,
}
"""What is kept between runs, each with a version that is raised when its numbers change: older ones are not used."""
LARGEST_BATCH = 200
"""Where an automatic batch size begins."""
RESPONSE = {
    "response": pl.String,
    "verdict": pl.String,
    "tokens": pl.Int64,
    "finish_reason": pl.String,
    "reference": pl.String,
}


@dataclass(frozen=True, eq=False)
class Weights:
    """Other weights: `what` names them in JSON, `inside` is a context in which the model has them."""

    what: Any
    inside: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Workbench:
    """A subject, its data, the anchor, settings that change no number (batch size, cache, progress), and a memory.

    `batch_size` None: as many prompts as the memory holds. `cache` None: nothing outlives the bench. `weights`: what
    the model is measured with, if not with its own; they are put in for as long as something has to be computed.
    """

    subject: Subject
    data: Mapping[Prompts, PromptSet]
    anchor: str | None = None
    weights: Weights | None = None
    batch_size: int | None = LARGEST_BATCH
    gradient_checkpointing: bool = False
    cache: Cache | None = None
    tracker: Tracker = field(default_factory=Silent)
    memory: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    readouts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How refusal is read (`refusal_readout.Readout`), by digest of the prompt set and by language."""
    warnings: list[str] = field(default_factory=list)
    sizes: dict[str, BatchSize] = field(default_factory=dict)

    def remember(self, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """The value under `key`, computed on first request."""
        if key not in self.memory:
            self.memory[key] = compute()
        return self.memory[key]

    def warn(self, message: str) -> None:
        """Notes something that a reader of the results must know; said once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def size(self, method: str) -> BatchSize:
        """How many sequences run together; what did not fit once is not tried again."""
        auto = self.batch_size is None
        return self.sizes.setdefault(method, BatchSize(self.batch_size or LARGEST_BATCH, auto))

    def what(self, method: str, **inputs: Any) -> dict[str, Any]:
        """All that decides the numbers of a measurement; its digest is the key under which they are kept."""
        trained = {} if self.weights is None else {"trained": self.weights.what}
        return {"method": method, "version": METHODS[method], "model": self.subject.identity | trained} | inputs

    @contextmanager
    def shelf(self, what: Mapping[str, Any], prompts: int) -> Iterator[Shelf]:
        """Where the batches of a measurement of so many prompts are; inside, the model has the bench's weights.

        Nothing is put in where all batches are there. Raises NotCached where nothing may be computed.
        """
        with nullcontext(Memory()) if self.cache is None else self.cache.entry(what) as shelf:
            done = covered(shelf, prompts)
            if self.cache is not None:
                self.cache.count(done, what)
            with nullcontext() if done or self.weights is None else self.weights.inside():
                yield shelf

    def frames(self, what: Mapping[str, Any], names: Sequence[str], compute: Callable[[], Frames]) -> Frames:
        """Tables that take long to compute, from the cache where they are there."""
        return compute() if self.cache is None else self.cache.frames(what, names, compute)

    def widths(self) -> dict[tuple[int, str], int]:
        """The number of neurons of every (layer, site)."""
        return {(layer, site): n for layer in range(self.subject.n_layers) for site, n in self.subject.widths.items()}


def rows_of(bench: Workbench, prompts: PromptSet, context: str, language: str) -> pl.DataFrame:
    """The *evaluate* rows of one context and language: every arm asks for them again."""
    key = ("rows", prompts.digest, context, language)
    return bench.remember(key, lambda: prompts.select("evaluate", context, language))


def tokens_of(bench: Workbench, rows: pl.DataFrame) -> list[list[int]]:
    """Token ids of some prompts in the model's chat template."""
    texts = tuple(rows["text"])
    return bench.remember(("tokens", texts), lambda: encode(bench.subject, texts))


def edits_for(
    bench: Workbench,
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
        case Trains():
            return NO_EDITS  # what changes are weights
        case Amplify(by=by):
            return amplification(rows, by)
        case Patch(positions=positions):
            return carrying(rows, f"{source}, {positions}")
        case Suppress(to=MeanOf() as mean):
            return suppression(rows, harmless_means(bench, mean, language))
    return suppression(rows)


def harmless_means(bench: Workbench, node: MeanOf, language: str) -> Mapping[Site, Any]:
    """Mean activations over the harmless identify prompts of a language."""

    def compute() -> Mapping[Site, Any]:
        rows = bench.data[node.prompts].select("identify", "harmless", language)
        what = bench.what("mean activations", prompts=digest(tokens_of(bench, rows)))
        with bench.shelf(what, rows.height) as shelf:
            size = bench.size("mean activations")
            return mean_activations(bench.subject, tokens_of(bench, rows), batch_size=size, shelf=shelf)

    return bench.remember(("means", bench.data[node.prompts].digest, language), compute)


@dataclass(frozen=True, eq=False)
class Carry:
    """Values from another run: `what` names that run in JSON, `values` makes them when they are needed."""

    what: Any
    values: Callable[[], Carried]


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What is changed while the model runs, by which method, and with whose values."""

    edits: Edits = NO_EDITS
    does: Intervention | None = None
    carry: Carry | None = None

    @property
    def what(self) -> dict[str, Any]:
        """The change in JSON; without an edit nothing changes, whatever the method."""
        if not self.edits:
            return {"edits": None}
        method = None if self.does is None else [type(self.does).__name__, self.does.version]
        carried = None if self.carry is None else self.carry.what
        return {"edits": digest(_plain(self.edits)), "by": method, "carried": carried}

    def values(self, shelf: Shelf, prompts: int) -> Carried | None:
        """The values to carry over; None where there are none, or nothing has to run."""
        return None if self.carry is None or covered(shelf, prompts) else self.carry.values()


UNCHANGED = Change()


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def responses_what(bench: Workbench, prompts: PromptSet, rows: pl.DataFrame, change: Change) -> dict[str, Any]:
    """What decides the responses to some prompts: their tokens, the change, and how many tokens may come."""
    shown = digest(tokens_of(bench, rows))
    return bench.what("responses", prompts=shown, max_new_tokens=prompts.max_new_tokens, **change.what)


def responses(
    bench: Workbench, prompts: PromptSet, rows: pl.DataFrame, language: str, change: Change, advance: Advance
) -> pl.DataFrame:
    """One row per prompt: `response, verdict, correct, tokens, finish_reason`, greedy, under a change.

    `correct` says whether the response equals the reference, and is null where there is none.
    """
    judge = bench.remember(
        ("judge", prompts.digest), lambda: make_judge(prompts.judge, prompts.languages, prompts.name)
    )

    def compute() -> pl.DataFrame:
        what, count = responses_what(bench, prompts, rows, change), rows.height
        with bench.shelf(what, count) as shelf:
            made = generate(
                bench.subject,
                tokens_of(bench, rows),
                edits=change.edits,
                carried=change.values(shelf, count),
                max_new_tokens=prompts.max_new_tokens,
                batch_size=bench.size("responses"),
                shelf=shelf,
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

    key = ("responses", prompts.digest, language, tuple(rows["prompt_id"]), digest(change.what), change.edits)
    return _shared(bench, key, compute, rows.height, advance)


def log_odds_what(bench: Workbench, rows: pl.DataFrame, change: Change, reads: Openings | Direction) -> dict[str, Any]:
    """What decides the refusal log-odds of some prompts: their tokens, the change, and how it is read."""
    return bench.what("log odds", prompts=digest(tokens_of(bench, rows)), reads=reads_what(reads), **change.what)


def log_odds(
    bench: Workbench, rows: pl.DataFrame, change: Change, reads: Openings | Direction, advance: Advance
) -> pl.Series:
    """The refusal log-odds of every prompt under a change, as `reads` reads it."""
    what = log_odds_what(bench, rows, change, reads)

    def compute() -> pl.Series:
        with bench.shelf(what, rows.height) as shelf:
            values = refusal_log_odds(
                bench.subject,
                tokens_of(bench, rows),
                reads,
                edits=change.edits,
                carried=change.values(shelf, rows.height),
                batch_size=bench.size("log odds"),
                shelf=shelf,
                advance=advance,
            )
        return pl.Series(values.numpy())

    return _shared(bench, ("log odds", digest(what), change.edits), compute, rows.height, advance)


def reads_what(reads: Openings | Direction) -> Any:
    """A read-out in JSON."""
    if isinstance(reads, Direction):
        return {"direction": digest(list(reads.vector))}
    return {"refusal": _plain(reads.refusal), "compliant": _plain(reads.compliant)}


def states(bench: Workbench, rows: pl.DataFrame) -> Any:
    """The final state of every prompt at its last token, [prompt, hidden]."""
    with bench.shelf(bench.what("final states", prompts=digest(tokens_of(bench, rows))), rows.height) as shelf:
        return final_states(bench.subject, tokens_of(bench, rows), batch_size=bench.size("final states"), shelf=shelf)


def _shared(bench: Workbench, key: tuple[Any, ...], compute: Callable[[], T], prompts: int, advance: Advance) -> T:
    """One measurement for all who ask for it; whoever comes later has its prompts done at once."""
    if key in bench.memory:
        advance(prompts)
    return bench.remember(key, compute)
