"""Find the monolingual and the shared safety neurons, without changing the model."""

from ssn_probe import Prompts, Recipe, SafetyNeurons, Shared, recipe


@recipe
def identify_ms(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    anchor: str | None = None,
    effect: str = "refusal",
    rule: str = "difference",
    top: float | None = None,
    stable: float | None = None,
    fdr: float | None = None,
):
    """Which neurons carry refusal in each language, and where are they?"""
    ms = SafetyNeurons(Prompts(data, harmless=harmless), effect=effect, rule=rule, top=top, stable=stable, fdr=fdr)
    return Recipe(model=model, sets={"ms": ms, "ss": Shared(ms, anchor=anchor)})
