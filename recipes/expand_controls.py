"""Train safety neurons, random neurons, a LoRA, NeST and whole layers with the same rows, steps and learning rate."""

from ssn_probe import (
    ASR,
    Expand,
    LoRA,
    NeST,
    OverRefusal,
    ProbedNeurons,
    Prompts,
    RandomLike,
    Recipe,
    SafetyNeurons,
    Shared,
    SparseEdit,
    Training,
    Utility,
    recipe,
)

STEPS = (8, 20, 60)
"""The steps of every learning curve, fixed before anything was measured."""
RANKS = (1, 2, 4)
"""The strengths of an edit, which has no steps."""


@recipe
def expand_controls(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    anchor: str | None = None,
    effect: str = "refusal",
    top: float | None = None,
    harmful_top: float = 0.03,
    lr: float = 1e-3,
    answers: bool = True,
    random: int = 3,
    full: bool = True,
    rivals: bool = True,
    seed: int = 0,
):
    """Is training safety neurons better than spending the same budget elsewhere, at every step?"""
    prompts = Prompts(data, harmless=harmless)
    contexts = ("harmful", "harmless") if answers else ("harmful",)
    ms = SafetyNeurons(prompts, effect=effect, top=top)
    harmful = SafetyNeurons(prompts, effect=effect, rule="harmful", top=harmful_top)
    ss = Shared(ms, anchor=anchor).union()
    sets = {"ss": ss, "ms of anchor": ms.of(anchor), "ms of any": ms.union(), "harmful": harmful.of(anchor)}
    probed = ProbedNeurons(SafetyNeurons(prompts, effect="peak", sites=("ffn",))).of(anchor)
    edited = rivals and answers  # an edit must know harmless prompts to leave them alone
    training = Training(lr=lr, steps=STEPS[-1], schedule="constant", patience=None, seed=seed)

    budget = {"training": training, "contexts": contexts, "at": STEPS}

    def spent(on):
        return Expand(on, prompts, **budget)

    return Recipe(
        model=model,
        arms={
            **{name: spent(neurons) for name, neurons in sets.items()},
            **{f"random {draw}": spent(RandomLike(ss, seed=seed + draw)) for draw in range(1, random + 1)},
            "lora": LoRA(ss, prompts, **budget),
            **({"nest": NeST(probed, prompts, **budget)} if rivals else {}),
            **({f"edit rank {rank}": SparseEdit(probed, prompts, rank=rank) for rank in RANKS} if edited else {}),
            **({"layers": spent(ss.whole_layers())} if full else {}),
        },
        comparisons=(),
        log_odds_label_sets=0,
        permutations=0,
        half_samples=0,
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        seed=seed,
    )
