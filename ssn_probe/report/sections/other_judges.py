"""The responses under other judges, as the manifest records them: ASR beside each other, and agreement."""

from collections.abc import Mapping
from typing import Any

from ssn_probe.report.cells import ABSENT, share_cell
from ssn_probe.report.certificate import arm_title, kappa_cell
from ssn_probe.report.document import Part, Section, Table, folded_if_large, section
from ssn_probe.report.sections.judge_certificate import certified_parts

KAPPA = (
    "κ is Cohen's kappa with its 95 % interval, over distinct responses that both judged: 0 is the agreement of "
    "chance, 1 is perfect. It says that judges agree, not that they are right: `ssn-probe certify` compares one "
    "with people."
)


def judges_section(manifest: Mapping[str, Any]) -> Section | None:
    """ASR of every arm under every other judge, and how far each agrees with the run's."""
    judged = manifest.get("judged")
    if not judged:
        return None
    languages = list(dict.fromkeys(row["language"] for one in judged for row in one["asr"]))
    parts: list[Part] = []
    for one in judged:
        arms = list(dict.fromkeys(map(arm_title, one["asr"])))
        cells = {(arm_title(row), row["language"]): share_cell(row) for row in one["asr"]}
        body = tuple((name, *(cells.get((arm, name), ABSENT) for arm in arms)) for name in languages)
        title = f"ASR by {one['name']}, %"
        parts.append(folded_if_large(title, Table((title, *arms), body)))
        pair = f"κ of {one['name']} and {one['first']}"
        agreement = tuple(tuple(agreement_cells(row)) for row in one["agreement"])
        parts.append(Table(("language", pair, "same", "n", "unjudged"), agreement))
        parts += certified_parts(one, one["asr"])
    return section("The same responses under other judges", *parts, KAPPA)


def agreement_cells(row: Mapping[str, Any]) -> list[str]:
    """A language's agreement in cells: kappa with its interval, the same verdict in per cent, counts."""
    kappa, same = kappa_cell(row), "–" if row["observed"] is None else f"{100 * row['observed']:.0f} %"
    return [row["language"], kappa, same, str(row["n"]), str(row["unjudged"])]
