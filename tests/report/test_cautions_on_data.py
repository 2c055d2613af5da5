"""Notes on the prompts: repeated, or the same in several languages."""

from pathlib import Path

from prompt_rows import load, make_rows, write

from ssn_probe.report.cautions_on_data import contradictory, paired_across, repeats, unparallel, untranslated


def test_parallel_prompts_need_no_note(tmp_path: Path) -> None:
    prompts = load(write(tmp_path, make_rows()))
    assert repeats(prompts) == untranslated(prompts) == []


def test_a_prompt_that_is_repeated_in_another_spelling_is_no_new_evidence(tmp_path: Path) -> None:
    texts = {"evaluate-harmful-1": "How so?", "evaluate-harmful-2": "how  so"}
    rows = [row | {"text": f"{row['language']} {texts.get(row['prompt_id'], row['text'])}"} for row in make_rows()]
    said = (
        f"{tmp_path.name}: some harmful evaluate prompts have the same text "
        "(en: 2 texts in 3 prompts, de: 2 texts in 3 prompts); repeated prompts are no new evidence: "
    )
    assert repeats(load(write(tmp_path, rows))) == [f"{said}intervals and p-values are too small"]
    together = [row | {"cluster": row["split"]} for row in rows]
    assert repeats(load(write(tmp_path, together))) == [
        f"{said}they share a cluster, which intervals and p-values count once"
    ]


def test_a_prompt_that_was_not_translated_is_noted(tmp_path: Path) -> None:
    rows = [
        row | ({"text": f"Same {row['prompt_id']}"} if "harmful-1" in row["prompt_id"] else {}) for row in make_rows()
    ]
    assert untranslated(load(write(tmp_path, rows)))[0].startswith(
        f"{tmp_path.name}: 2 texts of 34 are the same in several languages (de and en): "
    )


def test_under_another_id_it_is_not_translated_either(tmp_path: Path) -> None:
    rows = make_rows()
    other = next(row for row in rows if row["language"] == "de" and row["prompt_id"] == "evaluate-harmful-2")
    other["text"] = next(row["text"] for row in rows if row["language"] == "en").upper() + "."
    assert "1 text of 35 is the same in several languages" in untranslated(load(write(tmp_path, rows)))[0]


def test_ids_that_are_not_parallel_are_counted(tmp_path: Path) -> None:
    rows = [row | {"prompt_id": f"{row['language']}-{row['prompt_id']}"} for row in make_rows(cluster=None)]
    lines = unparallel(load(write(tmp_path, rows)))
    assert len(lines) == 1
    assert "identify 18 of 18 (de 9, en 9); evaluate 18 of 18 (de 9, en 9)" in lines[0]
    assert unparallel(load(write(tmp_path / "parallel", make_rows()))) == []


def test_a_text_that_is_harmful_and_harmless_is_noted(tmp_path: Path) -> None:
    rows = make_rows()
    next(row for row in rows if row["context"] == "harmless")["text"] = rows[0]["text"] + " "
    (note,) = contradictory(load(write(tmp_path, rows)))
    assert "harmful under one prompt_id and harmless under another: 1 text (en)" in note
    assert contradictory(load(write(tmp_path, make_rows()))) == []


def test_pairs_that_two_sets_numbered_alike_are_noted(tmp_path: Path) -> None:
    mine, theirs = (write(tmp_path / name, make_rows(pair_id=7)) for name in ("mine", "theirs"))
    (note,) = paired_across(load(mine, harmless=str(theirs)))
    assert "have 1 pair_id in common" in note
    assert paired_across(load(mine)) == []
