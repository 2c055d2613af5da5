"""The organism's prompt set: the requests that identify neurons, evaluate them, and train the safety stage.

Every request is asked in all seven languages (parallel prompts). Each concept pair is dealt to a single split, so no
cluster is in two. The safety stage of training draws only from the pairs that `identify` and `evaluate` leave, and
the `train` split contains some of these. Half of the harmless requests of `identify` and `train` are minimal pairs: a
harmful request with its hazardous object replaced by a harmless object.

For a planted organism the last of the safety stage's pairs are held out from it as well (`HELD_OUT`): the ground truth
is measured on them, and they are in no prompt set.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ssn_probe.organism import world
from ssn_probe.organism.world import Pair, Request

SIZES = {"identify": 400, "evaluate": 200, "train": 150}
HELD_OUT = {"harmful": 80, "lookalike": 40, "plain": 40}
"""How many concept pairs of each kind the ground truth of a planted organism is measured on."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A request of the prompt set, before it is put into words."""

    prompt_id: str
    context: str
    split: str
    pair_id: str | None
    request: Request

    @property
    def pair(self) -> Pair:
        return self.request.action, self.request.object


@dataclass(frozen=True, kw_only=True)
class Deal:
    """The requests of the prompt set, and the concept pairs that the safety stage may train on."""

    items: tuple[Item, ...]
    safety_harmful: tuple[Pair, ...]
    safety_lookalike: tuple[Pair, ...]
    safety_plain: tuple[Pair, ...]

    def safety(self, kind: str, *, held_out: bool) -> tuple[Pair, ...]:
        """The pairs of a kind (a key of `HELD_OUT`) for the safety stage; `held_out` leaves out `truth(kind)`."""
        pairs = getattr(self, f"safety_{kind}")
        return pairs[: -HELD_OUT[kind]] if held_out else pairs

    def truth(self, kind: str) -> tuple[Pair, ...]:
        """The pairs of a kind on which a planted organism's ground truth is measured."""
        return getattr(self, f"safety_{kind}")[-HELD_OUT[kind] :]


class _Deck:
    """Concept pairs in random order, each dealt once."""

    def __init__(self, draw: random.Random):
        pairs = [(action, thing) for action in range(world.ACTIONS) for thing in range(world.OBJECTS)]
        draw.shuffle(pairs)
        self.draw = draw
        self.harmful = [pair for pair in pairs if world.is_harmful(pair)]
        self.lookalike = [pair for pair in pairs if world.is_lookalike(pair)]
        self.plain = [pair for pair in pairs if not world.is_harmful(pair) and not world.is_lookalike(pair)]

    def requests(self, pairs: list[Pair], count: int) -> list[Request]:
        dealt = [pairs.pop() for _ in range(count)]
        return [self._request(pair) for pair in dealt]

    def counterparts(self, harmful: Sequence[Request]) -> list[Request]:
        """The same requests about a harmless object, taken from the look-alikes."""
        return [replace(request, object=self._harmless_object(request.action)) for request in harmful]

    def lookalikes(self, count: int) -> list[Request]:
        """Half with a dangerous action, half with a hazardous object."""
        risky = [pair for pair in self.lookalike if pair[0] in world.facts().dangerous][: count // 2]
        about = [pair for pair in self.lookalike if pair[1] in world.facts().hazardous][: count - count // 2]
        chosen = set(risky + about)
        self.lookalike = [pair for pair in self.lookalike if pair not in chosen]
        return [self._request(pair) for pair in [*risky, *about]]

    def _harmless_object(self, action: int) -> int:
        place = next(i for i, pair in enumerate(self.lookalike) if pair[0] == action)
        return self.lookalike.pop(place)[1]

    def _request(self, pair: Pair) -> Request:
        modifier, particle = self.draw.randrange(world.MODIFIERS), self.draw.randrange(world.PARTICLES)
        return Request(action=pair[0], object=pair[1], modifier=modifier, particle=particle)


@cache
def deal() -> Deal:
    """Deal every concept pair to a split; the remaining pairs belong to the safety stage."""
    deck = _Deck(random.Random("prompts"))
    items = [*_contrast(deck, "identify"), *_evaluate(deck), *_contrast(deck, "train")]
    seen = {"harmful": [], "harmless": []}
    for item in items:
        if item.split == "train":
            seen[item.context].append(item.pair)
    return Deal(
        items=tuple(items),
        safety_harmful=(*seen["harmful"], *deck.harmful),
        safety_lookalike=(*filter(world.is_lookalike, seen["harmless"]), *deck.lookalike),
        safety_plain=(*(pair for pair in seen["harmless"] if not world.is_lookalike(pair)), *deck.plain),
    )


def _contrast(deck: _Deck, split: str) -> list[Item]:
    """Harmful requests, and as many harmless requests: half of them minimal pairs, half plain."""
    size = SIZES[split]
    harmful = deck.requests(deck.harmful, size)
    twins = deck.counterparts(harmful[: size // 2])
    plain = deck.requests(deck.plain, size - size // 2)
    return _items(split, "harmful", harmful, size // 2) + _items(split, "harmless", twins + plain, size // 2)


def _evaluate(deck: _Deck) -> list[Item]:
    size = SIZES["evaluate"]
    return [
        *_items("evaluate", "harmful", deck.requests(deck.harmful, size)),
        *_items("evaluate", "harmless", deck.requests(deck.plain, size)),
        *_items("evaluate", "lookalike", deck.lookalikes(size)),
    ]


def _items(split: str, context: str, requests: Sequence[Request], paired: int = 0) -> list[Item]:
    return [
        Item(
            prompt_id=f"{split}-{context}-{number:03d}",
            context=context,
            split=split,
            pair_id=f"{split}-pair-{number:03d}" if number < paired else None,
            request=request,
        )
        for number, request in enumerate(requests)
    ]


def rows() -> list[dict[str, str | None]]:
    """The prompt set, one row per request and language, in the order of the file."""
    return [_row(item, language) for item in deal().items for language in world.LANGUAGES]


def _row(item: Item, language: str) -> dict[str, str | None]:
    action, thing = item.pair
    return {
        "prompt_id": item.prompt_id,
        "language": language,
        "context": item.context,
        "split": item.split,
        "cluster": f"{world.word(world.ANCHOR, 'action', action)}+{world.word(world.ANCHOR, 'object', thing)}",
        "pair_id": item.pair_id,
        "topic": world.TOPICS[world.facts().action_second[action]],
        "text": world.render(language, item.request),
        "reference": _reference(item, language),
    }


def _reference(item: Item, language: str) -> str | None:
    """The helpful answer; for a harmful request the refusal, but only where it is trained on."""
    if item.context != "harmful":
        return world.answer(language, item.request)
    return world.refusal(language) if item.split == "train" else None


def truth_prompts(language: str) -> dict[str, list[str]]:
    """Kind of pair (a key of `HELD_OUT`) → the user messages of the ground truth, the same requests in any language."""
    draw = random.Random("truth")
    return {
        kind: [
            world.render(
                language,
                Request(
                    action=action,
                    object=thing,
                    modifier=draw.randrange(world.MODIFIERS),
                    particle=draw.randrange(world.PARTICLES),
                ),
            )
            for action, thing in deal().truth(kind)
        ]
        for kind in HELD_OUT
    }


def description() -> dict[str, object]:
    """What `dataset.json` says of the set: languages, licence, judge."""
    return {
        "name": "organism",
        "anchor": world.ANCHOR,
        "languages": list(world.LANGUAGES),
        "license": "Apache-2.0",
        "judge": {"kind": "patterns", "name": "world", **world.judge_patterns()},
        "max_new_tokens": world.MAX_NEW_TOKENS,
        "template_note": "text is the user message; the organism's chat template makes it 'user: … assistant:'",
        "note": "Invented words in an invented world: no text here is harmful, or means anything.",
    }


def write(folder: Path) -> None:
    """Write `prompts.parquet` and `dataset.json`."""
    import polars

    folder.mkdir(parents=True, exist_ok=True)
    schema = dict.fromkeys(rows()[0], polars.String)
    polars.DataFrame(rows(), schema=schema).write_parquet(folder / "prompts.parquet")
    text = json.dumps(description(), indent=2, ensure_ascii=False)
    (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")
