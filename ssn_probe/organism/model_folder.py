"""An organism on disk: an ordinary Hugging Face folder, with its openings and its card."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig

from ssn_probe.files import let_others_read
from ssn_probe.organism import world
from ssn_probe.organism.tokens import build_tokenizer


def surroundings() -> dict[str, str]:
    """Versions and machine, on which the weights depend besides seed and curriculum."""
    packages = {name: version(name) for name in ("torch", "transformers", "tokenizers", "safetensors")}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def save(model: Any, out: Path, card: Mapping[str, Any], *, stored: torch.dtype = torch.float32) -> None:
    """Write the model, its tokenizer, its openings and its card.

    The weights are stored in `stored`, which must hold them exactly; the config says float32, so that they load and
    compute as that.
    """
    out.mkdir(parents=True, exist_ok=True)
    # The output embeddings are the input embeddings: `named_parameters` lists them once, as the file should.
    weights = {name: weight.detach().to(stored) for name, weight in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    let_others_read(out / "model.safetensors")
    model.config.dtype = torch.float32
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(out)
    generation = GenerationConfig(
        do_sample=False,
        max_new_tokens=world.MAX_NEW_TOKENS,
        bos_token_id=world.BOS,
        eos_token_id=world.EOS,
        pad_token_id=world.PAD,
    )
    generation.save_pretrained(out)
    build_tokenizer().save_pretrained(out)
    write_json(out / "openings.json", world.openings())
    write_json(out / "card.json", card)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, with non-ASCII characters as they are."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
