"""Leave out each language but the anchor in turn, from the set and from the data, train, and measure it there."""

from ssn_probe import ASR, Expand, OverRefusal, Prompts, Recipe, SafetyNeurons, Shared, Training, Utility, recipe


@recipe
def leave_one_out(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    anchor: str | None = None,
    effect: str = "refusal",
    rule: str = "difference",
    top: float | None = None,
    lr: float = 1e-3,
    answers: bool = True,
    steps: int | None = 20,
    controls: int = 4,
    seed: int = 0,
):
    """Does training only shared safety neurons restore refusal in a language that neither set nor data have seen?"""
    prompts = Prompts(data, harmless=harmless)
    contexts = ("harmful", "harmless") if answers else ("harmful",)
    ss = Shared(SafetyNeurons(prompts, effect=effect, rule=rule, top=top), anchor=anchor).union()
    training = Training(lr=lr, steps=steps, seed=seed)
    return Recipe(
        model=model,
        arms={
            "left out": Expand(ss.leave_one_out(), prompts, training=training, contexts=contexts),
            "seen": Expand(ss, prompts, training=training, contexts=contexts),
        },
        comparisons=("labels", "random"),
        label_sets=controls,
        log_odds_label_sets=controls,
        controls=controls,
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        primary="left out",
        seed=seed,
    )
