"""How much memory the work of a study takes on its device, from the model's shape alone: no weights, no allocation.

Every kind of work is a succession of stages, such as the attention of a layer, its MLP, or the logits; their
intermediates are gone when the next begins. So a peak is what lasts plus the largest stage; with gradients, what
autograd saves of all layers comes first. What is alive in a stage was read off transformers 5.23.
`tests/model/test_memory.py` compares with what torch allocates on a CPU: the estimate is at least the measured peak,
and at most 1.3 times as much, in every family. `benchmarks.on_gpu` compares on a GPU.
"""

from collections.abc import Sequence
from typing import Literal

from ssn_probe.model.footprint import Footprint, Stage
from ssn_probe.model.memory_of_effects import ablating, differentiating, sketching
from ssn_probe.model.memory_of_local import WIDE, measured, scoring, screened, walked
from ssn_probe.model.memory_of_passes import cached, forward, generating
from ssn_probe.model.shape import Shape
from ssn_probe.neurons import SITES

Work = Literal["generate", "log_odds", "text", "refusal", "local", "final", "final_ablation"]

UNCOUNTED = 0.05
"""Share of what a row takes for small tensors that are not counted singly: positions, statistics of norms."""
TEXT_BLOCKS, TEXT_BLOCK = 6, 2**22
"""How many blocks of logits of `tracing.bodies.next_tokens` are alive at once, and the elements of each."""


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
    behind_start: bool = False,
) -> Footprint:
    """What a kind of work takes on a device; the scores themselves are kept in the memory of the host.

    Args:
        work: "generate", "log_odds" (r(x) by forward passes), "text" (KL along answers), "refusal", "local",
            "final", or "final_ablation" (brute force).
        tokens: of the longest prompt, the chat template included.
        new_tokens: generated at most.
        sequences, kept: of a `readout.Forcing`: teacher-forced sequences of a prompt, and last positions with logits.
        probes: random read-outs of "final".
        exact_qk: of "local" and "refusal": the share of q and k that is exact; of "refusal" only whether there is any
            decides.
        block: of the exact scores, a GPU's; `BLOCK` on the CPU.
        behind_start: of "log_odds", "text" and "final_ablation": prompts run behind what they begin with, so that all
            layers keep keys and values.
    """
    fixed = floor = 0
    later = Stage()
    match work:
        case "generate":
            row = generating(shape, tokens, new_tokens)
        case "log_odds":
            row = forward(shape, tokens + kept - 1, kept)
            row += behind_start * cached(shape, tokens + kept - 1, 0)
        case "text":
            row = forward(shape, tokens + new_tokens, 1) + 2 * new_tokens * shape.hidden * shape.stored
            row += behind_start * cached(shape, tokens + new_tokens, 0)
            fixed = TEXT_BLOCKS * TEXT_BLOCK * shape.exact
        case "refusal":
            row, later = differentiating(shape, tokens + kept - 1, kept, sites, exact_qk > 0, block)
        case "local":
            measures, making = measured(shape, sites)
            row, floor = scoring(shape, tokens, sites), measures + making
            fixed = measures
            if exact_qk == 1 or shape.together:
                fixed += walked(shape, tokens, sites, block)
            elif {"q", "k"} & set(sites):
                later = screened(shape, tokens, sites, exact_qk, block)
        case "final":
            row, later = sketching(shape, tokens, sites, probes, block)
        case "final_ablation":
            row = fixed = ablating(shape, tokens) + behind_start * cached(shape, tokens, 0)  # the untouched row beside
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
