"""The formats of prompt sets that others publish: one row of a table each, and no code.

Each adapter says where a set is, which files and columns hold what, and what is known of it: `foreign_sets.py` turns
any of them into the frame of this project. Nothing is copied from these sets.
"""

from dataclasses import dataclass
from typing import Literal

FILE = "@file"
"""In place of a column: the name of the file, with its folders, configuration and split."""
LANGUAGE_COLUMNS = ("language", "lang", "locale", "language_code", "lang_code")
ID_COLUMNS = ("prompt_id", "id", "idx", "index", "qid", "question_id", "BehaviorID")
TEXT_COLUMNS = ("text", "prompt", "question", "instruction", "request", "query", "goal", "behavior", "input")
TOPIC_COLUMNS = ("topic", "tags", "category", "subcategory", "harm_category")
LABEL_COLUMNS = ("context", "label", "prompt_harm_label", "prompt_label", "harm_label", "safety", "type", "class")
TRUTH_COLUMNS = ("is_harmful", "harmful", "is_unsafe", "unsafe", "is_toxic", "toxic")
SAYS = {
    **dict.fromkeys(("harmful", "unsafe", "toxic", "malicious"), "harmful"),
    **dict.fromkeys(("harmless", "safe", "benign", "unharmful"), "harmless"),
    "lookalike": "lookalike",
}
"""Labels of prompts → contexts."""
TRUTHS = {"true": "harmful", "1": "harmful", "yes": "harmful", "false": "harmless", "0": "harmless", "no": "harmless"}
XSAFETY = (
    *("Crimes_And_Illegal_Activities", "Ethics_And_Morality", "Goal_Hijacking", "Inquiry_With_Unsafe_Opinion"),
    *("Insult", "Mental_Health", "Physical_Harm", "Privacy_And_Property", "Prompt_Leaking", "Reverse_Exposure"),
    *("Role_Play_Instruction", "Unfairness_And_Discrimination", "Unsafe_Instruction_Topic", "commonsense"),
)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """How one set is written. Of several columns, the first that a table has is read; upper and lower case are alike.

    `hub`: its names there, the first of which the short name stands for. `files`: patterns of the files to read (none:
    all tables). `header`: the columns of csv and tsv files that have none. `wide`: a column per language; else `text`
    names the column of texts, and `appended` one whose text goes on from it. `language`: its columns; where a table has
    none, the language is `spoken`, or that of the file's name. `contexts`: (columns joined by +, pattern, context), of
    which the first that fits counts; else `context`, else what the set is given as. `keep`: (column, value) of the rows
    to read. `by_topic`: rows are numbered within their topic. `pairs`: `id` for twins of one id, `contrast` for rows
    that stand 25 apart and share their `focus`. `parallel` is False where rows of one place in two languages are no
    translations. `instead`: what is open where the set asks for conditions.
    """

    name: str
    hub: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    wide: bool = False
    text: tuple[str, ...] = TEXT_COLUMNS
    appended: str | None = None
    language: tuple[str, ...] = LANGUAGE_COLUMNS
    spoken: str | None = None
    id: tuple[str, ...] = ID_COLUMNS
    topic: tuple[str, ...] = TOPIC_COLUMNS
    reference: str | None = None
    context: str | None = "harmful"
    contexts: tuple[tuple[str, str, str], ...] = ()
    keep: tuple[tuple[str, str], ...] = ()
    by_topic: bool = False
    pairs: Literal["id", "contrast"] | None = None
    parallel: bool = True
    license: str | None = None
    instead: str | None = None
    note: str | None = None


ADAPTERS = (
    Adapter(
        name="multijail",
        hub=("DAMO-NLP-SG/MultiJail",),
        files=("*MultiJail*.csv", "*multijail*.csv", "*.parquet"),
        wide=True,
        topic=("tags",),
        license="mit",
    ),
    Adapter(
        name="damo-multijail",
        hub=("ToxicityPrompts/DAMO-MultiJail",),
        id=(),
        topic=("tags",),
        license="mit",
        note="its licence is that of MultiJail, since its own card names none",
    ),
    Adapter(
        name="advbench-x",
        wide=True,
        id=(),
        note="it has no page on the hub; it is a csv with a column per language",
    ),
    Adapter(name="multilingual-advbench", hub=("simonycl/multilingual_advbench",), id=()),
    Adapter(
        name="xsafety",
        hub=("ToxicityPrompts/XSafety",),
        files=("*.parquet", *(f"*/{topic}*.csv" for topic in XSAFETY)),
        header=("text",),
        id=(),
        topic=("category", FILE),
        by_topic=True,
        note="its topics Goal_Hijacking, Prompt_Leaking and commonsense test other things than a harmful request",
    ),
    Adapter(
        name="aya-red-teaming",
        hub=("walledai/AyaRedTeaming", "CohereLabs/aya_redteaming", "CohereForAI/aya_redteaming"),
        id=(),
        parallel=False,
        license="apache-2.0",
        instead="CohereLabs/aya_redteaming",
        note="people wrote its prompts in each language on their own: there are no translations in it",
    ),
    Adapter(
        name="polyguard",
        hub=("ToxicityPrompts/PolyGuardPrompts",),
        topic=("subcategory",),
        context=None,
        contexts=(
            ("prompt_harm_label", "harmful", "harmful"),
            ("prompt_harm_label+adversarial", "unharmful+true", "lookalike"),
            ("prompt_harm_label", "unharmful", "harmless"),
        ),
        license="cc-by-4.0",
    ),
    Adapter(
        name="m-alert",
        hub=("felfri/M-ALERT",),
        wide=True,
        license="cc-by-nc-sa-4.0",
    ),
    Adapter(
        name="xstest",
        hub=("walledai/XSTest", "Paul/XSTest"),
        files=("*xstest*prompts*.csv", "*.parquet"),
        spoken="en",
        topic=("type",),
        contexts=(
            ("label", "unsafe", "harmful"),
            ("label", "safe", "lookalike"),
            ("type", "contrast_*", "harmful"),
            ("type", "*", "lookalike"),
        ),
        pairs="contrast",
        license="cc-by-4.0",
        instead="the csv of https://github.com/paul-rottger/xstest as xstest:PATH",
    ),
    Adapter(
        name="jailbreakbench",
        hub=("JailbreakBench/JBB-Behaviors",),
        files=("*harmful-behaviors.csv", "*benign-behaviors.csv"),
        text=("Goal",),
        spoken="en",
        id=("Index",),
        contexts=((FILE, "*harmful*", "harmful"), (FILE, "*benign*", "harmless")),
        pairs="id",
        license="mit",
    ),
    Adapter(
        name="harmbench",
        hub=("walledai/HarmBench",),
        files=("standard/*.parquet", "*.csv"),
        text=("prompt", "Behavior"),
        spoken="en",
        topic=("category", "SemanticCategory"),
        keep=(("FunctionalCategory", "standard"),),
        license="mit",
        instead="harmbench_behaviors_text_all.csv of https://github.com/centerforaisafety/HarmBench as harmbench:PATH",
        note="only its standard behaviours are read: the others need a context or are about copyright",
    ),
    Adapter(
        name="or-bench",
        hub=("bench-llm/or-bench",),
        files=("*or-bench-hard-1k*", "*or-bench-toxic*"),
        spoken="en",
        contexts=((FILE, "*toxic*", "harmful"), (FILE, "*", "lookalike")),
        license="cc-by-4.0",
    ),
    Adapter(
        name="alpaca",
        hub=("tatsu-lab/alpaca",),
        text=("instruction",),
        appended="input",
        spoken="en",
        context="harmless",
        license="cc-by-nc-4.0",
    ),
    Adapter(
        name="mgsm",
        hub=("juletxara/mgsm",),
        files=("mgsm_*.tsv", "*/test*.parquet", "*.jsonl"),
        header=("question", "answer_number"),
        text=("question",),
        id=(),
        context="harmless",
        license="cc-by-sa-4.0",
    ),
)
"""Every format that has a name of its own."""
BY_NAME = {adapter.name: adapter for adapter in ADAPTERS}
BY_HUB = {name.casefold(): adapter for adapter in ADAPTERS for name in adapter.hub}
