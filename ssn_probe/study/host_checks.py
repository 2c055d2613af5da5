"""What a recipe asks of a host that runs the model for others, checked before any prompt is sent."""

from ssn_probe.errors import RecipeError
from ssn_probe.spec import Recipe
from ssn_probe.spec.node import walk

HERE = "Or run it on this machine, without --remote."
REFUSED = {
    "training": (
        "trains the model's weights, and the jobs of a host read a model and never train it",
        f"Recipes that silence, amplify or carry over, such as suppress_ss, run with --remote. {HERE}",
    ),
    "all logits": (
        "reads the logits of every token of long documents, too much to fetch from a host",
        f"Without -T tasks=… the rest of the recipe runs with --remote. {HERE}",
    ),
}
"""What no host can do → why, and what to do instead."""


def check_hosted(recipe: Recipe) -> None:
    """Raises RecipeError for what runs on no host."""
    for node in walk(recipe):
        for need in node.needs:
            if need in REFUSED:
                why, instead = REFUSED[need]
                raise RecipeError(f"{type(node).__name__}(…) {why}", instead)
