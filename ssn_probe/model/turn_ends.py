"""How a response ends, and what the checkpoint asks of generation.

Three sources name the tokens that end a response: the generation config, the tokenizer, and the chat template by what
it writes after an answer. Checkpoints exist in which each of them lacks the token that the model was trained to end
its turns with; with it left out, the model's next turns would be judged as its answer. So all three are taken.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.limits import CONFIG, read_limited
from ssn_probe.model.templates import TwoTurns, foreign_errors, handover, two_turns
from ssn_probe.model.think_blocks import open_block
from ssn_probe.model.token_ids import check_ends, embedding_size, is_inside, token_text, usable_pad

FILE = "generation_config.json"
CONFIG_SOURCE, TOKENIZER_SOURCE, TEMPLATE_SOURCE = "generation config", "tokenizer", "chat template"
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Settings that have no effect unless `do_sample` is set."""
NEUTRAL: Mapping[str, Any] = {
    "use_cache": True,
    "top_k": 50,
    "temperature": 1,
    "top_p": 1,
    "typical_p": 1,
    "repetition_penalty": 1,
    "encoder_repetition_penalty": 1,
    "length_penalty": 1,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
}
"""Values that ask for nothing; elsewhere zero, false, empty and null ask for nothing."""
LARGEST = 2**31
"""No token id is as large."""
LONGEST = 200
"""Characters of a setting that are shown."""
NO_REQUEST = ("transformers_version", "max_length", "max_new_tokens", "eos_token_id", "bos_token_id", "pad_token_id")
"""Entries that are no request that greedy generation to a length that the data set would override."""


@dataclass(frozen=True, kw_only=True)
class End:
    """A token that ends a response, and who says so."""

    id: int
    text: str
    sources: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.text} ({self.id}; {', '.join(self.sources)})"


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How responses end, and what of the checkpoint's generation config was overridden, by name.

    `written`: what the template writes after an answer, None where it cannot show a conversation (`unshown` says why).
    `outside`: (id, source) of end tokens that the model has no logit for. `template_end`: the id of the token after an
    answer, None where there is no such token. `think`: what opens and what would close a think block in which a
    prompt ends, if it does.
    """

    ends: tuple[End, ...] = ()
    pad_id: int = 0
    written: str | None = None
    unshown: str = ""
    template_end: int | None = None
    outside: tuple[tuple[int, str], ...] = ()
    overridden: Mapping[str, Any] = field(default_factory=dict)
    think: tuple[str, str] | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """The end tokens, those of the generation config first."""
        return tuple(end.id for end in self.ends)

    def to_json(self) -> dict[str, Any]:
        """The manifest's `generation`."""
        ends = [{"id": end.id, "text": end.text, "sources": list(end.sources)} for end in self.ends]
        return {"ends": ends, "overridden": {name: _brief(value) for name, value in self.overridden.items()}}


def settle_generation(where: str, module: Any, tokenizer: Any) -> Turns:
    """Make generation greedy and nothing else; returns how responses end.

    Raises:
        ModelError: a generation config that cannot be read, or whose token ids are no whole numbers.
    """
    from transformers import GenerationConfig

    _check_file(where)
    asked, size = module.generation_config, embedding_size(module)
    try:
        shown, unshown = two_turns(tokenizer), ""
    except ModelError as error:
        shown, unshown = None, error.message
    after = None if shown is None else end_after_answer(tokenizer, shown)
    named = _named(asked.eos_token_id, tokenizer.eos_token_id, after)
    check_ends(list(named), size)
    # what the generation config names stays as it is, since it was always part of a model's identity
    taken = {one: who for one, who in named.items() if is_inside(one, size) or CONFIG_SOURCE in who}
    turns = Turns(
        ends=tuple(End(id=one, text=token_text(one, tokenizer), sources=who) for one, who in taken.items()),
        pad_id=usable_pad(tokenizer.pad_token_id, tuple(taken), size),
        written=None if shown is None else shown.end if shown.end.strip() else shown.between,
        unshown=unshown,
        template_end=after,
        outside=tuple((one, ", ".join(who)) for one, who in named.items() if not is_inside(one, size)),
        overridden=dict(requests(asked.to_diff_dict())),
        think=open_block(handover(tokenizer)),
    )
    module.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=list(turns.ids) or None,
        pad_token_id=turns.pad_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    return turns


def _named(config: Any, tokenizer: Any, template: Any) -> dict[int, tuple[str, ...]]:
    """Every end token with the sources that name it."""
    sources = ((CONFIG_SOURCE, config), (TOKENIZER_SOURCE, tokenizer), (TEMPLATE_SOURCE, template))
    named: dict[int, tuple[str, ...]] = {}
    for source, ids in sources:
        for one in _token_ids("eos_token_id", ids):
            named[one] = (*named.get(one, ()), source)
    return named


def end_after_answer(tokenizer: Any, shown: TwoTurns) -> int | None:
    """The token that the template writes right after an answer, blanks aside; None where that is no token of its own.

    After the last answer: in the middle of a conversation some templates end a message otherwise. Where nothing
    follows the last one, the token that begins the next turn ends this one, unless answers begin with it, too.
    """
    after_last = _leading_token(tokenizer, shown.end)
    if after_last is not None or shown.end.strip():
        return after_last
    found = _leading_token(tokenizer, shown.between)
    text = None if found is None else token_text(found, tokenizer)
    return None if text is None or found == tokenizer.bos_token_id or text in shown.handover else found


def _leading_token(tokenizer: Any, text: str) -> int | None:
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    begins = [content for content in added if content and text.lstrip().startswith(content)]
    return added[max(begins, key=len)] if begins else None


def up_to_end(row: Sequence[int], ends: Sequence[int]) -> tuple[list[int], bool]:
    """The tokens of a response in front of its end token, and whether it has one."""
    place = next((place for place, token in enumerate(row) if token in ends), None)
    return list(row[:place]), place is not None


def requests(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings that ask for anything but greedy generation, by name; those that transformers does not know, too."""
    sampled = bool(settings.get("do_sample"))
    for name, value in sorted(settings.items()):
        told = name in NO_REQUEST or name.startswith(("_", "output_", "return_"))
        if told or (name in SAMPLING and not sampled) or value is None:
            continue
        neutral = value == NEUTRAL[name] if name in NEUTRAL else not value
        if not neutral:
            yield name, value


def _brief(value: Any) -> Any:
    """A setting as JSON; a long one, such as a list of words that must not come, as the beginning of its text."""
    try:
        text = json.dumps(value, default=str, allow_nan=False)
    except ValueError:  # JSON has no NaN
        text = json.dumps(str(value))
    return json.loads(text) if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _check_file(where: str) -> None:
    """Raises ModelError for a generation config that transformers would leave out without a word."""
    file = Path(where) / FILE
    if not file.exists():
        return
    with foreign_errors(f"{file} cannot be read", "Copy it again, or correct it."):
        raw = json.loads(read_limited(file, CONFIG, ModelError).decode("utf-8"))
    if not isinstance(raw, dict):
        raise ModelError(f"{file} holds no JSON object.", "Copy it again, or remove it.")
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        _token_ids(name, raw.get(name))


def _token_ids(name: str, value: Any) -> tuple[int, ...]:
    ids = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if wrong := [one for one in ids if type(one) is not int or abs(one) >= LARGEST]:
        raise ModelError(
            f"{name} in {FILE} is {wrong[0]!r:.80}, which is no token id.",
            "It must be a whole number such as the tokenizer has, or a list of them.",
        )
    return tuple(dict.fromkeys(ids))
