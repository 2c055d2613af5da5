"""Train only the shared safety neurons on parallel refusals, for three lengths, and compare with random neurons."""

from ssn_probe import ASR, Expand, OverRefusal, Prompts, Recipe, SafetyNeurons, Shared, Training, Utility, recipe

STEPS = (8, 20, 60)
"""Early, the primary length (fixed before anything was measured), and late."""


@recipe
def expand_ss(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    anchor: str | None = None,
    effect: str = "refusal",
    rule: str = "difference",
    top: float | None = None,
    lr: float = 1e-3,
    answers: bool = True,
    references: str | None = None,
    controls: int = 4,
    seed: int = 0,
):
    """Does training only the shared safety neurons restore refusal, more than random neurons, and at what cost?"""
    prompts = Prompts(data, harmless=harmless)
    contexts = ("harmful", "harmless") if answers else ("harmful",)
    ss = Shared(SafetyNeurons(prompts, effect=effect, rule=rule, top=top), anchor=anchor).union()
    trainings = [Training(lr=lr, steps=steps, seed=seed) for steps in STEPS]
    return Recipe(
        model=model,
        arms={
            f"{one.steps} steps": Expand(ss, prompts, training=one, contexts=contexts, references=references)
            for one in trainings
        },
        comparisons=("labels", "random"),
        label_sets=controls,
        log_odds_label_sets=controls,
        controls=controls,
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        primary="20 steps",
        seed=seed,
    )
