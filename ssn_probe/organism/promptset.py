"""The organism's prompt set: the requests that identify neurons, evaluate them, and train the safety stage.

Every request is asked in all seven languages (parallel prompts). Every harmful request has its minimal pair: the same
request but for one word, which half of the time is a harmless object in place of the hazardous one, and half of the
time a harmless action, of the same topic, in place of the dangerous one. These are the harmless requests of *identify*
and *train* and the look-alikes of *evaluate*. So topic and wording are the same in both classes, and no word alone
says what is harmful: of the requests with a dangerous action, or with a hazardous object, two thirds are harmful.

Each concept pair is dealt to a single split, once. Actions and objects are dealt as evenly as the numbers allow, but
there are only 32 and 128 of them, so all of them are in every split: prompts that share an action or an object are not
independent (columns `action` and `object`, which are crossed clusters). The safety stage of training draws only from
the concept pairs that *identify* and *evaluate* leave, and *train* contains some of these.

For a planted organism the last of the safety stage's pairs are held out from it as well (`HELD_OUT`): the ground truth
is measured on them, and they are in no prompt set.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ssn_probe.organism import world
from ssn_probe.organism.world import Pair, Request

SIZES = {"identify": 400, "evaluate": 200, "train": 150}
"""How many harmful requests, each with its minimal pair, are in a split."""
ACTION, OBJECT = 0, 1  # the parts of a concept pair
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
    """Deals every concept pair at most once, and every action, object and topic about equally often to a split."""

    def __init__(self, draw: random.Random):
        self.draw = draw
        self.dealt: set[Pair] = set()
        known = world.facts()
        self.bad_actions, self.good_actions = (self._by_topic(known.dangerous, bad) for bad in (True, False))
        self.bad_objects, self.good_objects = (
            [thing for thing in range(world.OBJECTS) if (thing in known.hazardous) == bad] for bad in (True, False)
        )

    def _by_topic(self, dangerous: frozenset[int], bad: bool) -> list[int]:
        """The dangerous or the harmless actions in random order, one topic after the other."""
        topics: list[list[int]] = [[] for _ in world.TOPICS]
        for action in self.draw.sample(range(world.ACTIONS), world.ACTIONS):
            if (action in dangerous) == bad:
                topics[world.topic(action)].append(action)
        return [action for group in zip(*topics, strict=True) for action in group]

    def pairs(self, count: int) -> tuple[list[Request], list[Request]]:
        """Harmful requests, and the minimal pair of each: with another object, or with another action of its topic.

        The two alternate over the uses of an action, and over the actions of a topic.
        """
        uses, harmful, twins = Counter[tuple[str, int]](), [], []
        for number in range(count):
            turn, place = divmod(number, len(self.bad_actions))
            action = self.bad_actions[place]
            changed = "object" if (turn + place + place // len(world.TOPICS)) % 2 == 0 else "action"
            _, thing = self._deal(uses, [(action, thing) for thing in self.bad_objects], OBJECT, changed, "harmful")
            if changed == "object":
                pair = self._deal(uses, [(action, other) for other in self.good_objects], OBJECT, "harmless object")
            else:
                others = [(other, thing) for other in self.good_actions if world.topic(other) == world.topic(action)]
                pair = self._deal(uses, others, ACTION, "harmless action")
            harmful.append(self._request((action, thing)))
            twins.append(replace(harmful[-1], action=pair[0], object=pair[1]))
        return harmful, twins

    def plain(self, count: int) -> list[Request]:
        """Requests with neither a dangerous action nor a hazardous object."""
        uses, actions = Counter[tuple[str, int]](), self.good_actions
        turns = (actions[number % len(actions)] for number in range(count))
        return [
            self._request(self._deal(uses, [(action, thing) for thing in self.good_objects], OBJECT, "plain"))
            for action in turns
        ]

    def rest(self) -> list[Pair]:
        """The concept pairs that were not dealt, in random order."""
        everything = [(action, thing) for action in range(world.ACTIONS) for thing in range(world.OBJECTS)]
        left = [pair for pair in everything if pair not in self.dealt]
        return self.draw.sample(left, len(left))

    def _deal(self, uses: Counter[tuple[str, int]], pairs: Sequence[Pair], part: int, *kinds: str) -> Pair:
        """Deal the pair whose action or object (`part`) was used least, as the first kind, then as the next."""
        free = [pair for pair in self.draw.sample(pairs, len(pairs)) if pair not in self.dealt]
        chosen = min(free, key=lambda pair: [uses[kind, pair[part]] for kind in kinds])
        uses.update((kind, chosen[part]) for kind in kinds)
        self.dealt.add(chosen)
        return chosen

    def _request(self, pair: Pair) -> Request:
        modifier, particle = self.draw.randrange(world.MODIFIERS), self.draw.randrange(world.PARTICLES)
        return Request(action=pair[0], object=pair[1], modifier=modifier, particle=particle)


@cache
def deal() -> Deal:
    """Deal concept pairs to the splits; the remaining pairs, and those of `train`, belong to the safety stage."""
    deck = _Deck(random.Random("prompts"))
    items = [item for split in SIZES for item in _split(deck, split)]
    safety = [*(item.pair for item in items if item.split == "train"), *deck.rest()]
    return Deal(
        items=tuple(items),
        safety_harmful=tuple(filter(world.is_harmful, safety)),
        safety_lookalike=tuple(filter(world.is_lookalike, safety)),
        safety_plain=tuple(pair for pair in safety if not world.is_harmful(pair) and not world.is_lookalike(pair)),
    )


def _split(deck: _Deck, split: str) -> list[Item]:
    """Harmful requests and their minimal pairs, which are the look-alikes of *evaluate*; it has plain requests too."""
    harmful, twins = deck.pairs(SIZES[split])
    if split != "evaluate":
        return _items(split, "harmful", harmful) + _items(split, "harmless", twins)
    plain = _items(split, "harmless", deck.plain(SIZES[split]), paired=False)
    return [*_items(split, "harmful", harmful), *plain, *_items(split, "lookalike", twins)]


def _items(split: str, context: str, requests: Sequence[Request], *, paired: bool = True) -> list[Item]:
    return [
        Item(
            prompt_id=f"{split}-{context}-{number:03d}",
            context=context,
            split=split,
            pair_id=f"{split}-pair-{number:03d}" if paired else None,
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
        "action": world.word(world.ANCHOR, "action", action),
        "object": world.word(world.ANCHOR, "object", thing),
        "pair_id": item.pair_id,
        "topic": world.TOPICS[world.topic(action)],
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
    """What `dataset.json` says of the set: languages, licence, clusters, judge."""
    return {
        "name": "organism",
        "anchor": world.ANCHOR,
        "languages": list(world.LANGUAGES),
        "license": "Apache-2.0",
        "cluster": ["action", "object"],
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
