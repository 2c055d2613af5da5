"""Recipes and expressions as trees.

An expression that the recipe has already named appears under its name, so that a tree is as short as the question.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields

from rich.text import Text
from rich.tree import Tree

from ssn_probe.spec import Combine, Effect, LMEval, Measure, PromptMeasure, Prompts, Recipe, SafetyNeurons
from ssn_probe.spec.decorator import RecipeFunction
from ssn_probe.spec.display import literal
from ssn_probe.spec.node import Node
from ssn_probe.study.comparisons import in_words

SIGNS = {"and": "& in both", "or": "| in either", "minus": "- in the first and not in the second"}
"""How each operation of `Combine` is written, and what it means."""

ALWAYS: Mapping[type[Node], tuple[str, ...]] = {SafetyNeurons: ("effect", "rule", "top")}
"""Fields that are shown even with their default: what a reader asks first."""

Names = Mapping[str, str]
"""Key of an expression → its name in the recipe."""


def outline(node: Node) -> Tree:
    """A recipe or an expression as a tree, with the first digits of its key."""
    return _recipe(node) if isinstance(node, Recipe) else _expression(node, {}, key=True)


def declaration(function: RecipeFunction) -> Tree:
    """A declared question and its parameters, with their types and defaults."""
    tree = Tree(_heading(function.name, function.question), guide_style="dim")
    for name, parameter in function.parameters.items():
        kind = inspect.formatannotation(parameter.annotation)
        value = literal(f" = {parameter.default!r}")
        tree.add(Text.assemble(literal(name, "bold"), value, literal(f"  {kind}", "dim")))
    return tree


def _recipe(recipe: Recipe) -> Tree:
    tree = Tree(_heading(recipe.name, recipe.question, recipe.key), guide_style="dim")
    tree.add(_field("model", recipe.model))
    names: dict[str, str] = {}
    for name, neurons in recipe.sets.items():
        _add_named(tree, _field("set", name), neurons, names)
        names.setdefault(neurons.key, f"the set {name}")
    for name, arm in recipe.arms.items():
        _add_named(tree, _field("primary arm" if name == recipe.primary else "arm", name), arm, names)
        names.setdefault(arm.neurons.key, f"the set of {name}")
    for measure in _measures(recipe):
        tree.add(measure)
    for name, value in _settings(recipe):
        tree.add(_field(name, value))
    return tree


def _heading(name: str, question: str, key: str = "") -> Text:
    parts = [literal(name, "bold"), literal(f"  key {key[:8]}" if key else "", "dim")]
    return Text.assemble(*parts, *([Text("\n"), literal(question, "italic")] if question else []))


def _field(name: str, value: object) -> Text:
    return Text.assemble((f"{name} ", "dim"), literal(value, "bold"))


def _add_named(tree: Tree, label: Text, node: Node, names: Names) -> None:
    """Adds a named expression: its name and its outermost node on one line."""
    branch = _expression(node, names)
    assert isinstance(branch.label, Text)
    branch.label = Text.assemble(label, "  ", branch.label)
    tree.children.append(branch)


def _measures(recipe: Recipe) -> Iterator[Text]:
    """Measures by the prompts they read, so that three on the same prompts are one line."""
    by_prompts: dict[Prompts, list[Measure]] = {}
    for measure in recipe.measures:
        if isinstance(measure, LMEval):
            limit = "" if measure.limit is None else f" (the first {measure.limit} documents)"
            yield _field("lm-eval", ", ".join(measure.tasks) + limit)
            continue
        assert isinstance(measure, PromptMeasure)
        by_prompts.setdefault(measure.prompts, []).append(measure)
    for prompts, measures in by_prompts.items():
        kinds = ", ".join(type(measure).__name__ for measure in measures)
        yield Text.assemble(_field("measures", kinds), literal(f" on {_prompts(prompts)}"))


def _settings(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.arms:
        yield "compared sets", in_words(recipe)
    yield "nulls per set", f"{recipe.permutations:,} exchanges of labels, {recipe.half_samples:,} pairs of halves"
    yield "seed", str(recipe.seed)


def _expression(node: Node, names: Names, *, key: bool = False) -> Tree:
    """A node's kind and parameters on a line, and beneath it the nodes that it is made of."""
    if node.key in names:
        return Tree(literal(names[node.key], "italic"), guide_style="dim")
    tree = Tree(_label(node, key), guide_style="dim")
    if isinstance(node, SafetyNeurons):  # its prompts and its effect stand in its label
        return tree
    for value in (getattr(node, spec.name) for spec in fields(node)):
        if isinstance(value, Node):
            tree.children.append(_expression(value, names))
    return tree


def _label(node: Node, key: bool) -> Text:
    label = Text.assemble((SIGNS[node.operation] if isinstance(node, Combine) else type(node).__name__, "bold"))
    if isinstance(node, Prompts):
        label = literal(f"Prompts {_prompts(node)}")
    elif isinstance(node, SafetyNeurons):
        label.append_text(literal(f" on {_prompts(node.prompts)}"))
    if not isinstance(node, Prompts | Combine):
        parameters = ", ".join(f"{name}={value}" for name, value in _parameters(node))
        label.append_text(literal(f" ({parameters})" if parameters else "", "cyan"))
    return label.append_text(literal(f"  key {node.key[:8]}", "dim")) if key else label


def _prompts(node: Prompts) -> str:
    """A prompt set in a few words: its source and what restricts it."""
    parameters = ", ".join(f"{name}={value}" for name, value in _parameters(node) if name != "source")
    return f"{node.source} ({parameters})" if parameters else node.source


def _parameters(node: Node) -> Iterator[tuple[str, str]]:
    """The values of a node that differ from their defaults, and those that a reader asks first."""
    for spec in fields(node):
        value, always = getattr(node, spec.name), spec.name in ALWAYS.get(type(node), ())
        beneath = isinstance(value, Node) and not isinstance(value, Effect)
        if not beneath and value is not None and (always or value != spec.default):
            yield spec.name, _value(value)


def _value(value: object) -> str:
    if isinstance(value, Node):
        return " ".join([type(value).__name__.lower(), *(text for _, text in _parameters(value))])
    if isinstance(value, tuple):
        return " ".join(_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
