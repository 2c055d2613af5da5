"""The paper's central question: silence the shared safety neurons, measure refusal, and compare with random neurons."""

from ssn_probe import (
    ASR,
    Amplify,
    MeanOf,
    OverRefusal,
    Prompts,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Utility,
    recipe,
)


@recipe
def suppress_ss(
    model: str = "organism",
    data: str = "organism",
    harmless: str | None = None,
    anchor: str | None = None,
    effect: str = "refusal",
    rule: str = "difference",
    top: float | None = None,
    stable: float | None = None,
    fdr: float | None = None,
    doses: tuple[float | str, ...] | None = (0.75, 0.5, 0.25, "mean"),
    label_sets: int = 19,
    log_odds_label_sets: int = 99,
    controls: int = 59,
    seed: int = 0,
):
    """Does silencing shared safety neurons break refusal more than silencing as many others?"""
    prompts = Prompts(data, harmless=harmless)
    ms = SafetyNeurons(prompts, effect=effect, rule=rule, top=top, stable=stable, fdr=fdr)
    ss = Shared(ms, anchor=anchor)
    # descriptions: what is left of the activation, or its mean on harmless prompts
    weaker = {f"ss x{dose}": Amplify(ss, by=dose) for dose in doses or () if dose != "mean"}  # type: ignore[arg-type]
    to_mean = {"ss to mean": Suppress(ss, to=MeanOf(prompts))} if "mean" in (doses or ()) else {}
    return Recipe(
        model=model,
        arms={"ms": Suppress(ms), "ss": Suppress(ss), **weaker, **to_mean},
        label_sets=label_sets,
        log_odds_label_sets=log_odds_label_sets,
        controls=controls,
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        primary="ss",
        seed=seed,
    )
