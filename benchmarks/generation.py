"""Generation under suppression, as a multiple of plain `model.generate`."""

from collections.abc import Callable

from benchmarks import peers
from benchmarks.models import Case
from benchmarks.timing import Row, compare
from ssn_probe.tracing.edits import NO_EDITS, Edits
from ssn_probe.tracing.generate import generate as probe_generate

SUPPRESSED = "generate, 0.5 % suppressed in every layer and site"
TARGETS = {"100m": {SUPPRESSED: 1.10}}


def generate(case: Case, *, batch_size: int, repeats: int) -> list[Row]:
    """The probe's generation with and without suppression, and torch hooks that suppress the same neurons."""
    inputs = peers.batches(case, batch_size)

    def probe(edits: Edits) -> list[str]:
        made = probe_generate(
            case.subject, case.tokens, edits=edits, max_new_tokens=case.new_tokens, batch_size=batch_size
        )
        return [one.text for one in made]

    def plain() -> list[str]:
        return peers.responses(case, inputs)

    def by_hooks() -> list[str]:
        with peers.hooked(case):
            return peers.responses(case, inputs)

    _check_agreement(lambda: probe(NO_EDITS), plain)
    _check_agreement(lambda: probe(case.edits), by_hooks)
    variants: dict[str, Callable[[], object]] = {
        "generate, nothing suppressed": lambda: probe(NO_EDITS),
        SUPPRESSED: lambda: probe(case.edits),
        "torch hooks, the same neurons suppressed": by_hooks,
    }
    group = f"{case.name}: {len(case.tokens)} prompts, {case.new_tokens} new tokens ÷ plain model.generate"
    return compare(group, plain, variants, repeats=repeats, targets=TARGETS.get(case.name, {}))


def _check_agreement(probe: Callable[[], list[str]], peer: Callable[[], list[str]]) -> None:
    if sorted(probe()) != sorted(peer()):
        raise SystemExit("The peer's responses differ from the probe's: the ratio would compare different work.")
