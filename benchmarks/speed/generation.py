"""Generation under suppression, as a multiple of plain `model.generate`."""

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.models import Case
from benchmarks.speed import peers, plain
from benchmarks.speed.lines import OURS, Line
from ssn_probe.tracing.edits import NO_EDITS, Edits
from ssn_probe.tracing.generate import generate

Run = Callable[[], list[str]]


def lines(case: Case, *, batch_size: int) -> list[Line]:
    """The probe's generation with and without suppression, and peers that suppress the same neurons."""
    inputs = plain.batches(case, batch_size)
    reference = partial(plain.responses, case, inputs)

    def probe(edits: Edits) -> list[str]:
        made = generate(case.subject, case.tokens, edits=edits, max_new_tokens=case.new_tokens, batch_size=batch_size)
        return [one.text for one in made]

    silenced: dict[str, Run] = {OURS: partial(probe, case.edits)}
    missing = {}
    for peer, works in peers.works_of(case, inputs).items():
        if isinstance(works, str):
            missing[peer] = works
        else:
            silenced[peer] = works["responses"]
    untouched = partial(probe, NO_EDITS)
    return [
        Line(
            name=f"generation, {case.new_tokens} new tokens",
            beside="generate",
            reference=reference,
            tools={OURS: untouched},
            check=lambda: _differs(case, {OURS: untouched, "model.generate": reference}),
        ),
        Line(
            name=f"generation, {case.new_tokens} new tokens, 0.5 % silenced",
            beside="generate",
            reference=reference,
            tools=silenced,
            goal=None if case.name == "organism" else 1.03,
            check=lambda: _differs(case, silenced),
            missing=missing,
        ),
    ]


def _differs(case: Case, tools: Mapping[str, Run]) -> str:
    """Responses must be the same. In half precision many words are equally likely, and the last bit decides."""
    texts = {tool: sorted(run()) for tool, run in tools.items()}
    mine = texts.pop(OURS)
    for tool, theirs in texts.items():
        same = sum(one == other for one, other in zip(mine, theirs, strict=True))
        if same < len(mine) and case.subject.identity["dtype"] == "float32":
            raise SystemExit(f"{tool} responds otherwise than the probe: the ratio would compare different work.")
        if same < len(mine):
            return f"{same} of {len(mine)} responses are those of {tool}"
    return ""
