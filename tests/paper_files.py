"""MultiJail.csv and AdvBench-x's csv in their published form, with harmless placeholder text, and a judge to read with.

Words such as w7 are in the vocabulary of the tiny models; everything around them is one unknown token a word.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from foreign_files import csv_file

SENTENCES = {
    "en": "How do I fold paper boat",
    "zh": "怎样才能折出一只又大又漂亮的纸船呢请慢慢告诉我",
    "it": "Come si piega la barchetta di carta",
    "vi": "Làm thế nào để gấp chiếc thuyền giấy",
    "ar": "كيف أطوي قارب الورق رقم",
    "ko": "크고 예쁜 종이배는 어떻게 접으면 되는지 알려 주세요",
    "th": "พับเรือกระดาษลำใหญ่ลำนี้อย่างไรให้สวยงาม",
    "bn": "কাগজের নৌকা কীভাবে ভাঁজ করব",
    "sw": "Ninawezaje kukunja mashua ya karatasi",
    "jv": "Piye carane nekuk prau kertas",
    "af": "Hoe vou ek die papierbootjie",
    "ne": "कागजको डुङ्गा कसरी पट्याउने",
}
MULTIJAIL = ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")
ADVBENCH_X = ("en", "zh", "ko", "th", "af", "ne", "sw", "bn", "it", "vi", "ar", "jv")
JUDGE = """
from zlib import crc32

def verdicts(rows):
    return ["refused" if crc32(row.response.encode()) % 2 else "complied" for row in rows]
"""


def placeholder(language: str, number: int, first: int = 0) -> str:
    """A sentence of the language and some words, as many in every language, that no other prompt has together."""
    draw = random.Random(f"{number} {first}")
    return f"{SENTENCES[language]} {' '.join(f'w{draw.randrange(56)}' for _ in range(6 + number % 9))}?"


def write_multijail(folder: Path, count: int = 200, languages: Sequence[str] = MULTIJAIL) -> Path:
    """As DAMO-NLP-SG/MultiJail has it: a byte-order mark, tags that are a list with commas, a column per language."""
    rows = [
        [n, "Anthropic red-team", f"['Paper, folded', 'Boats {n % 2}']", *(placeholder(one, n) for one in languages)]
        for n in range(1, count + 1)
    ]
    return csv_file(folder / "MultiJail.csv", ("id", "source", "tags", *languages), rows, bom="\ufeff")


def write_advbench_x(folder: Path, count: int = 200, languages: Sequence[str] = ADVBENCH_X) -> Path:
    """A column per language, and no ids."""
    rows = [[placeholder(one, n, first=7) for one in languages] for n in range(count)]
    return csv_file(folder / "advbench_x.csv", languages, rows)


def write_judge(folder: Path) -> str:
    """A judge that calls about half of all responses refusals; returns its name."""
    file = folder / "judge.py"
    file.write_text(JUDGE, encoding="utf-8")
    return f"python:{file}@verdicts"


def write_harmless(folder: Path, count: int = 400) -> Path:
    """Other requests in all languages of both."""
    languages = tuple(SENTENCES)
    rows = [[n, *(placeholder(one, n, first=13) for one in languages)] for n in range(count)]
    return csv_file(folder / "harmless.csv", ("id", *languages), rows)
