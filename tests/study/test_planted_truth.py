"""Sets of an organism against what was planted, by each language's own ranking and by the average over languages."""

import polars as pl
import pytest
from rich.console import Console

from ssn_probe import Prompts, Recipe, SafetyNeurons, Shared
from ssn_probe.model.loading import locate
from ssn_probe.model.subject import load_subject
from ssn_probe.neurons.selection import averaged, scored, select_neurons
from ssn_probe.organism.ground_truth import against_truth, load_truth
from ssn_probe.report.document import Table
from ssn_probe.report.sections.against_planted_truth import truth_section
from ssn_probe.report.terminal.result_card import truth_table as terminal_table
from ssn_probe.study.importance import importance
from ssn_probe.study.plan import make_plan
from ssn_probe.study.planted_truth import truth_table
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

MODEL = "organism:planted-ffn"
MS = SafetyNeurons(Prompts("organism", languages=("qaa", "qab"), limit=20), top=0.01)
SETS = {"ms": MS, "ss": Shared(MS), "two": MS | MS.of("qaa")}


@pytest.fixture(scope="module")
def bench() -> Workbench:
    plan = make_plan(Recipe(model=MODEL, sets=SETS))
    return Workbench(subject=load_subject(MODEL), data=plan.data, anchor=plan.anchor)


@pytest.fixture(scope="module")
def truth(bench: Workbench) -> pl.DataFrame:
    found = truth_table(bench, MODEL, SETS, {name: evaluate(bench, node) for name, node in SETS.items()})
    assert found is not None
    return found


def test_own_rankings_and_their_average(bench: Workbench, truth: pl.DataFrame) -> None:
    rows = truth.group_by("set", "ranked_by", maintain_order=True).agg(pl.col("language").unique(maintain_order=True))
    both = ["qaa", "qab"]
    assert rows.rows() == [
        ("ms", "own", both),
        ("ms", "average", ["*"]),
        ("ss", "average", both),
        ("two", "own", both),
    ]
    means, known = importance(bench, MS), load_truth(locate(MODEL))
    assert known is not None
    average = averaged(means)
    chosen = select_neurons(average, rule="difference", top=0.01, pool="site")
    wanted = against_truth(known, "ms", chosen, scored(average, "difference"))
    assert truth.filter(set="ms", ranked_by="average").drop("ranked_by").equals(wanted)
    own = truth.filter(set="ms", ranked_by="own", language="qab")["average_precision"].to_list()
    assert own != wanted["average_precision"].to_list()
    shared = truth.filter(set="ss", language="qab")["average_precision"].to_list()
    assert shared == wanted["average_precision"].to_list()


def test_both_are_printed(truth: pl.DataFrame) -> None:
    section = truth_section(truth)
    assert section is not None
    (table,) = (part for part in section.parts if isinstance(part, Table))
    assert [row[:3] for row in table.rows if row[0] == "ms"] == [
        ("ms", ranked_by, question) for ranked_by in ("own", "average") for question in ("harmful", "difference")
    ]
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(terminal_table(truth))
    rows = shown.get().splitlines()
    row = truth.filter(set="ms", ranked_by="average", question="difference").row(0, named=True)
    wanted = f"{100 * row['precision']:.0f} / {100 * row['mass']:.0f}, {row['average_precision']:.2f}"
    (line,) = [line for line in rows if line.startswith("ms, ranked by average")]
    assert line.endswith(wanted)
