"""Arms that train: which trainings they take, as steps, and the bench whose model has the weights that they gave."""

from functools import partial

from ssn_probe.neurons import NeuronSet
from ssn_probe.spec import LeaveOneOut, Trains
from ssn_probe.study.arms import ALONE, Arm, Find
from ssn_probe.study.resolve import rows_to_train, trained_without
from ssn_probe.study.steps import TRAINING, Step, run_unless_done
from ssn_probe.study.trained_weights import complete_row, is_trained, train, trained_bench, training_inputs
from ssn_probe.study.workbench import Workbench


def training_label(arm: str) -> str:
    return f"{arm}: training"


def trained_for(bench: Workbench, arm: Arm, languages: tuple[str, ...]) -> dict[str | None, tuple[Trains, Find]]:
    """What an arm trains: under None one model for all languages, or under every language the model without it."""
    if arm.training is None:
        return {}
    node, find = arm.training
    if not isinstance(node.neurons, LeaveOneOut):
        return {None: (node, find)}
    own = {language: _without(bench, node, find, language) for language in languages if language not in arm.skipped}
    return {language: training for language, training in own.items() if not _finds_nothing(arm, training[1])}


def _finds_nothing(arm: Arm, find: Find) -> bool:
    """Does a compared set have no neurons to train, so that the model stays as it is? In a tested set: an error."""
    return arm.role not in ALONE and arm.known and not len(find())


def _without(bench: Workbench, node: Trains, find: Find, language: str) -> tuple[Trains, Find]:
    def found() -> NeuronSet:
        return find().of(language)

    return trained_without(node, language, bench.data), found


def bench_of(bench: Workbench, arm: Arm, language: str) -> Workbench:
    """The bench that an arm is measured on while a language is evaluated: with the weights that the arm trains."""
    if arm.training is None:
        return bench
    node, find = arm.training
    if isinstance(node.neurons, LeaveOneOut):
        node, find = _without(bench, node, find, language)
    if _finds_nothing(arm, find):
        return bench
    return trained_bench(bench, node, find(), training_label(arm.name), arm.step)


def training_step(bench: Workbench, label: str, training: tuple[Trains, Find], users: list[Step]) -> Step:
    """A training need not run where all that is measured in the trained model is known."""
    node, find = training

    def run() -> None:
        work = partial(train, bench, node, find(), label)
        run_unless_done(users, work, partial(complete_row, bench, node, find(), label))

    return Step(
        label=label,
        prompts=rows_to_train(node, bench.data[node.data]),
        cost=TRAINING,
        key=lambda: training_inputs(bench, node, find()),
        is_kept=partial(is_trained, bench, node),
        run=run,
    )
