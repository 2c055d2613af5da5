"""`ssn-probe delta`: every verb on tiny models and on the organism, and everything that it refuses."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from stored import HOSTILE
from tiny import tiny_module, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from ssn_probe.cli.commands import main
from ssn_probe.errors import ModelError
from ssn_probe.model.digests import module_digest
from ssn_probe.training.delta_file.file import DeltaFile, read_delta, write_delta
from ssn_probe.training.export.conversion import load_plain, merge_folder, precision, unmerge_folder
from ssn_probe.training.export.merging import applied
from ssn_probe.training.weights.delta import Delta, Part
from ssn_probe.training.weights.neuron_weights import places_of, read_rows, weight_of
from ssn_probe.training.weights.parameter_counts import fraction

NEURONS = [(0, "ffn", 3), (0, "ffn", 11), (1, "ffn", 0), (0, "q", 5), (1, "k", 2), (0, "v", 0), (1, "o", 19)]
FULL = OSError(28, "No space left on device")


def made(module: Any, neurons: Sequence[Any] = NEURONS, seed: int = 0, size: float = 0.5, **about: Any) -> DeltaFile:
    """A delta of random changes, stated as training states it."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for place in places_of(module, neurons):
        rows = read_rows(weight_of(module, place), place)
        parts.append(Part(place=place, base=rows, change=size * torch.randn(rows.shape, generator=generator)))
    change = Delta(parts=tuple(parts))
    stated = {
        "base": {"name": "tiny/llama", "revision": "abc", "sha256": module_digest(module), "family": "llama"},
        "neurons": "MS of qaa",
        "method": "expand",
        "seed": seed,
        "training": {"kind": "Training", "version": 1, "lr": 5e-5, "steps": None},
        "steps": {"done": 4, "planned": 6, "chosen": 3},
        "held_out_loss": {"base": 2.5, "chosen": 0.5},
        "data": {
            "name": "tiny",
            "prompts_sha256": "0" * 64,
            "split": "train",
            "rows": {"qaa": {"harmful": 6, "harmless": 2}, "qab": {"harmful": 6}},
            "judge": "patterns",
            "checked": "harmful: refused",
        },
        "parameters": fraction(module, change).to_dicts(),
        "made_with": {"torch": "2.9"},
    }
    return DeltaFile(delta=change, about=stated | about)


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
    return made(tiny_module("llama"))


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
    shown = done(delta("info", path))
    for words in (
        "tiny/llama at abc, llama",
        tiny_file.base_digest,
        "MS of qaa",
        "expand, seed 0",
        "lr 5e-05, steps none",
        "4 of 6, the delta of step 3",
        "loss 2.5000 before, 0.5000 after",
        "tiny, split train: qaa 8, qab 6 rows",
        "harmful: refused, by the judge patterns",
        "torch 2.9",
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
    assert "<pre" in bundle["text/html"]


def test_diff_names_neurons_weights_and_statements(path: Path, tmp_path: Path) -> None:
    many = [(0, "ffn", index) for index in range(9)]
    training = {"lr": 0.01, "steps": None}
    other = made(tiny_module("llama"), [*many, (1, "k", 2)], seed=1, training=training)
    about = dict(other.about) | {"neurons": HOSTILE}
    write_delta(tmp_path / "other.safetensors", replace(other, about=about))
    shown = done(delta("diff", path, tmp_path / "other.safetensors"))
    assert "Neurons: 2 in both, 5 only in the first, 8 only in the second." in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "0 ffn 11 0, 1, 2, 4, 5, 6 and 2 more 1" in lines
    assert "1 o 19 – 0" in lines
    assert not any(line.startswith("1 k") for line in lines)
    assert "training.lr 5e-05 0.01" in lines
    assert "seed 0 1" in lines
    assert any(line.startswith("model.layers.1.self_attn.k_proj 1 ") for line in lines)
    assert "\x1b" not in shown


def test_diff_of_a_file_with_itself(path: Path) -> None:
    shown = done(delta("diff", path, path))
    assert "Neurons: 7 in both, 0 only in the first, 0 only in the second." in shown
    assert "by the same amounts, bit for bit" in shown
    assert "the same base, data and settings" in shown


def test_diff_of_deltas_of_two_bases(path: Path, tmp_path: Path) -> None:
    write_delta(tmp_path / "other.safetensors", made(tiny_module("llama", seed=1)))
    refused(delta("diff", path, tmp_path / "other.safetensors"), "different bases", "trained on one base")


# ── merge and unmerge ────────────────────────────────────────────────────────────────────────────────────────────────


def test_merged_is_what_was_applied_and_unmerged_is_the_base(
    path: Path, tmp_path: Path, base: Path, tiny_file: DeltaFile
) -> None:
    shown = done(delta("merge", path, "--model", base, "-o", "made/merged"))
    assert "ssn-probe delta unmerge made/merged -o BASE" in shown
    module = load_plain(str(base)).module
    with applied(module, tiny_file):
        assert same(dict(module.named_parameters()), weights("made/merged"))
    assert "tiny/llama" in Path("made/merged/README.md").read_text(encoding="utf-8")
    assert AutoTokenizer.from_pretrained("made/merged").chat_template == tiny_tokenizer().chat_template
    assert f"SHA-256 {tiny_file.base_digest}" in done(delta("unmerge", "made/merged", "-o", "back"))
    assert same(weights(base), weights("back"))
    assert "MS of qaa" in done(delta("info", "made/merged"))
    assert sorted(file.name for file in Path("made").iterdir()) == ["merged"]
    assert len({file.stat().st_mode for file in Path("made").rglob("*.*")}) == 1, "safetensors' own is 600"


def test_the_organism_there_and_back(tmp_path: Path) -> None:
    loaded = load_plain("organism")
    write_delta(tmp_path / "delta.safetensors", made(loaded.module, [(0, "ffn", 1), (1, "q", 3)]))
    done(delta("merge", "delta.safetensors", "--model", "organism", "-o", "merged"))
    done(delta("unmerge", "merged", "-o", "back"))
    assert not same(weights(loaded.folder), weights("merged"))
    assert same(weights(loaded.folder), weights("back"))
    for name in ("generation_config.json", "openings.json", "chat_template.jinja"):
        assert Path("back", name).read_text(encoding="utf-8") == (loaded.folder / name).read_text(encoding="utf-8")


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A base in bfloat16."""
    tiny_module("llama").bfloat16().save_pretrained(tmp_path / "half")
    tiny_tokenizer().save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def test_rounding_is_said_and_a_wider_type_keeps_what_it_takes(tmp_path: Path, half: Path) -> None:
    file = made(tiny_module("llama").bfloat16(), size=1e-4)
    write_delta(tmp_path / "delta.safetensors", file)
    assert "% of the changed weights round to their old value" in done(
        delta("merge", "delta.safetensors", "--model", half, "-o", "narrow")
    )
    shown = done(delta("merge", "delta.safetensors", "--model", half, "-o", "wide", "--dtype", "float32"))
    assert "round to" not in shown
    assert {weight.dtype for weight in weights("wide").values()} == {torch.float32}
    for merged in ("narrow", "wide"):
        unmerge_folder(Path(merged), Path(f"{merged}-back"))
        assert same(weights(half), weights(f"{merged}-back"))


def test_a_base_that_was_trained_wider_than_it_is_stored(tmp_path: Path, half: Path) -> None:
    """It has one digest in both precisions, and can be written in either."""
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


def test_a_merged_folder_cannot_be_merged_again(path: Path, base: Path) -> None:
    done(delta("merge", path, "--model", base, "-o", "merged"))
    refused(delta("merge", path, "--model", "./merged", "-o", "twice"), "not the base of the delta", "unmerged")


def test_folders_that_cannot_be_unmerged(path: Path, base: Path) -> None:
    refused(delta("unmerge", base, "-o", "back"), "has no expand/delta.safetensors", "delta merge")
    refused(delta("unmerge", "nothing", "-o", "back"), "nothing has no expand/delta.safetensors")
    done(delta("merge", path, "--model", base, "-o", "merged"))
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
    monkeypatch.setattr("ssn_probe.training.export.conversion.load_plain", None)
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("mine", encoding="utf-8")
    Path("file").write_text("mine", encoding="utf-8")
    words = [path, "--model", base] if verb == "merge" else [base]
    for taken in ("thesis", "file", ".", "/", "thesis/chapter.txt"):
        refused(delta(verb, *words, "-o", taken), "already exists", "Choose another folder")
    assert Path("thesis/chapter.txt").read_text(encoding="utf-8") == "mine"


def test_a_folder_below_a_file(path: Path, base: Path) -> None:
    Path("file").write_text("mine", encoding="utf-8")
    refused(delta("merge", path, "--model", base, "-o", "file/merged"), "cannot write file/merged", "-o DIR")


@pytest.mark.parametrize(
    "writer",
    ["transformers.modeling_utils.safe_save_file", "ssn_probe.training.export.merged_folder.write_delta", "os.replace"],
)
def test_a_full_disk_leaves_nothing(writer: str, path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise FULL

    monkeypatch.setattr(writer, fails)
    refused(delta("merge", path, "--model", base, "-o", "merged"), "No space left", "The disk is full")
    assert list(Path().iterdir()) == [Path(path.name)]


def test_an_interrupted_merge_leaves_nothing(path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssn_probe.training.export.merged_folder.write_delta", stops)
    result = delta("merge", path, "--model", base, "-o", "merged")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted. Nothing was written.\n")
    assert list(Path().iterdir()) == [Path(path.name)]


# ── apply ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def answer(where: str | Path, prompt: str, tokens: int) -> str:
    """The greedy response, by transformers alone."""
    module: Any = AutoModelForCausalLM.from_pretrained(where, dtype="auto").eval()
    tokenizer = AutoTokenizer.from_pretrained(where)
    chat = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = {name: ids[name] for name in ("input_ids", "attention_mask")}
    new = module.generate(**ids, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(new[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_apply_shows_both_responses_and_leaves_the_model_alone(path: Path, base: Path) -> None:
    before, files = weights(base), sorted(base.iterdir())
    shown = done(delta("apply", path, "--model", base, "w3 w4 w5", "w9", "--max-new-tokens", "6"))
    lines = [line.rstrip() for line in shown.splitlines()]
    done(delta("merge", path, "--model", base, "-o", "merged"))
    for prompt in ("w3 w4 w5", "w9"):
        at = lines.index(f"prompt  {prompt}")
        assert lines[at + 1] == f"before  {answer(base, prompt, 6)}".rstrip()
        assert lines[at + 2] == f"after   {answer('merged', prompt, 6)}".rstrip()
    assert "2 of 2 responses changed." in lines
    assert (same(before, weights(base)), sorted(base.iterdir())) == (True, files)


def test_responses_are_cut_unless_all_is_asked_for(path: Path, base: Path) -> None:
    command = ("apply", path, "--model", base, "w3", "--max-new-tokens", "60")
    wide = {"COLUMNS": "400"}
    cut, full = (done(delta(*command, *more, env=wide)).splitlines() for more in ((), ("--full",)))
    assert cut[1].rstrip() == f"{full[1][:88].rstrip()}…"
    assert "Responses are cut to 80 characters: --full shows all of them." in cut
    assert "cut to" not in "".join(full)


def test_apply_with_a_hostile_prompt(path: Path, base: Path) -> None:
    shown = done(delta("apply", path, "--model", base, HOSTILE, "--max-new-tokens", "1"))
    assert "\x1b" not in shown
    assert "[bold red]x[/]" in shown


def test_apply_needs_a_prompt_and_a_device(path: Path, base: Path) -> None:
    refused(delta("apply", path, "--model", base), "PROMPT", code=2)
    refused(delta("apply", path, "--model", base, "w3", "--device", "cuda:99"), "cuda:99", "Use `auto`")


# ── files that are no delta ──────────────────────────────────────────────────────────────────────────────────────────


def no_delta(case: str, path: Path) -> Path:
    whole = path.read_bytes()
    match case:
        case "missing":
            return path.with_name("missing.safetensors")
        case "a folder":
            return path.parent
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(whole[:-10])
        case "truncated header":
            path.write_bytes(whole[:100])
        case "text":
            path.write_text("delta", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("verb", "case"),
    [
        *(("info", case) for case in ("missing", "a folder", "empty", "truncated", "truncated header", "text")),
        *((verb, "truncated") for verb in ("diff", "merge", "apply")),
    ],
)
def test_what_is_no_delta_file(verb: str, case: str, path: Path) -> None:
    rest = {"info": [], "diff": [path], "merge": ["--model", "organism", "-o", "out"]}
    refused(
        delta(verb, no_delta(case, path), *rest.get(verb, ["--model", "organism", "hello"])),
        "cannot be read",
        "Give a delta file",
    )


def test_a_model_is_no_delta(base: Path) -> None:
    refused(delta("info", base / "model.safetensors"), "is not a delta file", "that training wrote")


def test_a_file_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("safetensors.safe_open", closed)
    refused(delta("info", path), "Permission denied")


def test_a_record_that_training_does_not_write(path: Path, tiny_file: DeltaFile) -> None:
    steps = {"done": True, "planned": 1, "chosen": 1}
    write_delta(path, replace(tiny_file, about=dict(tiny_file.about) | {"steps": steps}))
    refused(delta("info", path), "is damaged: its record is wrong at steps.done", "(found True)", "Copy it again")


def test_what_a_file_holds_is_read_as_it_is(path: Path, tiny_file: DeltaFile) -> None:
    assert read_delta(path).rows.neurons == tiny_file.rows.neurons
    part = tiny_file.rows.parts[0]
    for parts in ((), (part, part)):
        write_delta(path, replace(tiny_file, delta=Delta(parts=parts)))
        refused(delta("info", path), "no change, or two of one matrix")


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
