"""The families that can be studied and those that are refused, from the two tables that decide it."""

import re
from collections import defaultdict
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ssn_probe.engines.vllm_engine import PROVED
from ssn_probe.model.families import BUILT_IN, FAMILIES, Family
from ssn_probe.model.family_in_words import particulars
from ssn_probe.model.refused_families import refused
from ssn_probe.neurons import SITES
from ssn_probe.spec import EFFECTS, is_shipped
from ssn_probe.text import plain

WHATEVER_IS_STUDIED = (
    "Of all of them: sites q, k, v, o and ffn; every effect and intervention; training, deltas and merging; float32, "
    "bfloat16 and float16; one device, several, or a host (--remote). {vllm} are also generated from by --engine vllm."
)


def families_as_data() -> dict[str, Any]:
    """What `ssn-probe models --json` prints."""
    return {"studied": [_supported(family) for family in FAMILIES.values()], "refused": dict(refused())}


def _supported(family: Family) -> dict[str, Any]:
    return {
        "family": family.name,
        "models": list(family.examples),
        "particulars": list(particulars(family)),
        "comes_with_ssn_probe": family in BUILT_IN,
        "sites": list(SITES),
        "effects": [name for name, kind in EFFECTS.items() if is_shipped(kind)],
        "training": True,
        "dtypes": ["float32", "bfloat16", "float16", "float64"],
        "host": True,
        "vllm": family.name in PROVED,
    }


def show_families(terminal: Console, *, reasons: bool = False) -> None:
    """A row per family that is studied, and why others are not: in short, or family by family with `reasons`."""
    table = Table("family", "models of it, and what is particular", box=None, pad_edge=False)
    for family in FAMILIES.values():
        said = "; ".join([*([] if family in BUILT_IN else ["added by you"]), *particulars(family)])
        cell = Text("\n".join(plain(name) for name in family.examples))
        cell.append(("\n" if family.examples and said else "") + plain(said), style="dim")
        table.add_row(Text(plain(family.name), style="bold"), cell)
    terminal.print(table)
    vllm = ", ".join(name for name in FAMILIES if name in PROVED)
    terminal.print(Text("\n" + WHATEVER_IS_STUDIED.format(vllm=vllm)))
    terminal.print(Text(f"\n{len(refused())} families are refused by name:"))
    for name, why in refused().items() if reasons else in_short():
        terminal.print(Padding(Text(plain(f"{name}: {why}")), (0, 0, 0, 2)))
    more = "" if reasons else "The whole reason for each: ssn-probe models --refused. "
    terminal.print(Text(f"\n{more}A family that is in neither list may be added: docs/models.md."))


def in_short() -> list[tuple[str, str]]:
    """Reasons that several families share, in short, with these families; and those with a reason of their own."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in refused().items():
        groups[_shortened(reason)].append(name)
    shared = {reason: names for reason, names in groups.items() if len(names) > 1}
    alone = [name for names in groups.values() if len(names) == 1 for name in names]
    found = [(reason, ", ".join(names)) for reason, names in sorted(shared.items(), key=lambda one: -len(one[1]))]
    return [*found, ("each has a reason of its own", ", ".join(alone))]


def _shortened(reason: str) -> str:
    """The first statement of a reason."""
    return re.split(r"[;:]|, (?:so|which|whose|of|and|where|with|but)\b", re.sub(r" \([^)]*\)", "", reason))[0]
