"""What the cache costs, and what it saves: one measurement kept, and found again, as a multiple of making it."""

import itertools
import tempfile
from pathlib import Path

from benchmarks.models import Case
from benchmarks.timing import Row, compare
from ssn_probe.runs.cache import Cache
from ssn_probe.tracing.batching import Memory, Shelf
from ssn_probe.tracing.effects import refusal_log_odds, score_refusal

KEPT = "computed and kept"
TARGETS = {"100m": {f"refusal_log_odds, {KEPT}": 1.05, f"score_refusal, {KEPT}": 1.05}}


def caching(case: Case, *, batch_size: int, repeats: int) -> list[Row]:
    """The smallest measurement, log-odds of one arm, and the largest, per-prompt scores; checks of digests included."""
    targets, rows = TARGETS.get(case.name, {}), []
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in (("refusal_log_odds", _log_odds), ("score_refusal", _scores)):

            def run(shelf: Shelf, measure=measure) -> object:
                return measure(case, shelf, batch_size)

            numbers = itertools.count()

            def kept(what: str, root: Path = Path(folder) / name, run=run) -> object:
                with Cache(root=root).entry({"what": what}) as entry:
                    return run(entry)

            kept("the same")
            variants = {
                f"{name}, {KEPT}": lambda kept=kept, numbers=numbers: kept(str(next(numbers))),
                f"{name}, found": lambda kept=kept: kept("the same"),
            }
            group = f"{case.name}: {len(case.tokens)} prompts ÷ {name} that is not kept"
            rows += compare(group, lambda run=run: run(Memory()), variants, repeats=repeats, targets=targets)
    return rows


def _log_odds(case: Case, shelf: Shelf, batch_size: int) -> object:
    return refusal_log_odds(
        case.subject, case.tokens, case.single, edits=case.edits, batch_size=batch_size, shelf=shelf
    )


def _scores(case: Case, shelf: Shelf, batch_size: int) -> object:
    return score_refusal(case.subject, case.tokens, case.single, batch_size=batch_size, shelf=shelf)
