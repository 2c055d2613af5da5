"""How much memory the work of a study takes on its device, from the model's shape alone: no weights, no allocation.

Every kind of work is a succession of stages, such as the attention of a layer, its MLP, or the logits; their
intermediates are gone when the next begins. So a peak is what lasts plus the largest stage; with gradients, what
autograd saves of all layers comes first. What is alive in a stage was read off transformers 5.23.
`tests/model/test_memory.py` compares with what torch allocates on a CPU: the estimate is at least the measured peak,
and at most 1.3 times as much, in every family. `benchmarks.on_gpu` compares on a GPU.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ssn_probe.model.families import Family
from ssn_probe.model.text_config import text_config
from ssn_probe.neurons import SITES

Work = Literal["generate", "log_odds", "text", "refusal", "local", "final", "final_ablation"]

CONTEXT = 10**9
"""Bytes of a GPU that hold no tensors: context, kernels, workspaces of matrix products. An allowance, not measured."""
FRAGMENTATION = 0.05
"""Share by which torch reserves more than it hands out: an allowance. With 8B parameters on an H100 it was 1 to 4 %."""
UNCOUNTED = 0.05
"""Share of what a row takes for small tensors that are not counted singly: positions, statistics of norms."""
TEXT_BLOCKS, TEXT_BLOCK = 6, 2**22
"""How many blocks of logits of `tracing.bodies.next_tokens` are alive at once, and the elements of each."""
ALONE = {"relu2": (3, 1), "xielu": (5.25, 3.25)}
"""Activations that are no gate's, by their name in config.json → how many tensors of the MLP's width are alive at once
while one is computed, its argument included, and how many are saved for the backward pass; of others 2 and 1."""
IN_SINGLE = {"halves": 12, "pairs": 16, "pairs, angles in halves": 16}
"""What rotation in single precision takes a channel, in bytes, where the model is in half precision."""
BLOCKS, BLOCK, WIDE = 2, 2**19, 2**25
"""How many blocks of `tracing.bodies.attention_form` are alive at once (with a soft-cap one more, where a norm is over
all heads three), and the elements of each, on a GPU `WIDE`."""
SHIFTS, TOGETHER = 3, 4
"""How many tensors of shifted scores `tracing.bodies.softmax_term` has at once, without a soft-cap, and of how many
channels of a head."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a model that decide. `windows`: one per layer, None for all keys; sizes are in elements.

    `alive` and `saved` count tensors of the MLP's width: those at once in its pass, and those that autograd keeps.
    `halves`: gate and up are one tensor, which lasts as long as the MLP. `joined`: so do queries, keys and values.
    `partly`: not all channels of a head are rotated. `single`: bytes a channel where that is in single
    precision. `normed`: bytes that a norm keeps of a number for the backward pass. `together`: the norm
    on queries and keys is over all heads; `centred`: it takes away the mean.

    `stored`, `exact` and `lifted` are bytes: of an element as it is stored, where the project computes (in at least
    single precision), and of its copy in single precision, 0 where it is that already.
    """

    weights: int
    hidden: int
    inner: int
    query: int
    key: int
    head: int
    vocabulary: int
    norms: int
    stored: int
    eager: bool
    head_norms: bool
    score_cap: bool
    logit_cap: bool
    windows: tuple[int | None, ...]
    alive: float = 3
    saved: float = 3
    halves: bool = False
    joined: bool = False
    partly: bool = False
    single: int = 0
    normed: int = 4
    together: bool = False
    centred: bool = False

    @property
    def layers(self) -> int:
        return len(self.windows)

    @property
    def heads(self) -> int:
        return self.query // self.head

    @property
    def exact(self) -> int:
        return max(4, self.stored)

    @property
    def lifted(self) -> int:
        return 4 if self.stored < 4 else 0

    @property
    def unturned(self) -> int:
        """Channels of the queries before their rotation, where they last as long as the attention."""
        return self.query * self.joined

    @property
    def logit(self) -> int:
        """Bytes per logit in the model's own dtype; a soft-cap makes two more of them."""
        return self.stored * (3 if self.logit_cap else 1)

    @property
    def upcast(self) -> int:
        """Bytes per query and key of eager attention's softmax, which is in single precision."""
        return max(2 * self.stored, self.stored + 4 + self.lifted)

    def width(self, sites: Sequence[str]) -> int:
        """Neurons of a layer."""
        sizes = {"q": self.query, "k": self.key, "v": self.key, "o": self.query, "ffn": self.inner}
        return sum(sizes[site] for site in sites)


def shape_of(module: Any, family: Family, dtype_bytes: int | None = None) -> Shape:
    """The shape of a model, which may be on the meta device; its own dtype unless another size is given."""
    first, config = module.get_submodule(family.layers)[0], text_config(module.config)
    widths, depth = family.widths(module), family.depth(module)
    stored = dtype_bytes or next(module.parameters()).element_size()
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * depth
    gated, halves = len(family.weights["ffn"]) == 3, len(family.ffn_inputs) == 1
    alive, saved = (3 + halves, 3) if gated else ALONE.get(config.hidden_act, (2, 1))
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())
    return Shape(
        weights=sum(parameter.numel() for parameter in module.parameters()) * stored + buffers,
        hidden=module.get_submodule(family.embedding).embedding_dim,
        inner=widths["ffn"],
        query=widths["q"],
        key=widths["k"],
        head=first.get_submodule(family.attention).head_dim,
        vocabulary=module.get_submodule(family.head).out_features,
        norms=sum("Norm" in type(child).__name__ for child in first.children()),
        stored=stored,
        eager=family.implementation == "eager",
        head_norms=family.head_norms is not None,
        score_cap=bool(family.score_cap and getattr(config, family.score_cap, None)),
        logit_cap=bool(getattr(config, "final_logit_softcapping", None)),
        windows=tuple(window if kind == "sliding_attention" else None for kind in types),
        alive=alive,
        saved=saved,
        halves=gated and halves,
        partly=_rotation(config).get("partial_rotary_factor", 1) != 1,
        single=IN_SINGLE[family.rotation] if family.rotates_in_single and stored < 4 else 0,
        normed=_normed(next(child for child in first.children() if "Norm" in type(child).__name__), stored),
        together=family.norm_over == "all heads",
        centred=family.norm_centred,
        joined=family.modules["q"][0] in family.fused,
    )


def _rotation(config: Any) -> Mapping[str, Any]:
    """The parameters of the rotation; of several kinds of layers the first's."""
    rope = getattr(config, "rope_parameters", None) or {}
    return next((one for one in rope.values() if isinstance(one, Mapping)), rope)


def _normed(norm: Any, stored: int) -> int:
    """What a norm keeps of each of its numbers: itself in torch's own, else in single precision, twice if centred."""
    from torch.nn import LayerNorm

    if isinstance(norm, LayerNorm):
        return stored
    return 8 if "LayerNorm" in type(norm).__name__ else 4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Bytes of a stage that walks in blocks.

    `blocks`: what every prompt adds of things of which never more than so much is there: (bytes of a prompt, the most).
    """

    per_prompt: int = 0
    blocks: tuple[tuple[int, int], ...] = ()

    def taken(self, prompts: int) -> int:
        return prompts * self.per_prompt + sum(min(prompts * each, most) for each, most in self.blocks)

    def largest(self, free: int) -> int:
        """How many prompts take no more than so many bytes."""
        fitting = []
        for full in itertools.product((False, True), repeat=len(self.blocks)):
            rest = free - sum(most for (_, most), at_most in zip(self.blocks, full, strict=True) if at_most)
            each = sum(size for (size, _), at_most in zip(self.blocks, full, strict=True) if not at_most)
            fitting.append(rest // max(1, self.per_prompt + each))
        return max(fitting)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a kind of work takes: weights, what comes once, and what every prompt of a batch adds.

    `later` is a stage that follows, when some of that is gone. `floor` is what a step before the batches takes beside
    the weights, when nothing else is there. `sequences` is how many rows of a batch a prompt takes.
    """

    weights: int
    fixed: int
    per_prompt: int
    later: Stage = Stage()
    floor: int = 0
    sequences: int = 1

    def beside(self, prompts: int) -> int:
        """What so many prompts take at once, beside the weights."""
        return max(self.floor, self.fixed + prompts * self.per_prompt, self.later.taken(prompts))

    def needed(self, batch_size: int) -> int:
        """The memory that a GPU must have for a batch of so many sequences (brute force: neurons)."""
        tensors = self.weights + self.beside(max(1, batch_size // self.sequences))
        return round(tensors * (1 + FRAGMENTATION)) + CONTEXT

    def largest_batch(self, memory: int) -> int:
        """The largest batch size whose `needed` is within so many bytes; 0 where not even one prompt fits."""
        free = int((memory - CONTEXT) / (1 + FRAGMENTATION)) - self.weights
        prompts = min((free - self.fixed) // self.per_prompt, self.later.largest(free))
        return 0 if self.floor > free else max(0, prompts) * self.sequences


def footprint(
    shape: Shape,
    work: Work,
    *,
    tokens: int,
    new_tokens: int = 1,
    sequences: int = 1,
    kept: int = 1,
    sites: Sequence[str] = SITES,
    probes: int = 1,
    exact_qk: float = 1.0,
    block: int = WIDE,
) -> Footprint:
    """What a kind of work takes on a device; the scores themselves are kept in the memory of the host.

    Args:
        work: "generate", "log_odds" (r(x) by forward passes), "text" (KL along answers), "refusal", "local",
            "final", or "final_ablation" (brute force).
        tokens: of the longest prompt, the chat template included.
        new_tokens: generated at most.
        sequences, kept: of a `readout.Forcing`: teacher-forced sequences of a prompt, and last positions with logits.
        probes: random read-outs of "final".
        exact_qk: of "refusal": the share of q and k that is exact; only whether there is any decides.
        block: of the exact scores, a GPU's; `BLOCK` on the CPU.
    """
    fixed = floor = 0
    later = Stage()
    match work:
        case "generate":
            row = _generating(shape, tokens, new_tokens)
        case "log_odds":
            row = _forward(shape, tokens + kept - 1, kept)
        case "text":
            row = _forward(shape, tokens + new_tokens, 1) + 2 * new_tokens * shape.hidden * shape.stored
            fixed = TEXT_BLOCKS * TEXT_BLOCK * shape.exact
        case "refusal":
            row, later = _differentiating(shape, tokens + kept - 1, kept, sites, exact_qk > 0, block)
        case "local":
            measures, making = _measures(shape, sites)
            row, floor = _scoring(shape, tokens, sites), measures + making
            fixed = measures + _blocks(shape, tokens, sites, block)
        case "final":
            row, later = _sketching(shape, tokens, sites, probes, block)
        case "final_ablation":
            row = fixed = _ablating(shape, tokens)  # the untouched row runs beside
    counted = 1 + UNCOUNTED
    return Footprint(
        weights=shape.weights,
        fixed=round(fixed * counted),
        per_prompt=round(row * sequences * counted),
        later=Stage(
            per_prompt=round(later.per_prompt * sequences * counted),
            blocks=tuple((round(each * sequences * counted), round(most * counted)) for each, most in later.blocks),
        ),
        floor=floor,
        sequences=sequences,
    )


def _lasting(shape: Shape, tokens: int) -> int:
    """Ids, masks and positions, and the angles of the rotation: made once per pass."""
    kinds = len(set(shape.windows))
    masks = 1 + shape.stored * kinds if shape.eager else kinds + shape.stored
    return tokens * (48 + masks * tokens + 2 * kinds * shape.stored * shape.head)


def _layer(shape: Shape, tokens: int) -> int:
    """The largest stage of a layer: a norm, its argument in single precision; the attention; the MLP."""
    norm = tokens * shape.hidden * (3 * shape.stored + 8)
    return max(norm, _attention(shape, tokens), _mlp(shape, tokens))


def _attention(shape: Shape, tokens: int) -> int:
    stored, pairs = shape.stored, shape.heads * tokens**2
    around = tokens * stored * (3 * shape.hidden + 2 * shape.key + shape.unturned)
    # queries, then keys, before, during and after the rotation; what it puts together attention must rearrange
    turned = around + tokens * stored * max((4 + shape.partly) * shape.query, 2 * shape.query + 3 * shape.key)
    if shape.single:
        turned = around + tokens * (shape.query * (stored + shape.single) + shape.key * shape.lifted)
    if shape.eager:  # the softmax, and what it makes of the values, which is then rearranged
        numbers = tokens * stored * shape.query
        return max(turned, around + 3 * numbers + pairs * shape.upcast, around + 5 * numbers + pairs * stored)
    normed = (
        tokens * (stored * (3 * shape.hidden + shape.query) + (shape.normed + 4) * shape.query)
        if shape.head_norms
        else 0
    )
    return max(turned, normed)


def _pattern(shape: Shape, tokens: int) -> int:
    """What eager attention has returned beside its output."""
    return shape.stored * shape.heads * tokens**2 if shape.eager else 0


def _mlp(shape: Shape, tokens: int) -> int:
    """Gate, up and their product, or what an activation alone takes, beside the residual streams."""
    return round(tokens * shape.stored * (4 * shape.hidden + shape.alive * shape.inner)) + _pattern(shape, tokens)


def _forward(shape: Shape, tokens: int, kept: int) -> int:
    """A pass without gradients and without a cache, with logits of the last `kept` positions."""
    # the logits, those in exact precision, and what logsumexp makes of them
    read = shape.vocabulary * kept * (shape.logit + shape.lifted + shape.exact)
    return _lasting(shape, tokens) + max(_layer(shape, tokens), shape.stored * shape.hidden * tokens + read)


def _generating(shape: Shape, tokens: int, new_tokens: int) -> int:
    """Greedy generation: the prompt's pass while the cache fills up, or the last step beside the full cache.

    A step appends to a layer's cache by copying it, and eager attention repeats the keys and values of every head.
    """
    read = shape.vocabulary * (shape.logit + 8)  # the copy that the next token is chosen from, and its processing
    prompt = _lasting(shape, tokens) + max(_layer(shape, tokens), shape.stored * shape.hidden * tokens + read)
    total = tokens + new_tokens
    copied = shape.stored * total * (2 * shape.key + (2 * shape.query if shape.eager else 0))
    step = 48 * total + shape.stored * total + max(copied + _layer(shape, 1), read)
    return max(_cached(shape, tokens, 0) + prompt, _cached(shape, tokens, new_tokens) + step)


def _cached(shape: Shape, tokens: int, new_tokens: int) -> int:
    """Keys and values of all layers. A sliding window frees nothing before the step after the prompt."""
    total = tokens + new_tokens
    rows = sum(total if window is None else max(tokens, min(total, window)) for window in shape.windows)
    return 2 * shape.key * shape.stored * rows


def _differentiating(
    shape: Shape, tokens: int, kept: int, sites: Sequence[str], softmax: bool, block: int
) -> tuple[int, Stage]:
    """A pass that saves for the backward pass, and the backward pass: the peak is where they meet. See `_patterns`.

    Of two passes it is the second, beside which the activations of the first are kept.
    """
    exact, width = shape.exact, shape.width(sites)
    softmax = softmax and bool({"q", "k"} & set(sites))
    watched = sorted({*sites, *("qkv" if softmax else "")})
    saved, back, product = _backward(shape, tokens, watched)
    shares = 3 * exact * shape.layers * width
    odds = shape.vocabulary * kept * (shape.logit + shape.lifted + 4 * exact)
    row = saved + shares + max(back, odds, product)
    return (row + _seen(shape, tokens), _patterns(shape, tokens, 1, shares, block)) if softmax else (row, Stage())


def _backward(shape: Shape, tokens: int, sites: Sequence[str]) -> tuple[int, int, int]:
    """What a pass saves, activations of sites included; what goes back beside it; a gradient times its activation."""
    stored, exact = shape.stored, shape.exact
    ends = tokens * shape.hidden * (4 + 2 * stored)  # final norm, embedding
    lasting = _lasting(shape, tokens)
    saved = lasting + shape.layers * (_saved(shape, tokens) + stored * tokens * shape.width(sites)) + ends
    back = tokens * max(24 * shape.hidden, stored * 3 * (shape.inner + shape.hidden))  # a norm, the MLP
    if shape.eager:
        pairs = shape.upcast * shape.heads * tokens**2
        back = max(back, tokens * stored * (2 * shape.query + 2 * shape.hidden + shape.inner) + pairs)
    product = 2 * (exact + shape.lifted) * max(shape.inner, shape.query) + stored * (shape.inner + 3 * shape.hidden)
    return saved, back, tokens * product


def _sketching(shape: Shape, tokens: int, sites: Sequence[str], probes: int, block: int) -> tuple[int, Stage]:
    """The final effect: a pass back for every probe, of which the products of all layers are kept. See `_patterns`.

    For q and k the gradients at the input of o_proj are kept, too.
    """
    softmax = bool({"q", "k"} & set(sites))
    watched = sorted({*sites, *("qkvo" if softmax else "")})
    saved, back, product = _backward(shape, tokens, watched)
    kept = probes * shape.layers * shape.exact * shape.width(sites)
    row = saved + max(back, product) + kept
    if not softmax:
        return row, Stage()
    arrived = probes * shape.layers * shape.stored * tokens * shape.query
    return row + _seen(shape, tokens) + arrived, _patterns(shape, tokens, probes, kept, block)


def _seen(shape: Shape, tokens: int) -> int:
    """Beside queries, keys and values, what `local.seen_by_attention` keeps of all layers: what norms make of heads."""
    return shape.layers * shape.stored * tokens * (shape.query + shape.key) * shape.head_norms


def _patterns(shape: Shape, tokens: int, probes: int, kept: int, block: int) -> Stage:
    """When passes back are done patterns change, layer by layer.

    Of every layer there are queries, keys and values, and each probe's gradient at the input of o_proj; beside them
    `kept`, and what `softmax_term` makes of one layer.
    """
    exact, query, key, norms = shape.exact, shape.query, shape.key, shape.head_norms
    held = shape.layers * shape.stored * tokens * (query + 2 * key + probes * query) + _seen(shape, tokens) + kept
    copies = shape.lifted * (query + 2 * key + norms * (query + key))
    sides = (1 + norms + 3 * shape.centred) * (query + key)  # turned; gains of a norm; its mean, weight and product
    meeting = 4 * query + (norms + shape.centred) * query + key  # "own", "other", "quarter", and a copy
    numbers = copies + exact * (sides + meeting + 3 * probes * query)
    # a block: scores, pattern, what they are made by, and the pattern's gradients; and what single channels change
    rows = max(1, block // (probes * shape.heads * tokens))
    pairs = exact * shape.heads * tokens * (4 + shape.centred + probes)
    shifts, many = exact * (SHIFTS + shape.score_cap), TOGETHER * shape.heads * tokens
    group = (many if shape.together else TOGETHER * query // key * tokens) * min(rows, tokens)
    most = min(many * rows, group * max(1, block // group))
    return Stage(
        per_prompt=held + tokens * numbers,
        blocks=((tokens * pairs, rows * pairs), (tokens * shifts * many, shifts * most)),
    )


def _copied(shape: Shape) -> bool:
    """Are keys and values copied for every query head? A single key head is seen by all of them as it is."""
    return shape.eager or shape.query > shape.key > shape.head


def _saved(shape: Shape, tokens: int) -> int:
    """What autograd saves of a layer, parameters being frozen: a product saves both factors, a norm its argument.

    Gate, its activation and up; rotated queries, keys and values; the attention's output, or all scores where it is
    eager; the arguments and means of norms in single precision.
    """
    stored = shape.stored
    numbers = round(shape.saved * shape.inner) + shape.query + 2 * (shape.query if _copied(shape) else shape.key)
    norms = shape.normed * (shape.norms * shape.hidden + (shape.query + shape.key) * shape.head_norms)
    norms += 4 * (shape.norms + (shape.query + shape.key) // shape.head * shape.head_norms)  # their means
    if not shape.eager:
        return tokens * (stored * (numbers + shape.query + tokens) + norms + 4 * shape.heads)
    scores = 4 + (0 if stored == 4 else stored) + (stored if shape.score_cap else 0)
    return tokens * (stored * numbers + norms + scores * shape.heads * tokens)


def _scoring(shape: Shape, tokens: int, sites: Sequence[str]) -> int:
    """The local effect, averaged over tokens: a forward pass with the closed forms inside."""
    stored, exact, lifted = shape.stored, shape.exact, shape.lifted
    effects = exact * shape.layers * shape.width(sites)
    pattern, seen = _pattern(shape, tokens), 0
    stages = [_layer(shape, tokens), stored * shape.hidden * tokens + shape.vocabulary * shape.logit + effects]
    if {"q", "k"} & set(sites):
        seen = stored * (shape.query + 2 * shape.key + (shape.query + shape.key) * shape.head_norms)
        made = exact * (shape.query * (4 + shape.head_norms) + shape.key * (3 + shape.head_norms) + 2 * shape.head)
        copies = lifted * (shape.query + 2 * shape.key)
        stages.append(tokens * (3 * stored * shape.hidden + seen + made + copies))
    if {"v", "o"} & set(sites):
        around = stored * (3 * shape.hidden + 2 * shape.query + 2 * shape.key + shape.unturned) + seen
        amounts = shape.query * (3 * exact if "v" in sites else lifted + exact)
        stages.append(tokens * (around + amounts) + pattern)
        seen += stored * shape.query
    if "ffn" in sites:
        around = stored * (4 * shape.hidden + shape.inner * (3 if shape.halves else 1)) + seen
        stages.append(tokens * (around + shape.inner * (lifted + exact)) + pattern)
    stages.append(tokens * seen + _mlp(shape, tokens))
    return _lasting(shape, tokens) + effects + max(stages)


def _measures(shape: Shape, sites: Sequence[str]) -> tuple[int, int]:
    """Column norms and Gram matrices of all layers (`closed_form.measure`), and what it takes to make them."""
    ffn, attention = "ffn" in sites, bool(set(sites) - {"ffn"})
    repeats = shape.query // shape.key
    numbers = shape.inner * ffn + shape.query * attention + shape.query * repeats * ("v" in sites)
    if {"q", "k"} & set(sites):
        numbers += shape.query * (shape.hidden if shape.together else repeats * shape.head)
    # a layer's weights in exact precision, and their squares or rearranged copies
    down = shape.hidden * shape.inner * (shape.lifted + shape.exact) * ffn
    out = shape.hidden * shape.query * (shape.lifted + 2 * shape.exact) * attention
    return shape.exact * shape.layers * numbers, max(down, out)


def _blocks(shape: Shape, tokens: int, sites: Sequence[str], block: int) -> int:
    """The walk over [prompt, head, query, channel, key] in blocks (`attention_form.blocks`), at its largest."""
    row = shape.query * tokens
    queries = max(1, block // row)
    if shape.together:  # one prompt at a time
        return (BLOCKS + 3) * shape.exact * row * min(queries, tokens) if {"q", "k"} & set(sites) else 0
    size = row * (queries // tokens * tokens or queries)
    together = max(1, queries // tokens)  # prompts, whose keys are copied and multiplied by what they are turned by
    keys = together * tokens * (shape.key * (6 + 2 * shape.head_norms) + 2 * shape.head)
    return shape.exact * ((BLOCKS + bool(shape.score_cap)) * size + keys) if {"q", "k"} & set(sites) else 0


def _ablating(shape: Shape, tokens: int) -> int:
    """A row of the brute force: a forward pass, then the whole final state and its difference from the first row's."""
    moved = tokens * shape.hidden * (2 * shape.stored + shape.lifted + 2 * shape.exact)
    last = shape.stored * tokens * max(shape.inner, shape.query)  # the site that was changed last is still at hand
    return max(_forward(shape, tokens, 1), _lasting(shape, tokens) + moved) + last
