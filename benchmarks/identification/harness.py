"""Runs every method on every organism; a row is a file, so that what was stopped goes on where it was."""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.identification import own
from benchmarks.identification.counting import counted, per_prompt
from benchmarks.identification.peers import METHODS
from benchmarks.identification.peers.given import Given, Ranking
from benchmarks.identification.rows import Organism, Row, behaviour, exchanged_row, row_of
from ssn_probe.errors import RecipeError
from ssn_probe.files import write_whole
from ssn_probe.spec.effect_registry import Effect, named_effect
from ssn_probe.spec.node import digest

Scores = Ranking | dict[str, Ranking]
Scored = tuple[Scores, float]
"""Scores, and their cost in forward passes per prompt."""
VERSION = 1
"""Raised when the numbers of every row change. Those of this package's effects follow the versions of these."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method as the harness runs it.

    `scored`: a function of `Given` and of a memory of effects that gives `Scored`. `effect`: the effect of this package
    that it ranks by; its version and parameters are in the key of the row. `exchanged`: what it ranks by when nobody
    knows which prompts are harmful, from the same memory.
    """

    scored: Callable[[Given, dict], Scored]
    effect: Effect | None = None
    exchanged: Callable[[dict], list[Ranking]] | None = None


def methods(*, slow: bool = False, others: Mapping[str, Callable[[Given], Any]] | None = None) -> dict[str, Method]:
    """Every method by its name.

    `others`: name → function of `Given` that returns scores, as `row_of` takes them.
    """
    found = {"random": _counted(_random), **{name: _counted(one.rank) for name, one in METHODS.items()}}
    for effect in (*own.EFFECTS, *(own.SLOW if slow else ())):
        for rule in own.ASKED:
            found[f"{effect}, {rule}"] = _own(effect, rule, average=True)
            if rule in ("h", "h − b"):
                found[f"{effect}, {rule}, own language"] = _own(effect, rule, average=False)
    return found | {name: _counted(function) for name, function in (others or {}).items()}


def _random(given: Given) -> Ranking:
    """Scores by lot: what a method that knows nothing gets."""
    draw, subject = torch.Generator().manual_seed(0), given.subject
    return {site: torch.rand(subject.n_layers, subject.widths[site], generator=draw) for site in given.sites}


def _counted(function: Callable[[Given], Any]) -> Method:
    def run(given: Given, _memory: dict) -> Scored:
        with counted(given) as passes:
            scores = function(given)
        return scores, per_prompt(passes, given)

    return Method(scored=run)


def _own(effect: str, rule: str, *, average: bool) -> Method:
    def run(given: Given, memory: dict) -> Scored:
        if effect not in memory:
            memory[effect] = own.effects_of(given, effect)
        return own.rankings(memory[effect].means(), rule, average=average), memory[effect].cost

    def exchanged(memory: dict) -> list[Ranking]:
        swaps = own.exchanges(memory[effect].count)
        return [own.rankings(memory[effect].means(one), rule, average=True) for one in swaps]  # type: ignore[misc]

    compared = average and effect == own.DEFAULT
    return Method(scored=run, effect=named_effect(effect), exchanged=exchanged if compared else None)


def function_at(text: str) -> Callable[[Given], Any]:
    """The function that `MODULE:NAME` names. Raises RecipeError where there is none."""
    module, _, name = text.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"There is no method {text!r}: {error}", "Give MODULE:FUNCTION, as in my_file:rank."
        ) from error


def rows(
    organism: Organism,
    wanted: Mapping[str, Method],
    folder: Path,
    settings: Mapping[str, Any],
    *,
    kept: bool = False,
) -> Iterator[dict[str, Any]]:
    """A row of every method on an organism, read from `folder` where it is there and was made with these settings.

    kept: leave out the rows that are not there.
    """
    memory: dict = {}
    for name, method in wanted.items():
        file = _file(folder, organism, name, method.effect, settings)
        if kept and not file.is_file():
            continue
        if not file.is_file():
            scores, cost = method.scored(organism.given, memory)
            row = row_of(scores, organism) | {"passes": cost}
            if method.exchanged is not None:
                row |= exchanged_row(method.exchanged(memory), organism)
            _keep(file, organism, name, row)
        yield json.loads(file.read_text("utf-8"))


def untouched(organism: Organism, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The row of silencing nothing: what the organism does as it is."""
    file = _file(folder, organism, None, None, settings)
    if not file.is_file():
        _keep(file, organism, "nothing silenced", behaviour(organism))
    return json.loads(file.read_text("utf-8"))


def _file(
    folder: Path, organism: Organism, method: str | None, effect: Effect | None, settings: Mapping[str, Any]
) -> Path:
    """Where a row is kept, by all that decides its numbers; one of this package by its effect's version as well."""
    key = {"version": VERSION, "organism": organism.subject.identity, "method": method, **settings}
    measured = {} if effect is None else {"effect": effect.key}
    return folder / organism.name / f"{digest(key | measured)[:16]}.json"


def _keep(file: Path, organism: Organism, name: str, row: Row) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"organism": organism.name, "method": name, **row}, ensure_ascii=False)
    write_whole(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
