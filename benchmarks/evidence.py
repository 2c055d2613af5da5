"""The pictures of docs/evidence.md: the demo organism's shared safety neurons beside every kind of sets.

python -m benchmarks.evidence            # 3 minutes of processor time, 13 s after the demo; writes docs/pictures/*.svg
python -m benchmarks.evidence --limit 20 --out /tmp/pictures
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility, run
from ssn_probe.api.result import Result
from ssn_probe.report.charts.comparison_chart import Compared, comparison_chart
from ssn_probe.study.arms import WEAKENED

PICTURES = {
    "comparisons": (),
    "exchanged-labels": ("labels",),
    "own-neurons": ("own",),
    "equally-important": ("importance",),
    "random": ("random",),
    "placebo": ("placebo",),
    "without-top-neuron": (WEAKENED,),
}
"""What each picture shows of the same run: all comparisons, or one."""


def recipe(limit: int | None) -> Recipe:
    """What each comparison says of silencing the organism's shared safety neurons."""
    prompts = Prompts("organism", limit=limit)
    ss = Shared(SafetyNeurons(Prompts("organism")))
    return Recipe(
        name="evidence",
        arms={"ss": Suppress(ss)},
        measures=(ASR(prompts), Utility(prompts)),
        primary="ss",
        permutations=0,
        half_samples=0,
    )


def pictures(result: Result, folder: Path) -> None:
    """Writes every picture as .svg."""
    whole = Compared(
        arm="ss",
        samples=result.samples,
        summary=result.summary,
        comparisons=result.comparisons,
        anchor=result.manifest["anchor"],
    )
    for name, only in PICTURES.items():
        drawn = replace(whole, only=only)
        (folder / f"{name}.svg").write_text(comparison_chart(drawn).svg, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="measure on so many prompts of each kind")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    result = run(recipe(options.limit))
    pictures(result, options.out)
    sys.stdout.write(f"{result.answer}\n")


if __name__ == "__main__":
    main()
