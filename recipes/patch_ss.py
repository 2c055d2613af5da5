"""Copy the activations of the shared safety neurons in the anchor into the same request in every other language."""

from ssn_probe import ASR, OverRefusal, Patch, Prompts, Recipe, SafetyNeurons, Shared, Utility, recipe


@recipe
def patch_ss(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    anchor: str | None = None,
    source: str | None = None,
    effect: str = "refusal",
    rule: str = "difference",
    top: float | None = None,
    label_sets: int = 19,
    log_odds_label_sets: int = 99,
    controls: int = 59,
    seed: int = 0,
):
    """Do the anchor's activations of shared safety neurons, copied into other languages, strengthen refusal there?"""
    prompts = Prompts(data, harmless=harmless)
    ss = Shared(SafetyNeurons(prompts, effect=effect, rule=rule, top=top), anchor=anchor)
    return Recipe(
        model=model,
        arms={"ss last": Patch(ss, source=source), "ss response": Patch(ss, source=source, positions="response")},
        label_sets=label_sets,
        log_odds_label_sets=log_odds_label_sets,
        controls=controls,
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        primary="ss response",
        seed=seed,
    )
