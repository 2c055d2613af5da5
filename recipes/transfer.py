"""Silence the safety neurons of each language in turn, and evaluate every language."""

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Suppress, Utility, recipe


@recipe
def transfer(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    effect: str = "refusal",
    rule: str = "difference",
    top: float | None = None,
    seed: int = 0,
):
    """Whose safety neurons matter for whom: does silencing those of one language break refusal in the others?"""
    prompts = Prompts(data, harmless=harmless)
    ms = SafetyNeurons(prompts, effect=effect, rule=rule, top=top)
    return Recipe(
        model=model,
        arms={"ms": Suppress(ms.each())},
        comparisons=(),
        log_odds_label_sets=0,
        measures=(ASR(prompts), Utility(prompts)),
        seed=seed,
    )
