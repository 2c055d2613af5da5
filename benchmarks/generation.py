"""Generation under suppression, as a multiple of plain `model.generate`."""

from collections.abc import Callable
from dataclasses import replace

from benchmarks import peers
from benchmarks.models import Case
from benchmarks.timing import Row, compare
from ssn_probe.tracing.edits import NO_EDITS, Edits
from ssn_probe.tracing.generate import generate as probe_generate

PLAIN = "generate, nothing suppressed"
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

    notes = {
        PLAIN: _agreement(case, lambda: probe(NO_EDITS), plain),
        SUPPRESSED: _agreement(case, lambda: probe(case.edits), by_hooks),
    }
    variants: dict[str, Callable[[], object]] = {
        PLAIN: lambda: probe(NO_EDITS),
        SUPPRESSED: lambda: probe(case.edits),
        "torch hooks, the same neurons suppressed": by_hooks,
    }
    group = f"{case.name}: {len(case.tokens)} prompts, {case.new_tokens} new tokens ÷ plain model.generate"
    rows = compare(group, plain, variants, repeats=repeats, targets=TARGETS.get(case.name, {}))
    return [replace(row, note=notes.get(row.name, "")) for row in rows]


def _agreement(case: Case, probe: Callable[[], list[str]], peer: Callable[[], list[str]]) -> str:
    """Responses must be the same. In half precision many words are equally likely, and the last bit decides."""
    mine, theirs, again = probe(), peer(), peer()
    same, stable = (
        sum(one == other for one, other in zip(sorted(mine), sorted(theirs), strict=True)) for mine in (mine, again)
    )
    if same < len(mine) and case.subject.identity["dtype"] == "float32":
        raise SystemExit("The peer's responses differ from the probe's: the ratio would compare different work.")
    return (
        ""
        if same == len(mine)
        else f"{same} of {len(mine)} responses are the peer's, whose second run repeats {stable}"
    )
