"""The study of Zhang et al. 2026 (arXiv:2602.01283) on MultiJail: MS and SS by its rule, silenced and trained.

The paper's: models and languages; the rule (q, k, v and o pooled per layer, the top 3 % on harmful prompts less the top
3 % on harmless ones; SS are the MS of a language that are MS of English); the arms MS, SS and as many random neurons;
with `expand=true` the training of English's MS on parallel refusals. The paper's or ours, sentence by sentence, with
what it takes: docs/reproduce.md. Most of all, `effect=final`, its Δ as we read it, is an estimate by 16 backward
passes a prompt; `local:last` is of the output of the neuron's own module, takes one pass for all, and is exact but for
the weaker q and k.
"""

from ssn_probe import (
    ASR,
    Expand,
    OverRefusal,
    Prompts,
    RandomLike,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Training,
    recipe,
)


@recipe
def reproduce_multijail(
    model: str = "Qwen/Qwen3-8B",
    data: str = "multijail",
    harmless: str | None = "everyday",
    anchor: str = "en",
    languages: tuple[str, ...] = ("en", "zh", "ko", "th", "bn"),
    effect: str = "local:last",
    top: float = 0.03,
    judge: str = "qwen3guard",
    max_new_tokens: int = 256,
    expand: bool = False,
    train: str | None = None,
    references: str | None = None,
    lr: float = 5e-5,
    epochs: int = 3,
    comparisons: tuple[str, ...] = ("labels", "random", "importance"),
    label_sets: int = 19,
    log_odds_label_sets: int = 0,
    controls: int = 19,
    seed: int = 0,
):
    """Do the paper's shared safety neurons carry refusal on MultiJail, more than sets found without a difference?"""
    of_both = {"harmless": harmless, "languages": languages, "max_new_tokens": max_new_tokens}
    prompts, learned = Prompts(data, **of_both), Prompts(train or data, **of_both)
    ms = SafetyNeurons(prompts, effect=effect, rule="paper", top=top, sites=("q", "k", "v", "o"), pool="layer")
    ss = Shared(ms, anchor=anchor)
    trained = {
        "expand ms": ms.of(anchor),
        "expand ss": ss.union(),
        "expand random": RandomLike(ms.of(anchor), seed=seed),
    }
    training = Training(lr=lr, epochs=epochs, seed=seed)
    return Recipe(
        model=model,
        arms={
            "ms": Suppress(ms),
            "ss": Suppress(ss),
            **{
                name: Expand(neurons, learned, training=training, contexts=("harmful",), references=references)
                for name, neurons in trained.items()
                if expand
            },
        },
        comparisons=comparisons,
        label_sets=label_sets,
        log_odds_label_sets=log_odds_label_sets,
        controls=controls,
        measures=(ASR(prompts), OverRefusal(prompts)),
        primary="ss",
        seed=seed,
        judge=judge or None,
    )
