"""Train the shared safety neurons, find the safety neurons of the trained model, and silence the first ones there."""

from ssn_probe import (
    ASR,
    Expand,
    OverRefusal,
    Prompts,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Training,
    Utility,
    recipe,
)


@recipe
def after_expand(
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
    label_sets: int = 19,
    log_odds_label_sets: int = 19,
    controls: int = 4,
    seed: int = 0,
):
    """After training them, are the safety neurons still the same neurons, and does refusal still depend on them?"""
    prompts = Prompts(data, harmless=harmless)
    contexts = ("harmful", "harmless") if answers else ("harmful",)
    ms = SafetyNeurons(prompts, effect=effect, rule=rule, top=top)
    ss = Shared(ms, anchor=anchor)
    trained = Expand(ss.union(), prompts, training=Training(lr=lr, steps=steps, seed=seed), contexts=contexts)
    return Recipe(
        model=model,
        sets={"ms": ms, "ms again": ms.after(trained)},
        arms={
            "silenced": Suppress(ss),
            "trained": trained,
            "trained then silenced": trained.then(Suppress(ss)),
        },
        comparisons=("labels", "random"),
        label_sets=label_sets,
        log_odds_label_sets=log_odds_label_sets,
        controls=controls,
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        primary="trained then silenced",
        seed=seed,
    )
