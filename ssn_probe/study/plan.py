"""A recipe with the prompt sets that it reads, checked before anything is loaded or computed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ssn_probe.data.prompt_set import PromptSet, load_prompts
from ssn_probe.engines.vllm_engine import Settings, find_engine
from ssn_probe.neurons import read_neurons
from ssn_probe.spec import Each, NeuronFile, Prompts, Recipe
from ssn_probe.spec.node import Node, rewrite, walk
from ssn_probe.study.comparisons import expected, sets_generating
from ssn_probe.study.engine_checks import check_engine
from ssn_probe.study.host_checks import check_hosted, check_spread
from ssn_probe.study.recipe_checks import check_recipe
from ssn_probe.study.resolve import measured, study_anchor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe that can be run, and the prompt sets it reads. `engine`: what generates if transformers does not."""

    recipe: Recipe
    data: Mapping[Prompts, PromptSet]
    engine: Settings | None = None

    @property
    def anchor(self) -> str | None:
        """The anchor language of the whole study; None where there is none."""
        return study_anchor(self.recipe, self.data)

    @property
    def compared_responses(self) -> int:
        """How many responses the sets generate that arms are compared with, where every arm allows all of them."""
        harmful = measured(self.recipe, self.data).get("harmful")
        if harmful is None:
            return 0
        prompts = sum(harmful.select("evaluate", "harmful", language).height for language in harmful.languages)
        sets = 0
        for arm, node in self.recipe.arms.items():
            expression = node.neurons.neurons if isinstance(node.neurons, Each) else node.neurons
            names = expected(self.recipe, arm, expression)
            sets += sum(sets_generating(self.recipe, node, name) for name in names)
        return prompts * sets


def make_plan(
    recipe: Recipe, *, remote: bool | str = False, device: str = "auto", engine: str = "transformers"
) -> Plan:
    """The recipe with its data; the options are those of a run.

    Raises RecipeError or DataError for what cannot be: unknown data, a damaged neuron file, a measure on prompts that
    choose the set, a language that is not there, what no host, no model that is spread or not this engine does.
    """
    check_spread(recipe, device, engine)
    if remote:
        check_hosted(recipe)
    for node in walk(recipe):
        if isinstance(node, NeuronFile):
            read_neurons(node.path)
    named = dict.fromkeys(node for node in walk(recipe) if isinstance(node, Prompts))  # most often one, many times
    data = {node: load_prompts(node) for node in named}
    if recipe.judge is not None:
        data = {node: replace(prompts, judge=recipe.judge) for node, prompts in data.items()}
    check_recipe(recipe, data)
    generates = find_engine(engine)
    check_engine(recipe, generates, remote=bool(remote))
    return Plan(recipe=recipe, data=data, engine=generates)


def limited(recipe: Recipe, limit: int | None) -> Recipe:
    """The recipe with at most `limit` prompt ids per split and context."""
    if limit is None:
        return recipe

    def lowered(node: Node) -> Node:
        return replace(node, limit=min(limit, node.limit or limit)) if isinstance(node, Prompts) else node

    changed = rewrite(recipe, lowered)
    assert isinstance(changed, Recipe)
    return changed
