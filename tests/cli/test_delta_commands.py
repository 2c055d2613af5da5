"""`ssn-probe delta`: every verb on tiny models and on the organism, and everything that it refuses."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from stored import HOSTILE
from tiny import tiny_module, tiny_tokenizer
from training_case import answer, file_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from ssn_probe.cli.commands import main
from ssn_probe.errors import ModelError
from ssn_probe.training.delta_file.file import DeltaFile, write_delta
from ssn_probe.training.export.conversion import load_plain, merge_folder, precision, unmerge_folder
from ssn_probe.training.export.merging import applied

NEURONS = [(0, "ffn", 3), (0, "ffn", 11), (1, "ffn", 0), (0, "q", 5), (1, "k", 2), (0, "v", 0), (1, "o", 19)]
FULL = OSError(28, "No space left on device")
CONVERSION = "ssn_probe.training.export.conversion"


def made(module: Any, **options: Any) -> DeltaFile:
    """A delta of a few steps that go far."""
    given = {"neurons": NEURONS, "lr": 0.3, "revision": "abc", "chosen": "MS of qaa"}
    return file_of(module, **given | options)


def delta(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(main, ["delta", *map(str, arguments)], **options)


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, *words: str, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) > 1
    for word in words:
        assert word in result.stderr, result.stderr


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are not wrapped where a word of the test stands, and nothing lands in the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def base(tiny_folder: Callable[[str], Path]) -> Path:
    return tiny_folder("llama")


@pytest.fixture(scope="module")
def tiny_file() -> DeltaFile:
    return made(tiny_module("llama"), held_out=0.2, evaluate_every=1)


@pytest.fixture
def path(tmp_path: Path, tiny_file: DeltaFile) -> Path:
    write_delta(tmp_path / "delta.safetensors", tiny_file)
    return tmp_path / "delta.safetensors"


def weights(where: str | Path) -> dict[str, torch.Tensor]:
    """Every weight of a folder, as transformers alone loads it."""
    return dict(AutoModelForCausalLM.from_pretrained(where, dtype="auto").named_parameters())


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """Bit for bit, dtypes included."""
    alike = (ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours)
    return ours.keys() == theirs.keys() and all(alike)


# ── info and diff ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_info_says_what_the_file_states(path: Path, tiny_file: DeltaFile) -> None:
    shown, steps, loss = done(delta("info", path)), tiny_file.about["steps"], tiny_file.about["held_out_loss"]
    for words in (
        "tiny/llama at abc, llama",
        tiny_file.base_digest,
        "MS of qaa",
        "expand, seed 0",
        "lr 0.3, ",
        f"{steps['done']} of 4, the delta of step {steps['chosen']}",
        f"loss {loss['base']:.4f} before, {loss['chosen']:.4f} after",
        "tiny, split train: qaa 6, qab 6 rows",
        "harmful: refused; harmless and lookalike: complied, by the judge patterns",
        f"torch {version('torch')}",
        "% of the model",
        f"{path}: {path.stat().st_size:,} bytes",
    ):
        assert words in shown, words
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["ffn"][1:4] == ["0–1", "3", "216"]
    assert rows["all"][1:4] == ["0–1", "7", "312"]


def test_info_of_a_hostile_file(path: Path, tiny_file: DeltaFile) -> None:
    base = dict(tiny_file.about["base"]) | {"name": HOSTILE, "revision": HOSTILE, "family": [HOSTILE]}
    data = dict(tiny_file.about["data"]) | {"name": HOSTILE, "rows": {HOSTILE: {HOSTILE: 1}}, "judge": {HOSTILE: 1}}
    about = {"base": base, "data": data, "neurons": HOSTILE, "seed": HOSTILE, "training": {HOSTILE: HOSTILE}}
    write_delta(path, replace(tiny_file, about=dict(tiny_file.about) | about | {"made_with": {HOSTILE: None}}))
    shown = done(delta("info", path))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert shown.count("[bold red]x[/]") >= 8


def test_a_delta_file_shows_itself_in_a_notebook(tiny_file: DeltaFile) -> None:
    bundle = tiny_file._repr_mimebundle_()
    assert "MS of qaa" in bundle["text/plain"]
    assert "<table" in bundle["text/html"]
    assert "MS of qaa" in bundle["text/html"]


def test_diff_names_neurons_weights_and_statements(path: Path, tmp_path: Path) -> None:
    many = [(0, "ffn", index) for index in range(9)]
    other = made(tiny_module("llama"), neurons=[*many, (1, "k", 2)], seed=1, lr=0.01, chosen=HOSTILE)
    write_delta(tmp_path / "other.safetensors", other)
    shown = done(delta("diff", path, tmp_path / "other.safetensors"))
    assert "Neurons: 2 in both, 5 only in the first, 8 only in the second." in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "0 ffn 11 0, 1, 2, 4, 5, 6 and 2 more 1" in lines
    assert "1 o 19 – 0" in lines
    assert not any(line.startswith("1 k") for line in lines)
    assert "training.lr 0.3 0.01" in lines
    assert "seed 0 1" in lines
    assert any(line.startswith("model.layers.1.self_attn.k_proj 1 ") for line in lines)
    assert "\x1b" not in shown


def test_diff_of_a_file_with_itself(path: Path) -> None:
    shown = done(delta("diff", path, path))
    assert "Neurons: 7 in both, 0 only in the first, 0 only in the second." in shown
    assert "by the same amounts, bit for bit" in shown
    assert "the same base, data and settings" in shown


# ── merge and unmerge ────────────────────────────────────────────────────────────────────────────────────────────────


def saved(module: Any, folder: str) -> Path:
    module.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return Path(folder)


@pytest.mark.parametrize("tied", [False, True])
def test_merged_is_what_was_applied_and_unmerged_is_the_base(tied: bool) -> None:
    module = tiny_module("llama", tie_word_embeddings=tied)
    base, tiny_file = saved(module, "./base"), made(module)
    write_delta(Path("d"), tiny_file)
    shown = done(delta("merge", "d", "-m", "./base", "-o", "made/merged"))
    assert "ssn-probe delta unmerge made/merged -o BASE" in shown
    with applied(module, tiny_file):
        assert same(dict(module.named_parameters()), weights("made/merged"))
    assert 'base_model: "tiny/llama"' in Path("made/merged/README.md").read_text(encoding="utf-8")
    assert AutoTokenizer.from_pretrained("made/merged").chat_template == tiny_tokenizer().chat_template
    assert f"SHA-256 {tiny_file.base_digest}" in done(delta("unmerge", "made/merged", "-o", "back"))
    assert same(weights(base), weights("back"))
    assert "MS of qaa" in done(delta("info", "made/merged"))
    assert sorted(file.name for file in Path("made").iterdir()) == ["merged"]
    assert len({file.stat().st_mode for file in Path("made").rglob("*.*")}) == 1, "safetensors' own is 600"


def test_the_organism_there_and_back(tmp_path: Path) -> None:
    loaded = load_plain("organism")
    write_delta(tmp_path / "delta.safetensors", made(loaded.module, neurons=[(0, "ffn", 1), (1, "q", 3)]))
    done(delta("merge", "delta.safetensors", "--model", "organism", "-o", "merged"))
    done(delta("unmerge", "merged", "-o", "back"))
    assert not same(weights(loaded.folder), weights("merged"))
    assert same(weights(loaded.folder), weights("back"))
    for name in ("generation_config.json", "openings.json", "chat_template.jinja"):
        assert Path("back", name).read_text(encoding="utf-8") == (loaded.folder / name).read_text(encoding="utf-8")


def test_rounding_is_said_and_a_wider_type_keeps_what_it_takes(tmp_path: Path) -> None:
    """And settings that transformers reads but refuses to write are copied."""
    module = tiny_module("llama").bfloat16()
    half, file = saved(module, "./half"), made(module, lr=3e-5)
    settings = '{"do_sample": false, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 2}'
    Path("half/generation_config.json").write_text(settings, encoding="utf-8")
    write_delta(tmp_path / "delta.safetensors", file)
    assert "% of the changed weights round to their old value" in done(
        delta("merge", "delta.safetensors", "--model", "./half", "-o", "narrow")
    )
    shown = done(delta("merge", "delta.safetensors", "--model", "./half", "-o", "wide", "--dtype", "float32"))
    assert "round to" not in shown
    assert "0.0 % of the changed weights" in Path("wide/README.md").read_text(encoding="utf-8")
    assert {weight.dtype for weight in weights("wide").values()} == {torch.float32}
    part = file.rows.parts[0]
    rows = weights("wide")[f"{part.module}.weight"][list(part.place.indices)]
    assert torch.equal(rows, part.base.float() + part.change)
    for merged in ("narrow", "wide"):
        unmerge_folder(Path(merged), Path(f"{merged}-back"))
        assert same(weights(half), weights(f"{merged}-back"))
        assert Path(merged, "generation_config.json").read_text(encoding="utf-8") == settings
    narrower = delta("merge", "delta.safetensors", "--model", "./half", "-o", "less", "--dtype", "float16")
    refused(narrower, "cannot represent")


def test_a_base_that_was_trained_wider_than_it_is_stored(tmp_path: Path) -> None:
    """It has one digest in both precisions, and can be written in either."""
    half = saved(tiny_module("llama").bfloat16(), "half")
    file = made(tiny_module("llama").bfloat16().float())
    assert (precision(file), precision(file, "bfloat16"), precision(file, "float64")) == (
        "float32",
        "bfloat16",
        "float32",
    )
    merge_folder(str(half), file, tmp_path / "merged", dtype="bfloat16")
    unmerge_folder(tmp_path / "merged", tmp_path / "back")
    assert same(weights(half), weights(tmp_path / "back"))
    with pytest.raises(ModelError, match="not the base"):
        merge_folder(str(half), made(tiny_module("llama").float()), tmp_path / "less", dtype="bfloat16")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_double_precision_is_the_same_base(dtype: torch.dtype, tmp_path: Path) -> None:
    module = tiny_module("llama").to(dtype)
    base, file = saved(module, "./base"), made(module)
    write_delta(tmp_path / "delta.safetensors", file)
    merge_folder("./base", file, Path("wide"), dtype="float64")
    assert {weight.dtype for weight in weights("wide").values()} == {torch.float64}
    unmerge_folder(Path("wide"), Path("back"))
    assert same(weights(base), weights("back"))
    assert "1 of 1" in done(delta("apply", "delta.safetensors", "w3", "-m", "./base", "--dtype", "float64"))
    other = load_plain("wide").module
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1e-12  # which float32 would round away
    other.save_pretrained("wide")
    with pytest.raises(ModelError, match="changed elsewhere"):
        unmerge_folder(Path("wide"), Path("none"))


@pytest.mark.parametrize("verb", ["merge", "apply"])
def test_another_base_is_refused(verb: str, path: Path, tiny_folder: Callable[[str], Path]) -> None:
    rest = ["-o", "merged"] if verb == "merge" else ["w3"]
    refused(delta(verb, path, "--model", tiny_folder("qwen3"), *rest), "not the base of the delta", "tiny/llama at abc")
    assert not Path("merged").exists()


def test_models_that_cannot_be_merged(path: Path) -> None:
    refused(delta("merge", path, "--model", "./nothing", "-o", "merged"), "no model folder", "config.json")
    refused(
        delta("merge", path, "--model", "organism", "-o", "merged", "--dtype", "float23"), "Unknown dtype", "float32"
    )
    assert list(Path().iterdir()) == [Path(path.name)]


def test_folders_that_cannot_be_unmerged_or_merged_again(path: Path, base: Path) -> None:
    refused(delta("unmerge", base, "-o", "back"), "has no expand/delta.safetensors", "delta merge")
    refused(delta("unmerge", "nothing", "-o", "back"), "nothing has no expand/delta.safetensors")
    done(delta("merge", path, "--model", base, "-o", "merged"))
    refused(delta("merge", path, "--model", "./merged", "-o", "twice"), "not the base of the delta", "unmerged")
    changed = AutoModelForCausalLM.from_pretrained("merged", dtype="auto")
    with torch.no_grad():
        changed.lm_head.weight[0, 0] += 1
    changed.save_pretrained("merged")
    refused(delta("unmerge", "merged", "-o", "back"), "also changed elsewhere")
    Path("merged/config.json").unlink()
    refused(delta("unmerge", "merged", "-o", "back"), "no config.json")
    assert not Path("back").exists()


@pytest.mark.parametrize("verb", ["merge", "unmerge"])
def test_no_folder_is_written_over(verb: str, path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is loaded."""
    monkeypatch.setattr(f"{CONVERSION}.load_plain", None)
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("mine", encoding="utf-8")
    Path("file").write_text("mine", encoding="utf-8")
    words = [path, "--model", base] if verb == "merge" else [base]
    for taken in ("thesis", "file", ".", "/", "thesis/chapter.txt"):
        refused(delta(verb, *words, "-o", taken), "already exists", "Choose another folder")
    assert Path("thesis/chapter.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("writer", "error"),
    [
        ("transformers.modeling_utils.safe_save_file", FULL),
        (f"{CONVERSION}.write_delta", FULL),
        ("os.replace", FULL),
        (f"{CONVERSION}.write_delta", KeyboardInterrupt()),
    ],
)
def test_a_full_disk_and_an_interruption_leave_nothing(
    writer: str, error: BaseException, path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(writer, fails)
    result = delta("merge", path, "--model", base, "-o", "merged")
    if error is FULL:
        refused(result, "No space left", "The disk is full")
    else:
        assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted. Nothing was written.\n")
    assert list(Path().iterdir()) == [Path(path.name)]


# ── apply ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_apply_shows_both_responses_and_leaves_the_model_alone(path: Path, base: Path) -> None:
    before, files = weights(base), sorted(base.iterdir())
    shown = done(delta("apply", path, "--model", base, "w3 w4 w5", "w9", HOSTILE, "--max-new-tokens", "6"))
    lines = [line.rstrip() for line in shown.splitlines()]
    done(delta("merge", path, "--model", base, "-o", "merged"))
    models = [AutoModelForCausalLM.from_pretrained(where, dtype="auto").eval() for where in (base, "merged")]
    for prompt in ("w3 w4 w5", "w9"):
        at = lines.index(f"prompt  {prompt}")
        ours, theirs = (answer(module, prompt, 6) for module in models)
        assert lines[at + 1 : at + 3] == [f"before  {ours}".rstrip(), f"after   {theirs}".rstrip()]
        assert ours != theirs
    assert "3 of 3 responses changed." in lines
    assert "\x1b" not in shown
    assert "[bold red]x[/]" in shown
    assert (same(before, weights(base)), sorted(base.iterdir())) == (True, files)


def test_a_delta_says_how_its_model_was_asked(path: Path, base: Path, tiny_file: DeltaFile) -> None:
    apply = ("apply", path, "--model", base, "w3", "--max-new-tokens", "2")
    assert "Note" not in done(delta(*apply))
    assert "in its chat template " in done(delta("info", path))
    about = dict(tiny_file.about) | {"asked": {"system_prompt": HOSTILE, "chat": "plain"}}
    write_delta(path, replace(tiny_file, about=about))
    assert "in the plain form, with the system prompt" in done(delta("info", path))
    shown = done(delta(*apply))
    assert "Note: the delta was trained on a model that was asked in the plain form, with the system prompt" in shown
    assert "; here it is asked in its chat template." in shown
    assert "\x1b" not in shown
    assert "Note" not in done(delta(*apply, "--chat", "plain", "--system", HOSTILE))
    done(delta("merge", path, "--model", base, "-o", "merged"))
    assert "The model was asked\nin the plain form, with the system prompt" in Path("merged/README.md").read_text(
        encoding="utf-8"
    )


def test_responses_are_cut_unless_all_is_asked_for(path: Path, base: Path) -> None:
    command = ("apply", path, "--model", base, "w3", "--max-new-tokens", "60")
    wide = {"COLUMNS": "400"}
    cut, full = (done(delta(*command, *more, env=wide)).splitlines() for more in ((), ("--full",)))
    assert cut[1].rstrip() == f"{full[1][:88].rstrip()}…"
    assert "Responses are cut to 80 characters: --full shows all of them." in cut
    assert "cut to" not in "".join(full)


def test_apply_needs_a_prompt_and_a_device(path: Path, base: Path) -> None:
    refused(delta("apply", path, "--model", base), "PROMPT", code=2)
    refused(delta("apply", path, "--model", base, "w3", "--device", "cuda:99"), "cuda:99", "Use `auto`")


# ── files that are no delta ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("verb", "case"),
    [
        *(("info", case) for case in ("missing", "a folder", "empty", "truncated", "truncated header", "text")),
        *((verb, "truncated") for verb in ("diff", "merge", "apply")),
    ],
)
def test_what_is_no_delta_file(verb: str, case: str, path: Path) -> None:
    rest: dict[str, list[Any]] = {"info": [], "diff": [path], "merge": ["--model", "organism", "-o", "out"]}
    whole = path.read_bytes()
    contents = {"empty": b"", "truncated": whole[:-10], "truncated header": whole[:100], "text": b"delta"}
    path.write_bytes(contents.get(case, whole))
    given = {"missing": path.with_name("missing.safetensors"), "a folder": path.parent}.get(case, path)
    command = delta(verb, given, *rest.get(verb, ["--model", "organism", "hello"]))
    what = "Cannot read" if case in ("missing", "a folder") else "is damaged"
    refused(command, what, "Give a delta file")


# ── the group ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from ssn_probe.cli.commands import main\n"
        "for verb in ('train', 'info', 'diff', 'merge', 'unmerge', 'apply'):\n"
        "    assert CliRunner().invoke(main, ['delta', verb, '--help']).exit_code == 0\n"
        "print([name for name in ('torch', 'polars', 'transformers', 'nnsight', 'rich') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_a_bug_says_that_it_is_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.training.delta_file.file.read_delta", lambda _: 1 / 0)
    refused(delta("info", path), "ZeroDivisionError", "bug in ssn-probe", code=70)
