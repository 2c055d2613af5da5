"""What every set expression means, written once for every representation of a set.

`SetAlgebra.evaluate` follows an expression from its leaves up. A representation (`NeuronSet`, or masks over many
labellings of the prompts) brings its own operators and says how the leaves are found.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import and_, or_, sub
from typing import Any, Generic, TypeVar

from ssn_probe.spec import Combine, Of, Only, SafetyNeurons, SetExpression, Shared, UnionOf
from ssn_probe.spec.anchors import the_anchor

OPERATORS = {"and": and_, "or": or_, "minus": sub}


Found = TypeVar("Found", bound=Any)
"""A representation of a set, with the operators and the methods `of`, `union` and `only` of `NeuronSet`."""


class SetAlgebra(ABC, Generic[Found]):
    """How set expressions are evaluated in one representation; `anchor` is the anchor language of the study."""

    anchor: str | None

    def evaluate(self, expression: SetExpression) -> Found:
        """The set that an expression stands for. Raises RecipeError where its parts do not fit together."""
        match expression:
            case SafetyNeurons():
                return self.chosen(expression)
            case Shared(neurons=SafetyNeurons() as inner, by="mean"):
                return self.chosen_by_mean(inner)
            case Shared(neurons=inner, at_least=int()):
                return self.shared_at_least(expression, self.evaluate(inner))
            case Shared(neurons=inner):
                return self.shared_with_anchor(expression, self.evaluate(inner))
            case Combine(operation=operation, left=left, right=right):
                return OPERATORS[operation](self.evaluate(left), self.evaluate(right))
            case Of(neurons=inner, language=language):
                return self.evaluate(inner).of(language or the_anchor(self.anchor))
            case UnionOf(neurons=inner):
                found, own = self.evaluate(inner), self.left_out(inner)
                return found.only(languages=[language for language in found.languages if language not in own]).union()
            case Only(neurons=inner, layers=layers, sites=sites, languages=languages):
                return self.evaluate(inner).only(layers=layers, sites=sites, languages=languages)
        return self.other(expression)

    @abstractmethod
    def chosen(self, node: SafetyNeurons) -> Found:
        """The neurons that a rule takes in every language."""

    @abstractmethod
    def chosen_by_mean(self, node: SafetyNeurons) -> Found:
        """The neurons that a rule takes from the importance averaged over languages, language-free."""

    @abstractmethod
    def shared_with_anchor(self, node: Shared, found: Found) -> Found:
        """The neurons of every language that the anchor has, too."""

    @abstractmethod
    def shared_at_least(self, node: Shared, found: Found) -> Found:
        """The neurons that `node.at_least` languages or more have, language-free."""

    @abstractmethod
    def left_out(self, inner: SetExpression) -> Sequence[str]:
        """The languages that a union of a set leaves out: the anchor, where the set is shared with it."""

    @abstractmethod
    def other(self, expression: SetExpression) -> Found:
        """A set that is not made of the operators above."""
