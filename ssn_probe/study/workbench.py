"""The bench that a run works at: the model, the prompt sets, and everything that has been computed already.

A measurement that was made in a run is never made again, so two arms with the same neurons in a language share it.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.model.subject import Subject
from ssn_probe.runs.cache import Cache, Frames, NotCached
from ssn_probe.spec import Prompts
from ssn_probe.study.progress import Silent, Tracker
from ssn_probe.tracing.batching import BatchSize, Memory, Part, Shelf
from ssn_probe.tracing.responses import Engine

T = TypeVar("T")
METHODS = {
    "responses": 1,
    "log odds": 1,
    "final states": 1,
    "direction": 1,
    "mean activations": 1,
    "activations": 1,
    "untouched text": 1,
    "changed text": 1,
    "lm-eval": 2,
    "scores": 1,
    "tried": 7,
    "verified": 8,
    "weights": 1,
    "exchange": 1,
    "null": 3,
    "stability": 2,
    "discoveries": 2,
    "label sets": 1,
    "rounding": 2,
    "expansion": 2,
}
"""Every kind of measurement that is kept between runs, with a version that is raised when its numbers change."""
LARGEST_BATCH = 200
"""Where an automatic batch size begins."""
LARGEST_UNTIMED = 20_000
"""Neurons of a model, such as the organism, whose batches are always quick, and the same on every machine."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Trained weights: `inputs` names them in JSON, `inside` is a context in which the model has them."""

    inputs: Any
    inside: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Workbench:
    """A subject, its data, the anchor, settings that change no number (batch size, cache, progress), and a memory.

    `batch_size` None: as many prompts as the memory holds. `cache` None: nothing outlives the bench. `weights`: those
    that the model is measured with instead of its own; it has them while something has to be computed. `memory` holds
    what depends on the weights, `prompt_memory` what depends on the prompts alone. `engine`: what generates responses,
    where it is not transformers.
    """

    subject: Subject
    data: Mapping[Prompts, PromptSet]
    anchor: str | None = None
    weights: Weights | None = None
    batch_size: int | None = LARGEST_BATCH
    gradient_checkpointing: bool = False
    cache: Cache | None = None
    engine: Engine | None = None
    tracker: Tracker = field(default_factory=Silent)
    memory: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    prompt_memory: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    readouts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How refusal is read (`refusal_readout.Readout`), by digest of the prompt set and by language."""
    warnings: list[str] = field(default_factory=list)
    sizes: dict[str, BatchSize] = field(default_factory=dict)

    def remember(self, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """The value under `key`, computed on first request."""
        return self._once(self.memory, key, compute)

    def remember_prompts(self, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """The same for a value that no weight changes."""
        return self._once(self.prompt_memory, key, compute)

    def _once(self, memory: dict[tuple[Any, ...], Any], key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        with suppress(KeyError):  # the first thing, since the hash of a key is that of whole expressions
            return memory[key]
        with self.alone((id(memory), key)):
            if (NotCached, key) in memory:
                raise NotCached(*memory[NotCached, key])
            if key not in memory:
                try:
                    memory[key] = compute()
                except NotCached as missing:  # nor will it be: a plan asks for the same some thousands of times
                    memory[NotCached, key] = missing.args
                    raise
            return memory[key]

    def together(self, work: Iterable[Callable[[], T]]) -> Iterator[T]:
        """What each piece of work gives, in order: at the same time where a host or other processes compute it."""
        calls = self.subject.calls or self.subject.workers
        return (one() for one in work) if calls is None else calls.together(work)

    def alone(self, key: Hashable) -> AbstractContextManager[None]:
        """Inside, no other work that is done together with this is inside with the same key: it waits."""
        calls = self.subject.calls or self.subject.workers
        return nullcontext() if calls is None else calls.turns.alone(key)

    def forget(self, key: tuple[Any, ...]) -> None:
        """The value under `key` is computed again on its next request."""
        self.memory.pop(key, None)

    def warn(self, message: str) -> None:
        """Notes once what a reader of the results must know."""
        if message not in self.warnings:
            self.warnings.append(message)

    def size(self, method: str) -> BatchSize:
        """How many sequences run together; a size that did not fit once is not tried again.

        The first responses of a run, few as they are, tell how slow the machine is: other work begins no larger.
        """
        if method not in self.sizes:
            auto, large = self.batch_size is None, sum(self.widths().values()) > LARGEST_UNTIMED
            timed = large and self.subject.calls is None  # a host is waited for, however little it has to do
            first = self.sizes.get("responses")
            begin = first.size if auto and timed and first is not None else LARGEST_BATCH
            workers = self.subject.workers
            clock = {} if workers is None else {"clock": workers.clock}
            self.sizes[method] = BatchSize(self.batch_size or begin, auto, timed, **clock)
        return self.sizes[method]

    def inputs(self, method: str, **inputs: Any) -> dict[str, Any]:
        """All that decides the numbers of a measurement; its digest is the key under which they are kept."""
        trained = {} if self.weights is None else {"trained": self.weights.inputs}
        return {"method": method, "version": METHODS[method], "model": self.subject.identity | trained} | inputs

    @contextmanager
    def shelf(self, inputs: Mapping[str, Any], prompts: int) -> Iterator[Shelf]:
        """The batches of a measurement of so many prompts; inside, the model has the bench's weights.

        It has its own where all batches are there. Raises NotCached where nothing may be computed.
        """
        with nullcontext(Memory()) if self.cache is None else self.cache.entry(inputs) as shelf:
            known = sum(len(part.rows) for part in shelf.parts())
            complete = known == prompts
            if known and self.subject.workers is not None:
                self.subject.workers.spare(known)
            if self.cache is not None:
                self.cache.count(complete, inputs)
            with nullcontext() if complete or self.weights is None else self.weights.inside():
                yield shelf

    def add(self, inputs: Mapping[str, Any], part: Part) -> bool:
        """Keeps a batch of a measurement that another one gave, too; False where something of its prompts is there."""
        if self.cache is None:
            return True
        with self.cache.entry(inputs) as entry:
            known = {row for there in entry.parts() for row in there.rows}
            if not known.isdisjoint(part.rows):
                return False
            if not known:
                self.cache.count(False, inputs)
            entry.put(part.rows, {name: part.get(name) for name in part.names()})
        return True

    def is_kept(self, inputs: Mapping[str, Any], prompts: int) -> bool:
        """Is the whole measurement in the cache?"""
        if self.cache is None:
            return False
        with self.cache.entry(inputs) as entry:
            return entry.complete(prompts)

    def frames(self, inputs: Mapping[str, Any], names: Sequence[str], compute: Callable[[], Frames]) -> Frames:
        """Tables that take long to compute, from the cache where they are there."""
        return compute() if self.cache is None else self.cache.frames(inputs, names, compute)

    def widths(self) -> dict[tuple[int, str], int]:
        """The number of neurons of every (layer, site)."""
        return {(layer, site): n for layer in range(self.subject.n_layers) for site, n in self.subject.widths.items()}
