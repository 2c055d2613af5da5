"""Tasks of lm-eval as files, with their data: choices, whole texts (rolling windows) and generated replies."""

import json
import random
from pathlib import Path

import pytest

CHOICES = """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
TEXTS = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - metric: word_perplexity
"""
REPLIES = """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{reply}}"
generation_kwargs:
  until: ["w5"]
  max_gen_toks: 6
metric_list:
  - metric: exact_match
"""
KINDS = {"choose_qab": CHOICES, "texts_qab": TEXTS, "reply_qab": REPLIES}


def write_tasks(folder: Path, patched: pytest.MonkeyPatch, words: tuple[str, ...] = ()) -> list[str]:
    """The paths of the tasks' files. What `datasets` keeps of them is kept in the same folder."""
    patched.setattr("datasets.config.HF_DATASETS_CACHE", folder / "kept")
    draw = random.Random(0)
    known = words or tuple(f"w{number}" for number in range(56))

    def text(length: int) -> str:
        return " ".join(draw.choice(known) for _ in range(length))

    rows = [
        {"question": text(3 + number), "choices": [text(2), text(1)], "answer": number % 2, "reply": text(1)}
        for number in range(7)
    ]
    data = folder / "data.json"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for name, kind in KINDS.items():
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files: {data}\ntest_split: train\n"
        (folder / f"{name}.yaml").write_text(head + kind, encoding="utf-8")
    return [str(folder / f"{name}.yaml") for name in KINDS]
