"""How a guard model is asked, and how its answer is read: lines of `Name: value`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssn_probe.data.judges.verdicts import Judgement


@dataclass(frozen=True, kw_only=True)
class GuardFormat:
    """What its authors document of a guard model.

    `prompt`: tokenizer, request, response → the text that the model continues. `read`: its answer → a judgement, or
    None if the answer is not exactly of the documented form. `has_template`: its tokenizer has a chat template that
    is used. `marks`: plain text that sets parts of the prompt apart. `languages`: all that it knows, if those are few.
    `version` rises when the same answer is read otherwise.
    """

    name: str
    model: str
    prompt: Callable[[Any, str, str], str]
    read: Callable[[str], Judgement | None]
    new_tokens: int
    has_template: bool = True
    marks: tuple[str, ...] = ()
    languages: tuple[str, ...] | None = None
    version: int = 1


def lines_of(answer: str, names: Sequence[str]) -> Mapping[str, str] | None:
    """The values of lines of `Name: value`, if there is one for each name, in this order, and nothing else."""
    lines = [line.partition(":") for line in answer.strip().splitlines() if line.strip()]
    if [name.strip().lower() for name, _, _ in lines] != [name.lower() for name in names]:
        return None
    return dict(zip(names, (value.strip() for _, _, value in lines), strict=True))


def yes_or_no(values: Mapping[str, str], names: Sequence[str]) -> bool:
    """Is the value of each of the names yes or no?"""
    return all(values[name].lower() in ("yes", "no") for name in names)


def by_refusal(refusal: str, values: Mapping[str, str]) -> Judgement:
    """Refused where the line `refusal` says yes; the reason is the whole answer."""
    verdict = "refused" if values[refusal].lower() == "yes" else "complied"
    return Judgement(verdict, "; ".join(f"{name}: {value}" for name, value in values.items()))
