"""How many safety neurons two languages have in common, compared with chance."""

from ssn_probe import Prompts, Recipe, SafetyNeurons, recipe


@recipe
def overlap(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    effect: str = "refusal",
    top: float | None = None,
):
    """Do languages share their safety neurons, by each of three selection rules?"""
    prompts = Prompts(data, harmless=harmless)
    rules = ("difference", "harmful", "paper")
    return Recipe(
        model=model,
        sets={rule: SafetyNeurons(prompts, effect=effect, rule=rule, top=top) for rule in rules},
    )
