"""Facts of a model are kept under all that decides them, and the model is opened when something has to run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ssn_probe.errors import ModelError
from ssn_probe.model import kept, known
from ssn_probe.model.asking import Asking
from ssn_probe.model.chat import encode
from ssn_probe.model.families import register_family
from ssn_probe.model.kept import Kept, kept_of
from ssn_probe.model.known import KnownSubject, facts_of, find_subject, keep_facts
from ssn_probe.model.loading import read_config, read_outline
from ssn_probe.model.shape import Shape, shape_of
from ssn_probe.model.subject import Subject, load_subject

ASKED = Asking(system="Answer briefly.")


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny model of its own, which a test may change."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def found(folder: Path, tmp_path: Path, **options: Any) -> Subject:
    """A subject that is found and kept, as a run does it."""
    subject = find_subject(str(folder), cache=tmp_path / "cache", **options)
    keep_facts(subject, options.get("dtype", "auto"))
    return subject


def state(folder: Path, asking: Asking = Asking()) -> str:  # noqa: B008 (frozen)
    path = kept_of(Path("cache"), str(folder), str(folder), asking, writes=False).folder
    assert path is not None
    return path.name


def test_a_known_model_is_the_loaded_one_and_is_opened_when_asked_for(folder: Path, tmp_path: Path) -> None:
    first, again = found(folder, tmp_path), found(folder, tmp_path)
    assert not isinstance(first, KnownSubject)
    assert isinstance(again, KnownSubject)
    for one in fields(Subject):
        if one.name not in ("model", "tokenizer", "kept"):
            assert getattr(again, one.name) == getattr(first, one.name), one.name
    assert "subject" not in vars(again.opening)
    assert again.model is again.opening.subject.model is replace(again, device="elsewhere").model
    assert encode(again, ["a word", "another"]) == encode(first, ["a word", "another"])


def test_an_explicit_dtype_that_is_the_stored_one_is_known(folder: Path, tmp_path: Path) -> None:
    dtype = found(folder, tmp_path).identity["dtype"]
    assert isinstance(found(folder, tmp_path, dtype=dtype), KnownSubject)
    other = "float32" if dtype == "float64" else "float64"
    assert not isinstance(found(folder, tmp_path, dtype=other), KnownSubject)


def test_without_weights_the_facts_are_the_same_and_nothing_runs(folder: Path, tmp_path: Path) -> None:
    first = found(folder, tmp_path)
    outline = found(folder, tmp_path, weights=False, writes=False)
    assert isinstance(outline, KnownSubject)
    assert not outline.can_run
    assert outline.identity == first.identity
    assert outline.tokenizer.vocab_size == first.tokenizer.vocab_size
    assert outline.model is None


def test_the_shape_of_a_loaded_model_is_that_of_its_outline(folder: Path, tmp_path: Path) -> None:
    subject = found(folder, tmp_path)
    outline = read_outline(subject.path, read_config(subject.path), subject.family, subject.identity["dtype"], "cpu")
    for size in known.SIZES:
        shape = subject.kept.find(known.SHAPE, [subject.identity["dtype"], size])
        assert Shape(**shape | {"windows": tuple(shape["windows"])}) == shape_of(outline, subject.family, size)


def test_what_is_looked_at_keeps_nothing(folder: Path, tmp_path: Path) -> None:
    encode(found(folder, tmp_path, weights=False), ["a word"])
    assert not (tmp_path / "cache").exists()


FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@pytest.mark.parametrize("name", [*FILES, "chat_template.jinja", "openings.json", "special_tokens_map.json"])
def test_another_byte_in_any_file_is_another_state(folder: Path, name: str) -> None:
    before = state(folder)
    assert state(folder) == before
    path = folder / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
    assert state(folder) != before


def test_a_template_in_the_folder_of_templates_is_part_of_the_state(folder: Path) -> None:
    before = state(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert state(folder) != before


VERSION = kept.metadata.version


def _other_version(changed: str, package: str) -> str:
    return "0.0.1" if package == changed else VERSION(package)


def test_versions_source_and_asking_are_part_of_the_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [state(folder), state(folder, ASKED), state(folder, Asking(chat="plain"))]
    for package in ("ssn-probe", "transformers", "tokenizers", "torch", "jinja2"):
        with monkeypatch.context() as patched:
            patched.setattr(kept.metadata, "version", partial(_other_version, package))
            states.append(state(folder))
    monkeypatch.setattr(kept, "source_digest", lambda: "other")
    states.append(state(folder))
    assert len(set(states)) == len(states)


def test_a_changed_template_changes_what_is_known(folder: Path, tmp_path: Path) -> None:
    first = found(folder, tmp_path)
    before = encode(first, ["a word"])
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = first.tokenizer.chat_template
    if (folder / "chat_template.jinja").exists():
        (folder / "chat_template.jinja").write_text("a b " + template, encoding="utf-8")
    else:
        config["chat_template"] = "a b " + template
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    other = found(folder, tmp_path)
    assert not isinstance(other, KnownSubject)
    assert encode(other, ["a word"]) != before
    assert isinstance(found(folder, tmp_path), KnownSubject)


def test_a_damaged_fact_is_read_again(folder: Path, tmp_path: Path) -> None:
    found(folder, tmp_path)
    path = _facts(folder, tmp_path)
    path.write_text(path.read_text(encoding="ascii").replace('"n_layers": ', '"n_layers": 1'), encoding="ascii")
    assert not isinstance(found(folder, tmp_path), KnownSubject)
    assert isinstance(found(folder, tmp_path), KnownSubject)


def _facts(folder: Path, tmp_path: Path) -> Path:
    one = kept_of(tmp_path / "cache", str(folder), str(folder), Asking(), writes=False)
    return one._path(known.KIND, "auto")


def test_facts_that_are_not_the_models_are_an_error_when_it_is_opened(folder: Path, tmp_path: Path) -> None:
    first = found(folder, tmp_path)
    first.kept.keep(known.KIND, "auto", facts_of(first) | {"vocabulary": 7})
    again = found(folder, tmp_path)
    assert again.vocabulary == 7
    with pytest.raises(ModelError, match="changed during the run"):
        _ = again.model


def test_weights_that_change_before_the_model_is_opened_are_an_error(folder: Path, tmp_path: Path) -> None:
    found(folder, tmp_path)
    again = found(folder, tmp_path)
    other = load_subject(str(folder), dtype="float32").model._module
    other.get_input_embeddings().weight.data += 1
    other.save_pretrained(folder)
    with pytest.raises(ModelError, match="changed during the run"):
        _ = again.model


def test_facts_read_while_files_change_are_not_kept(folder: Path, tmp_path: Path) -> None:
    subject = find_subject(str(folder), cache=tmp_path / "cache")
    (folder / "README.md").write_text("now", encoding="utf-8")
    keep_facts(subject, "auto")
    assert not (tmp_path / "cache").exists()


def test_a_family_that_a_user_added_is_loaded_at_once(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own_family"}), encoding="utf-8")
    register_family("own_family")
    try:
        assert not known._can_be_kept(str(folder))
    finally:
        del known.FAMILIES["own_family"]


def test_a_missing_model_is_the_error_of_loading(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model folder"):
        find_subject(str(tmp_path / "none"), cache=tmp_path / "cache")


def test_a_value_is_computed_once_and_again_where_it_is_damaged(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute() -> list[Any]:
        asked.append(1)
        return [("é\ud800", 1)]

    def value() -> Any:
        return Kept(folder=tmp_path).value("kind of value", ["given"], compute)

    assert value() == value() == [["é\ud800", 1]]
    assert len(asked) == 1
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert value() == [["é\ud800", 1]]
    assert len(asked) == 2
    path.write_bytes(b"\xff")
    assert value() == value()
    assert len(asked) == 3
    assert Kept(folder=tmp_path).value("kind of value", ["other"], lambda: 1) == 1
    assert Kept().value("kind of value", ["given"], lambda: 2) == 2
