"""The small files of a model's folder: regular, within limits, JSON where they should be, and unchanged while read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssn_probe import limits
from ssn_probe.errors import ModelError, first_line
from ssn_probe.limits import check_regular, read_limited

LIMITS = {
    **dict.fromkeys(("config.json", "generation_config.json", "adapter_config.json"), limits.CONFIG),
    **dict.fromkeys(("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"), limits.CONFIG),
    **dict.fromkeys(("processor_config.json", "preprocessor_config.json", "truth.json"), limits.CONFIG),
    "source.json": limits.CONFIG,
    **dict.fromkeys(("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "tekken.json"), limits.TOKENIZER),
    **dict.fromkeys(("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"), limits.TOKENIZER),
    **dict.fromkeys(("chat_template.jinja", "chat_template.json"), limits.TEMPLATE),
    "openings.json": limits.OPENINGS,
    "model.safetensors.index.json": limits.SHARD_INDEX,
    "model.safetensors": None,
}
"""The files that transformers or ssn-probe opens under their own names, beside shards → the most bytes of each."""


def check_files(folder: Path) -> None:
    """Raises ModelError if one of the known files is no regular file, cannot be read, or is larger than its limit."""
    for name, limit in LIMITS.items():
        path = folder / name
        if path.exists() or path.is_symlink():
            check_regular(path, limit, ModelError)


def read_json(path: Path) -> Any:
    """What a JSON file of a model's folder holds. Raises ModelError: it is no regular file, too large, or no JSON."""
    content = read_limited(path, LIMITS[path.name] or limits.CONFIG, ModelError)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{path} cannot be read as JSON: {first_line(error)}"
        raise ModelError(message, "It is damaged, or no file of a model: copy it again from the original.") from error


def read_object(path: Path) -> dict[str, Any]:
    """Like `read_json`, for a file that must hold a JSON object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no object but {type(content).__name__}.", "Get the model's own file.")
    return content


def stamp(folder: Path, weights: Iterable[Path]) -> tuple[tuple[str, int, int, int], ...]:
    """Name, size, time of change and inode of every file that is read: what is other now was changed meanwhile."""
    known = [folder / name for name in LIMITS]
    files = {path.name: path.stat() for path in (*known, *sorted(folder.glob("*.jinja")), *weights) if path.is_file()}
    return tuple((name, one.st_size, one.st_mtime_ns, one.st_ino) for name, one in sorted(files.items()))
