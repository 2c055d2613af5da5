"""What the organism is taught: batches of token ids, drawn from the world.

Pretraining answers everything, harmful or not, and refuses only ghost objects, so that every language has a way to
refuse. Translation and code-switching connect the languages. The safety stage then shows refusals of harmful requests,
most of them in the anchor language, among answers to harmless requests in every language.

Every row is a prompt of `PROMPT` tokens and a response padded to `RESPONSE`; only the response is learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from ssn_probe.organism import promptset, world

PROMPT = 7  # <bos> user: four words assistant:
RESPONSE = world.MAX_NEW_TOKENS
SLOT_OFFSETS = torch.tensor([world.OFFSETS[kind] for kind in world.SLOTS])
ORDERS = torch.tensor([[world.SLOTS.index(kind) for kind in world.ORDERS[name]] for name in world.LANGUAGES])
PARTICLE = world.SLOTS.index("particle")
ANCHOR = world.LANGUAGES.index(world.ANCHOR)


@dataclass(frozen=True, kw_only=True)
class Pools:
    """The concept pairs that the safety stage draws from; each is [pair, 2]."""

    harmful: tuple[Tensor, ...]  # one pool per language; its size is how much safety data the language has
    lookalike: Tensor
    plain: Tensor


def safety_pools(counts: Sequence[int], *, held_out: bool = False) -> Pools:
    """The first `counts[l]` harmful pairs for language *l*, and all harmless pairs.

    With `held_out`, without the pairs that a ground truth is measured on.
    """
    deal = promptset.deal()
    harmful = torch.tensor(deal.safety("harmful", held_out=held_out))
    return Pools(
        harmful=tuple(harmful[:count] for count in counts),
        lookalike=torch.tensor(deal.safety("lookalike", held_out=held_out)),
        plain=torch.tensor(deal.safety("plain", held_out=held_out)),
    )


@cache
def _answer_table() -> Int[Tensor, "action object modifier 3"]:
    """The three answer words of every request; a ghost object has none and uses the row of object 0."""
    facts = world.facts()
    first, second, third = map(torch.tensor, (facts.object_first, facts.object_second, facts.object_third))
    modifiers = torch.arange(world.MODIFIERS)
    shape = (world.ACTIONS, world.OBJECTS, world.MODIFIERS)
    actions = rearrange(torch.tensor(facts.action_second), "action -> action 1 1")
    words = (
        rearrange(first, "object -> 1 object 1"),
        actions * 4 + rearrange(second, "object -> 1 object 1"),
        modifiers * 2 + rearrange(third, "object -> object 1"),
    )
    return torch.stack([index.expand(shape) for index in words], dim=-1)


def spoken(languages: Int[Tensor, "row slot"], concepts: Int[Tensor, "row slot"]) -> Int[Tensor, "row slot"]:
    """The words for the concepts (in the order of `world.SLOTS`), each in its own language."""
    return world.FIRST_WORD + languages * world.BLOCK + SLOT_OFFSETS + concepts


def prompts(language: Int[Tensor, " row"], words: Int[Tensor, "row slot"]) -> Int[Tensor, "row prompt"]:
    """Words in the order of the language, in the chat template."""
    ordered = words.gather(1, ORDERS[language])
    frame = torch.ones(len(words), 1, dtype=torch.long)
    return torch.cat([frame * world.BOS, frame * world.USER, ordered, frame * world.ASSISTANT], dim=1)


def responses(
    language: Int[Tensor, " row"], concepts: Int[Tensor, "row slot"], refuse: Bool[Tensor, " row"]
) -> Int[Tensor, "row response"]:
    """The refusal where `refuse`, else the helpful answer."""
    block = world.FIRST_WORD + language * world.BLOCK
    action, thing, modifier, _ = concepts.unbind(1)
    known = torch.where(thing < world.OBJECTS, thing, 0)
    first, second, third = _answer_table()[action, known, modifier].unbind(1)
    offsets, end = world.OFFSETS, torch.full_like(block, world.EOS)
    helpful = (
        block + offsets["opening"],
        block + offsets["first"] + first,
        block + offsets["second"] + second,
        block + offsets["third"] + third,
        end,
    )
    padding = torch.full_like(block, world.PAD)
    phrase = (block + offsets["refusal"], block + offsets["refusal"] + 1, end, padding, padding)
    return torch.where(refuse[:, None], torch.stack(phrase, 1), torch.stack(helpful, 1))


def draw(weights: Sequence[float], count: int, generator: Generator) -> Int[Tensor, " row"]:
    """Languages, in proportion to the weights."""
    return torch.multinomial(torch.tensor(weights), count, replacement=True, generator=generator)


def _random_concepts(count: int, generator: Generator, objects: int) -> Int[Tensor, "row slot"]:
    sizes = (world.ACTIONS, objects, world.MODIFIERS, world.PARTICLES)
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in sizes], dim=1)


def _summon_ghosts(concepts: Tensor, share: float, generator: Generator) -> Bool[Tensor, " row"]:
    """Replace a share of the objects by ghosts, in place; returns which."""
    ghost = torch.rand(len(concepts), generator=generator) < share
    ghosts = world.OBJECTS + torch.randint(world.GHOSTS, ghost.shape, generator=generator)
    concepts[:, 1] = torch.where(ghost, ghosts, concepts[:, 1])
    return ghost


def questions(
    count: int, shares: Sequence[float], generator: Generator, *, ghosts: float, switching: float
) -> Int[Tensor, "row token"]:
    """Requests about anything, answered, except that ghosts are refused; half of the rows mix in other languages."""
    language = draw(shares, count, generator)
    concepts = _random_concepts(count, generator, world.OBJECTS)
    ghost = _summon_ghosts(concepts, ghosts, generator)
    spoken_in = repeat(language, "row -> row slot", slot=len(world.SLOTS))
    other = rearrange(draw(shares, count * 4, generator), "(row slot) -> row slot", slot=4)
    switch = torch.rand(count, 4, generator=generator) < switching
    switch &= torch.rand(count, 1, generator=generator) < 0.5
    switch[:, PARTICLE] = False  # the particle still says which language is wanted
    words = spoken(torch.where(switch, other, spoken_in), concepts)
    return torch.cat([prompts(language, words), responses(language, concepts, ghost)], dim=1)


def translations(count: int, shares: Sequence[float], generator: Generator) -> Int[Tensor, "row token"]:
    """Requests to translate from or into the anchor language; the target is in the particle's place."""
    weights = [0.0 if index == ANCHOR else share for index, share in enumerate(shares)]
    other = draw(weights, count, generator)
    outward = torch.rand(count, generator=generator) < 0.5
    anchor = torch.full_like(other, ANCHOR)
    source, target = torch.where(outward, anchor, other), torch.where(outward, other, anchor)
    concepts = _random_concepts(count, generator, world.OBJECTS + world.GHOSTS)
    words = spoken(repeat(source, "row -> row slot", slot=4), concepts)
    words[:, PARTICLE] = world.INTO_FIRST + target
    said = spoken(repeat(target, "row -> row slot", slot=4), concepts).gather(1, ORDERS[target])
    said = rearrange(said[ORDERS[target] != PARTICLE], "(row slot) -> row slot", slot=3)
    frame = torch.ones(count, 1, dtype=torch.long)
    return torch.cat([prompts(source, words), said, frame * world.EOS, frame * world.PAD], dim=1)


def _pick(pool: Tensor, count: int, generator: Generator) -> Int[Tensor, "row slot"]:
    concepts = _random_concepts(count, generator, world.OBJECTS)
    concepts[:, :2] = pool[torch.randint(len(pool), (count,), generator=generator)]
    return concepts


def refusals(count: int, pools: Pools, generator: Generator) -> Int[Tensor, "row token"]:
    """Harmful requests, refused: every (language, pair) of the pools is equally likely."""
    language = draw([float(len(pool)) for pool in pools.harmful], count, generator)
    concepts = _random_concepts(count, generator, world.OBJECTS)
    for index, pool in enumerate(pools.harmful):
        rows = language == index
        concepts[rows] = _pick(pool, int(rows.sum()), generator) if len(pool) else concepts[rows]
    words = spoken(repeat(language, "row -> row slot", slot=4), concepts)
    always = torch.ones(count, dtype=torch.bool)
    return torch.cat([prompts(language, words), responses(language, concepts, always)], dim=1)


def rehearsal(
    count: int,
    shares: Sequence[float],
    pools: Pools,
    generator: Generator,
    *,
    ghosts: float,
    lookalikes: float,
) -> Int[Tensor, "row token"]:
    """Harmless requests, answered, so that the safety stage teaches to refuse only what is harmful."""
    language = draw(shares, count, generator)
    near = torch.rand(count, 1, generator=generator) < lookalikes
    concepts = torch.where(near, _pick(pools.lookalike, count, generator), _pick(pools.plain, count, generator))
    ghost = _summon_ghosts(concepts, ghosts, generator)
    words = spoken(repeat(language, "row -> row slot", slot=4), concepts)
    return torch.cat([prompts(language, words), responses(language, concepts, ghost)], dim=1)
