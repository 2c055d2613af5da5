"""Amplify the shared safety neurons by several factors, compare with random neurons, and measure the cost."""

from ssn_probe import ASR, Amplify, OverRefusal, Prompts, Recipe, SafetyNeurons, Shared, Utility, recipe

DOSES = (0.5, 2.0, 4.0)
"""The factors: 0.5 for the opposite direction, 2 as the primary one (fixed before anything was measured), and 4."""


@recipe
def amplify_ss(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    anchor: str | None = None,
    effect: str = "refusal",
    rule: str = "difference",
    top: float | None = None,
    label_sets: int = 19,
    log_odds_label_sets: int = 99,
    controls: int = 59,
    seed: int = 0,
):
    """Does amplifying shared safety neurons strengthen refusal, and at what cost in over-refusal and utility?"""
    prompts = Prompts(data, harmless=harmless)
    ss = Shared(SafetyNeurons(prompts, effect=effect, rule=rule, top=top), anchor=anchor)
    return Recipe(
        model=model,
        arms={f"ss x{dose:g}": Amplify(ss, by=dose) for dose in DOSES},
        label_sets=label_sets,
        log_odds_label_sets=log_odds_label_sets,
        controls=controls,
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        primary="ss x2",
        seed=seed,
    )
