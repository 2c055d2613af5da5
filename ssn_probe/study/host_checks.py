"""What a recipe asks of a host that runs the model for others, or of a model that is spread, checked before it runs."""

from ssn_probe.errors import RecipeError
from ssn_probe.model.placement import BALANCED
from ssn_probe.model.precision import check_trainable, check_widening
from ssn_probe.model.ranks import ranks
from ssn_probe.model.subject import Subject
from ssn_probe.spec import Effect, Only, Recipe, SafetyNeurons, SparseEdit, Trains
from ssn_probe.spec.node import Node, walk

HERE = "Or run it on this machine, without --remote."
REFUSED = {
    "training": (
        "trains the model's weights, and the jobs of a host read a model and never train it",
        f"Recipes that silence, amplify or carry over, such as suppress_ss, run with --remote. {HERE}",
    ),
    "wider weights": (
        "is scored in a dtype of its own, and a host holds the model in one that it chose",
        f"Leave scoring_dtype out: neurons are scored in the host's dtype then. {HERE}",
    ),
    "all logits": (
        "reads the logits of every token of long documents, too much to fetch from a host",
        f"Without -T tasks=… the rest of the recipe runs with --remote. {HERE}",
    ),
}
"""What no host can do → why, and what to do instead."""
ODDS_BY_PASSES = (
    "-T effect=ablation works: it asks the same by forward passes alone. It takes a pass for 5 % of the neurons; "
    "-T effect=ablation:0.01 takes one for 1 %."
)
STATE_BY_PASSES = "-T effect=finalablation works: it measures the same by a forward pass for every neuron."


def check_hosted(recipe: Recipe) -> None:
    """Raises RecipeError for what runs on no host."""
    for node in walk(recipe):
        for need in node.needs:
            if need in REFUSED:
                why, instead = REFUSED[need]
                raise RecipeError(f"{type(node).__name__}(…) {why}", instead)


def check_allowed(recipe: Recipe, subject: Subject) -> None:
    """Raises RecipeError for what the host that runs the subject does not allow; it is asked only if that matters."""
    asked = {need: node for node in walk(recipe) for need in node.needs if need in ("gradients", "weights")}
    if not asked:
        return
    from ssn_probe.tracing.host_facts import host_facts

    facts = host_facts(subject)
    for need, node in asked.items():
        if not getattr(facts, need):
            what = f"the effect {node.name}" if isinstance(node, Effect) else f"{type(node).__name__}(…)"
            raise RecipeError(
                f"{what} needs {need}, which the host does not allow with this key: jobs run in a sandbox there",
                f"{_without_gradients(node)}A host with a trusted key, or this machine, allows both.",
            )


def _without_gradients(node: Node) -> str:
    """What measures the same on every host, if something does."""
    if isinstance(node, Effect) and node.reads_responses:
        return "Give position='last', which finalablation measures by a forward pass for every neuron. "
    of_state = isinstance(node, Effect) and node.ablated == "final state"
    return f"The same command with {STATE_BY_PASSES if of_state else ODDS_BY_PASSES} "


def check_fits(recipe: Recipe, subject: Subject) -> None:
    """Raises an error for what a model cannot do that the recipe asks for.

    A ModelError where it cannot be scored in a dtype, or trained in its own, and a RecipeError where it does not have a
    layer that is named: a set of that layer would be empty whatever is measured.
    """
    for node in walk(recipe):
        if isinstance(node, Trains) and not isinstance(node, SparseEdit):
            check_trainable(subject.identity["dtype"])
        if isinstance(node, SafetyNeurons):
            check_widening(subject, node.scoring_dtype)
        if isinstance(node, Only):
            absent = [layer for layer in node.layers or () if layer >= subject.n_layers]
            if absent:
                raise RecipeError(
                    f"only(layers=…) names layer {absent[0]}, and {subject.name} has {subject.n_layers} layers",
                    f"Layers are numbered from 0 to {subject.n_layers - 1}.",
                )


def check_spread(recipe: Recipe, device: str = "auto", engine: str = "transformers") -> None:
    """Raises RecipeError for training, or another engine, with a model that is spread over devices or processes."""
    if ranks() == 1 and device != BALANCED:
        return
    over = f"{ranks()} processes" if ranks() > 1 else "several devices"
    if engine != "transformers":
        raise RecipeError(
            f"--engine {engine} has a model of its own, and this one is split over {over}.",
            "Use one device, without torchrun. vLLM splits its model itself: --engine vllm:tensor_parallel_size=2",
        )
    trained = next((node for node in walk(recipe) if "training" in node.needs), None)
    if trained is not None:
        raise RecipeError(
            f"{type(trained).__name__}(…) cannot train a model that is split over {over}: a change of neurons' weights "
            "is made and kept as a whole.",
            "Use one device, without torchrun. Recipes that silence, amplify or carry over, such as suppress_ss, run.",
        )
