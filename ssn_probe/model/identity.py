"""What identifies a model in keys: all that can change a number, and neither its device nor its path."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssn_probe.files import sha256
from ssn_probe.model.asking import Asking, asking_identity
from ssn_probe.model.digests import folder_digest, text_digest, tokenizer_digest
from ssn_probe.model.families import BUILT_IN, Family
from ssn_probe.model.loading import commit_of, files_here
from ssn_probe.model.templates import DAY, on_one_day
from ssn_probe.model.turn_ends import Turns
from ssn_probe.remote.host import Host


def _source(name: str, where: str, host: Host | None, module: Any) -> dict[str, Any]:
    """Which weights: those of files here, of a commit on the hub, or else of a folder that only a host can read."""
    folder, openings = Path(where), Path(where) / "openings.json"
    if not folder.is_dir():
        return {"id": name, "commit": commit_of(module.config)}
    declared = {"openings_sha256": sha256(openings) if openings.is_file() else None}
    if host is not None and not files_here(where):
        return {"folder": where, "host": host.url, "config_sha256": sha256(folder / "config.json")} | declared
    if not files_here(where):  # to plan with, and not to run
        return {"config_sha256": sha256(folder / "config.json")} | declared
    return {"digest": folder_digest(folder)} | declared


def identity_of(
    name: str,
    where: str,
    host: Host | None,
    module: Any,
    tokenizer: Any,
    family: Family,
    turns: Turns,
    asking: Asking,
) -> dict[str, Any]:
    """What of a model changes a number.

    What a model does not have is left out, so that what was measured of it before such a thing was known stays its own.
    """
    special = {"bos": tokenizer.bos_token_id, "eos": list(turns.ids), "pad": turns.pad_id}
    if printed := [one for one in turns.ids if one not in tokenizer.all_special_ids]:
        special["printed_ends"] = printed  # they were once part of a response's text
    dated = on_one_day(tokenizer.get_chat_template()) != tokenizer.get_chat_template()
    return (
        _source(name, where, host, module)
        | row_of(family)
        | {
            "family": family.name,
            "dtype": str(module.dtype).removeprefix("torch."),
            "attention": module.config._attn_implementation,
            "chat_template_sha256": text_digest(json.dumps(tokenizer.chat_template)),
            "tokenizer_sha256": tokenizer_digest(tokenizer),
            "special_tokens": special,
        }
        | _template_tokens(tokenizer, special)
        | ({"template_day": str(DAY)} if dated else {})
        | asking_identity(tokenizer, asking)
    )


OF_NO_NUMBER = ("examples", "rotates_in_single")
"""Fields of a row that change none."""


def row_of(family: Family) -> dict[str, Any]:
    """What a user's row says beyond the defaults: two rows of one name read other neurons of the same files."""
    if family in BUILT_IN:
        return {}
    usual = asdict(Family(name=family.name))
    own = {name: value for name, value in asdict(family).items() if value != usual[name] and name not in OF_NO_NUMBER}
    return {"family_row": own} if own else {}


def _template_tokens(tokenizer: Any, special: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens that the chat template writes by their role, unless the ids of `special_tokens` say which they are."""
    ids = {"bos_token": special["bos"], "eos_token": next(iter(special["eos"]), None), "pad_token": special["pad"]}
    written = {
        role: str(token)
        for role, token in tokenizer.special_tokens_map.items()
        if role in str(tokenizer.chat_template)
        and (role not in ids or tokenizer.convert_tokens_to_ids(str(token)) != ids[role])
    }
    return {"template_tokens": written} if written else {}
