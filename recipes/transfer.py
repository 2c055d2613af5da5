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
    controls: int = 0,
    log_odds_controls: int = 0,
    seed: int = 0,
):
    """Whose safety neurons matter for whom: does silencing those of one language break refusal in the others?"""
    prompts = Prompts(data, harmless=harmless)
    ms = SafetyNeurons(prompts, effect=effect, rule=rule, top=top)
    return Recipe(
        model=model,
        arms={"ms": Suppress(ms.each())},
        controls=controls,
        log_odds_controls=log_odds_controls,
        measures=(ASR(prompts), Utility(prompts)),
        seed=seed,
    )
