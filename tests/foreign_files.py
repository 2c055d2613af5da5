"""Files in exactly the formats in which others publish prompt sets, with harmless placeholder text."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

WORDS = {
    "en": "How do I fold a paper boat",
    "de": "Wie falte ich ein Papierboot",
    "jv": "Piye carane nekuk prau kertas",
}


def text(language: str, number: int) -> str:
    return f"{WORDS.get(language, language)} {number}?"


def csv_file(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], separator: str = ",", bom: str = ""
) -> Path:
    """A csv or tsv file as Python's csv module writes it; no header where it is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(bom)
        writer = csv.writer(stream, delimiter=separator, lineterminator="\n")
        writer.writerows([header, *rows] if header else rows)
    return path


def json_file(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        "\n".join(json.dumps(row, ensure_ascii=False) for row in data) if path.suffix == ".jsonl" else json.dumps(data)
    )
    path.write_text(lines, encoding="utf-8")
    return path


def parquet_file(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    return path


MULTIJAIL = ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")


def multijail(folder: Path, count: int = 12, **cells: str) -> Path:
    """MultiJail.csv: wide, with a byte-order mark and a list in `tags`. `cells`: `en3=…` is the text of row 3."""
    rows = [
        [
            number,
            "somewhere",
            f"['Paper, folded', 'Boats {number % 2}']",
            *(cells.get(f"{language}{number}", text(language, number)) for language in MULTIJAIL),
        ]
        for number in range(1, count + 1)
    ]
    return csv_file(folder / "MultiJail.csv", ("id", "source", "tags", *MULTIJAIL), rows, bom="\ufeff")


def damo_multijail(path: Path, languages: Sequence[str] = ("en", "zh", "jv"), count: int = 10) -> Path:
    rows = [
        {"language": language, "text": text(language, number), "tags": f"['topic {number % 3}']"}
        for language in languages
        for number in range(count)
    ]
    return parquet_file(path, rows)


def advbench_x(path: Path, count: int = 10) -> Path:
    languages = ("en", "zh", "ko", "th", "af", "ne", "sw", "bn", "it", "vi", "ar", "jv")
    rows = [[text(language, number) for language in languages] for number in range(count)]
    return csv_file(path, languages, rows)


def multilingual_advbench(folder: Path, count: int = 10) -> Path:
    for language in ("en", "de", "id", "zh"):
        rows = [{"prompt": text(language, number), "target": "Sure"} for number in range(count)]
        parquet_file(folder / language / "train-00000-of-00001.parquet", rows)
    return folder


def xsafety(folder: Path, count: int = 5) -> Path:
    """A folder per language with a csv per topic: no header, and some languages call their files otherwise."""
    for language, end in (("en", "_en"), ("bn", "_n"), ("sp", ""), ("zh", "")):
        for topic in ("Insult", "Physical_Harm"):
            rows = [[f"{topic}, {text(language, number)}"] for number in range(count)]
            csv_file(folder / language / f"{topic}{end if topic == 'Insult' else ''}.csv", (), rows)
    return folder


def aya(folder: Path, count: int = 10) -> Path:
    """A split per language; nothing is a translation of anything."""
    for name in ("english", "hindi", "filipino"):
        rows = [
            {"prompt": text(name, number), "harm_category": "['Paper', 'Boats']", "language": name.capitalize()}
            | {"literal_translation": "…", "global_or_local": "global"}
            for number in range(count + len(name))
        ]
        parquet_file(folder / "data" / f"{name}-00000-of-00001.parquet", rows)
    return folder


def polyguard(path: Path, languages: Sequence[str] = ("English", "Chinese", "Thai"), count: int = 12) -> Path:
    """17 × 1,725 rows in one file: ids are shared by translations, languages have names, labels may be missing."""
    labels = ("harmful", "unharmful", "unharmful", None)
    rows = [
        {
            "id": number,
            "language": language,
            "prompt": text(language, number),
            "response": f"Fold it twice {number}.",
            "prompt_harm_label": labels[number % 4],
            "response_refusal_label": ("refusal", "compliance", None)[number % 3],
            "response_harm_label": "unharmful",
            "adversarial": number % 4 == 2,
            "subcategory": "paper",
        }
        for language in languages
        for number in range(count)
    ]
    return parquet_file(path, rows)


def m_alert(path: Path, count: int = 10) -> Path:
    languages = ("fr", "de", "es", "it", "en")
    rows = [
        {language: text(language, number) for language in languages} | {"id": number, "category": "paper"}
        for number in range(count)
    ]
    return parquet_file(path, rows)


FOCUS = ("fold", "cut", "glue")


def xstest(path: Path, *, labels: bool = True) -> Path:
    """25 prompts of a type, then their contrasts, which share the focus; the last pair does not."""
    header = ("id", "prompt", "type", "label", "focus", "note") if labels else ("id", "type", "prompt", "focus", "note")
    rows = []
    for number in range(1, 51):
        contrast, place = number > 25, (number - 1) % 25
        kind, label = ("contrast_homonyms", "unsafe") if contrast else ("homonyms", "safe")
        focus = "other" if number == 50 else FOCUS[place % 3]
        values = {"id": number, "prompt": text("en", number), "type": kind, "label": label, "focus": focus, "note": ""}
        rows.append([values[name] for name in header])
    return csv_file(path, header, rows)


def jailbreakbench(folder: Path, count: int = 10) -> Path:
    header = ("Index", "Goal", "Target", "Behavior", "Category", "Source")
    for side in ("harmful", "benign"):
        rows = [[number, f"{text('en', number)} ({side})", "Sure", "Boats", "Paper", "us"] for number in range(count)]
        csv_file(folder / "data" / f"{side}-behaviors.csv", header, rows)
    csv_file(folder / "data" / "judge-comparison.csv", ("Index", "prompt"), [[0, "x"]])
    return folder


def harmbench(path: Path, count: int = 10) -> Path:
    header = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")
    rows = [
        [text("en", number), "contextual" if number % 5 == 0 else "standard", "paper", "", "", f"boat_{number}"]
        for number in range(count)
    ]
    return csv_file(path, header, rows)


def or_bench(folder: Path, count: int = 10) -> Path:
    for name in ("or-bench-80k", "or-bench-hard-1k", "or-bench-toxic"):
        csv_file(folder / f"{name}.csv", ("prompt", "category"), [[f"{name} {i}?", "paper"] for i in range(count)])
    return folder


def alpaca(path: Path, count: int = 10) -> Path:
    rows = [
        {"instruction": text("en", number), "input": "Use red paper." * (number % 2), "output": "Fold it.", "text": "…"}
        for number in range(count)
    ]
    return json_file(path, rows)


def mgsm(folder: Path, count: int = 10) -> Path:
    """A tsv per language without a header: a question and a number."""
    for language in ("en", "de", "bn"):
        csv_file(folder / f"mgsm_{language}.tsv", (), [[text(language, i), i] for i in range(count)], separator="\t")
    return folder
