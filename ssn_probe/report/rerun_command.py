"""The command that runs a past run again, as text that a shell takes."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ssn_probe.data.sources import SHIPPED
from ssn_probe.errors import SSNProbeError
from ssn_probe.model.fetched import FETCHED
from ssn_probe.model.loading import ORGANISM
from ssn_probe.spec import Recipe
from ssn_probe.spec.discovery import find_recipe, list_recipes
from ssn_probe.study.plan import limited
from ssn_probe.text import listing


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """`where`: the folder in which the command means what it meant, in a sentence."""

    where: str
    command: str


def rerun_command(recipe: Recipe, manifest: Mapping[str, Any]) -> Rerun:
    """By the name of a shipped recipe, where that gives this very recipe; else by the run's recipe.json.

    A recipe file of the user's is not executed to find out.
    """
    asked = manifest["options"]
    limit = asked.get("limit")
    options = {
        "--dtype": None if asked.get("dtype", "auto") == "auto" else asked["dtype"],
        "--batch-size": asked.get("batch_size"),
        "--engine": _engine(asked.get("engine")),
        "--host": (manifest.get("remote") or {}).get("host"),
    }
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    words = ["--remote", *words] if options["--host"] else words
    if _is_shipped(recipe, manifest["arguments"], limit):
        given = [word for name, text in manifest["arguments"].items() for word in ("-T", f"{name}={text}")]
        most = ["--limit", str(limit)] if limit is not None else []
        where = "In the folder where it was run, since paths may be relative to it:" if given else "Anywhere:"
        return Rerun(where=where, command=shlex.join(["ssn-probe", "run", recipe.name, *given, *most, *words]))
    where = "In the folder of the run, which holds this page; the new run appears beside it:"
    return Rerun(where=where, command=shlex.join(["ssn-probe", "run", "recipe.json", *words, "-o", ".."]))


def shared_rerun(recipe: Recipe, manifest: Mapping[str, Any]) -> Rerun:
    """The same for those who have only the data set of a run: without files of the machine where it was made."""
    known = rerun_command(recipe, manifest)
    where = "Anywhere:" if known.command.split()[2] == recipe.name else BESIDE
    needed = list(dict.fromkeys(_not_shared(recipe, manifest)))
    if not needed:
        return Rerun(where=where, command=known.command)
    names = "under this name" if len(needed) == 1 else "under these names"
    them = "it" if len(needed) == 1 else "them"
    place = f"In this folder, with {them} {names} in it" if where == BESIDE else f"In a folder that has {them} {names}"
    missing = f"The command needs what is not part of this data set: {listing(needed)}."
    return Rerun(where=f"{missing} {place}:", command=known.command)


BESIDE = "In this folder; the new run appears beside it:"


def _not_shared(recipe: Recipe, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a run read from files: prompts that neither come with ssn-probe nor from the hub, a model, a judge."""
    for one in manifest["data"]:
        beside = one.get("harmless_set") or {}
        for source, made in ((one["source"], one), (one.get("harmless"), beside)):
            if source and source not in SHIPPED and not made.get("revision"):
                yield f"the prompts of {source}"
    if "digest" in manifest["model"] and recipe.model.partition(":")[0] not in (ORGANISM, *FETCHED):
        yield f"the model {recipe.model}"
    if recipe.judge and recipe.judge.startswith(("python:", "file:")):
        yield f"the judge {recipe.judge}"


def _is_shipped(recipe: Recipe, arguments: Mapping[str, str], limit: int | None) -> bool:
    if recipe.name not in {listing.name for listing in list_recipes()}:
        return False
    try:
        return limited(find_recipe(recipe.name, arguments), limit) == recipe
    except SSNProbeError:
        return False


def _engine(identity: Mapping[str, Any] | None) -> str | None:
    """What `--engine` takes for an engine whose identity the manifest holds."""
    if not identity:
        return None
    options = ",".join(f"{name}={value}" for name, value in identity["options"].items())
    return f"{identity['name']}:{options}" if options else identity["name"]
