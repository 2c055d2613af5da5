"""Silence the neurons that carry refusal, and those that carry the language of responses: two sets, two behaviours."""

from ssn_probe import ASR, InLanguage, Prompts, Recipe, SafetyNeurons, Suppress, Utility, recipe


@recipe
def dissociation(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    effect: str = "refusal",
    top: float | None = None,
    controls: int = 19,
    seed: int = 0,
):
    """Does silencing safety neurons change refusal and not the language, and silencing language neurons the reverse?"""
    prompts = Prompts(data, harmless=harmless)
    safety = SafetyNeurons(prompts, effect=effect, top=top)
    # as many of every layer and site, found alike; no contrast of prompts: every response is in some language
    language = SafetyNeurons(prompts, effect="language", rule="harmful", top=top)
    return Recipe(
        model=model,
        arms={"safety": Suppress(safety), "language": Suppress(language)},
        comparisons=("random",),
        controls=controls,
        permutations=0,
        half_samples=0,
        measures=(ASR(prompts), InLanguage(prompts), Utility(prompts)),
        seed=seed,
    )
