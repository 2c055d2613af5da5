"""The study of Zhang et al. 2026 (arXiv:2602.01283) on AdvBench-x, AdvBench in many languages.

It has no page on the hub: give its csv, `-T data=advbench-x:FILE.csv`. Everything else is as in reproduce_multijail.py,
but for the languages, of which AdvBench-x has all seven of the paper. docs/reproduce.md says what is the paper's and
what is not.
"""

from ssn_probe.recipes.reproduce_multijail import reproduce_multijail  # pyright: ignore[reportMissingImports] (packed there)

from ssn_probe import recipe


@recipe
def reproduce_advbench_x(
    model: str = "Qwen/Qwen3-8B",
    data: str = "advbench-x",
    harmless: str | None = "everyday",
    anchor: str = "en",
    languages: tuple[str, ...] = ("en", "zh", "ko", "th", "bn", "af", "ne"),
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
    """Do the paper's shared safety neurons carry refusal on AdvBench-x, more than sets found without a difference?"""
    return reproduce_multijail(**locals())
