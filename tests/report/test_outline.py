"""Recipes and expressions as trees: short, complete where it matters, and each thing said once."""

from ssn_probe.recipes import suppress_ss, transfer

from ssn_probe import ASR, Amplify, Local, MeanOf, NeuronFile, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility
from ssn_probe.spec.rendering import as_text

PROMPTS = Prompts("data", limit=5, languages=("aa", "bb"))
MS = SafetyNeurons(PROMPTS, effect=Local("last"), rule="paper", sites=("ffn",))


def lines(value: object) -> list[str]:
    return [line.strip("│├└─ ") for line in as_text(value).splitlines()]


def test_a_recipe_is_its_question_its_arms_and_its_settings() -> None:
    recipe = suppress_ss(model="some model", controls=1234, seed=7)
    found = lines(recipe)
    assert found[0] == f"suppress_ss  key {recipe.key[:8]}"
    assert found[1] == "Does silencing shared safety neurons break refusal more than silencing as many others?"
    for line in (
        "model some model",
        "arm ms  Suppress",
        "primary arm ss  Suppress",
        "SafetyNeurons on organism (effect=refusal, rule=difference, top=0.005)",
        "measures ASR, OverRefusal, Utility on organism",
        "seed 7",
    ):
        assert found.count(line) == 1, line
    for sets in (
        "compared sets 19 sets found under exchanged labels (99 on the log-odds)",
        "; 1,234 random sets of as",
    ):
        assert sets in " ".join(found)


def test_what_has_a_name_is_called_by_it() -> None:
    found = lines(suppress_ss())
    assert found[found.index("Shared") + 1] == "the set of ms"
    doses = Recipe(arms={"x2": Amplify(MS, by=2), "x4": Amplify(MS, by=4)}, measures=(ASR(PROMPTS),))
    found = lines(doses)
    assert found[found.index("arm x4  Amplify (by=4)") + 1] == "the set of x2"
    sets = lines(Recipe(sets={"ms": MS, "ss": Shared(MS)}))
    assert "the set ms" in sets
    assert not any("compared sets" in line for line in sets)


def test_prompts_are_told_apart() -> None:
    found = lines(Recipe(arms={"ms": Suppress(MS)}, measures=(ASR(PROMPTS), Utility(Prompts("other")))))
    assert "measures ASR on data (languages=aa bb, limit=5)" in found
    assert "measures Utility on other" in found
    assert lines(Suppress(MS, to=MeanOf(Prompts("usual"))))[-2:] == ["MeanOf", "Prompts usual"]
    assert "Each" in lines(transfer())


def test_expressions_show_what_is_not_the_default() -> None:
    expression = Shared(MS, at_least=3) & (MS.only(layers=[1, 2]) - NeuronFile("x.csv")) | MS.of("aa")
    found = lines(expression)
    assert found[0] == f"| in either  key {expression.key[:8]}"
    for line in ("& in both", "- in the first and not in the second", "NeuronFile (path=x.csv)", "Of (language=aa)"):
        assert line in found
    assert "Shared (at_least=3)" in found
    assert "Only (layers=1 2)" in found
    assert "(effect=local last, rule=paper, top=0.03, sites=ffn)" in " ".join(found)


def test_a_declared_recipe_shows_its_parameters() -> None:
    found = lines(suppress_ss)
    assert found[0] == "suppress_ss"
    assert "top = None  float | None" in found
    assert "controls = 59  int" in found
    assert len(found) == 2 + len(suppress_ss.parameters)
