"""A model under study: loaded once, frozen, wrapped for tracing, and identified by what can change a number.

nnsight is imported when a model is loaded, not before: it takes seconds and patches torch.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssn_probe.errors import ModelError, nearest
from ssn_probe.model.asking import NO_WISH, Asking, asking_notes, is_plain
from ssn_probe.model.coarse_products import coarse_products
from ssn_probe.model.config_file import own_code_notes
from ssn_probe.model.context_length import Limit, context_length, limits, sliding_window
from ssn_probe.model.families import Family, family_of
from ssn_probe.model.foreign_tokenizer import check_vocabulary, vocabulary_notes
from ssn_probe.model.freed_memory import keep_freed_memory
from ssn_probe.model.garbage import left_for_later
from ssn_probe.model.hosted import check_same_config, hosted_deployment
from ssn_probe.model.identity import identity_of
from ssn_probe.model.kept import NOTHING_KEPT, Kept
from ssn_probe.model.loading import (
    commit_of,
    files_here,
    locate,
    read_config,
    read_outline,
    read_tokenizer,
    read_weights,
    usable_device,
)
from ssn_probe.model.model_files import stamp
from ssn_probe.model.openings import Openings, declared_openings
from ssn_probe.model.placement import spread_of
from ssn_probe.model.quiet import quiet
from ssn_probe.model.ranks import Shards, over_ranks
from ssn_probe.model.templates import template_notes
from ssn_probe.model.text_config import text_config
from ssn_probe.model.torch_settings import computing_plainly
from ssn_probe.model.turn_ends import Turns, settle_generation
from ssn_probe.neurons import Site
from ssn_probe.remote.deployments import Deployment
from ssn_probe.remote.host import Host, find_host
from ssn_probe.remote.settings import check_settings

if TYPE_CHECKING:
    from ssn_probe.model.workers import Workers
    from ssn_probe.remote.calls import Calls

BODIES = "ssn_probe.tracing.bodies"
"""The package whose source travels to a host."""
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A frozen model in evaluation mode, its tokenizer, and where its neurons are.

    `identity` holds what changes a number (weights, tokenizer, template, dtype, attention, `coarse_products`), and
    neither device nor path. `model` is an nnsight `TransformersModel`, None where the weights were left where they are;
    `openings` are those the model's folder declares, per language, if it does; `context` is how many tokens a prompt
    and its response may have together, where the config says it, and `limits` is all that a long prompt can exceed.
    `turns`: how its responses end; `template_notes`: how it is asked: which of several chat templates was
    taken, on which day, with which system prompt.
    `host` and `deployment`: where it runs if that is not this machine. `model` then has no weights, and `calls` is what
    it is asked through. `shards`: the same where `model` holds only this process's part of the weights. `spread`: over
    what the model is spread, where it is not whole on `device`. `workers`: other processes that have it, too.
    `weight_bytes`: the memory that its weights take. `window`: see `sliding_window`. `is_plain`: is it asked in the
    plain form? `kept`: what earlier runs kept of it and of texts.
    """

    name: str
    path: str
    identity: dict[str, Any]
    model: Any
    tokenizer: Any
    family: Family
    openings: Mapping[str, Openings] | None
    device: str
    n_layers: int
    widths: dict[Site, int]
    vocabulary: int
    context: int | None
    limits: tuple[Limit, ...]
    turns: Turns
    template_notes: tuple[str, ...] = ()
    weight_bytes: int = 0
    window: tuple[int, int, int] | None = None
    is_plain: bool = False
    kept: Kept = NOTHING_KEPT
    host: Host | None = None
    deployment: Deployment | None = None
    calls: "Calls | None" = None
    shards: Shards | None = None
    spread: str = ""
    workers: "Workers | None" = None

    @property
    def place(self) -> str:
        """Where it runs: the device or devices, or the host's address."""
        return (self.spread or self.device) if self.host is None else self.host.url

    @property
    def can_run(self) -> bool:
        """Is there a model, and not only what is known of it?"""
        return self.model is not None

    @property
    def pad_id(self) -> int:
        """The token in front of shorter rows of a batch, which is masked."""
        return self.turns.pad_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end a response."""
        return self.turns.ids


@over_ranks
@left_for_later()
@computing_plainly()
def load_subject(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    weights: bool = True,
    remote: bool | str = False,
    deployment: Deployment | None = None,
    asking: Asking = NO_WISH,
) -> Subject:
    """Load a model to be studied.

    Args:
        name: `"organism"` (the embedded model), `"smollm2"` (once it is fetched), a folder in Hugging Face layout, or a
            name on the hub.
        dtype: `auto` (as stored), float32, bfloat16, float16 or float64.
        device: `auto` (cuda where there is one, else cpu), any torch device, or `balanced`: the layers over all GPUs,
            and what they do not hold in the processor's memory (`device_map` of transformers).
        weights: False for a subject that cannot run but is otherwise the same, `identity` included: what was measured
            of it before can be found and read.
        remote: True for the host that `NDIF_HOST` or nnsight's configuration names, or its address: the model runs
            there, in the precision and revision that the host chose, and no weights are read here. A folder needs no
            weights then; without them `identity` names the folder and the host in place of a digest.
        deployment: of the host, this one, rather than the one that it runs.
        asking: the system prompt, and the plain form for models without a chat template.

    Generation is greedy: sampling settings and penalties that the checkpoint proposes are dropped. A response ends
    with any end token of the generation config, the tokenizer or the chat template; `turns` holds all of this.

    Raises:
        ModelError: any reason for which the model cannot be studied, with what to do about it.
        RemoteError: any for which the host cannot be used.
    """
    check_settings(remote, device=device)
    where = locate(name, weights=weights and not remote)
    device = usable_device(device)
    if dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}.", nearest(dtype, DTYPES))
    host = find_host(remote) if remote else None
    if host is not None:
        deployment = deployment or hosted_deployment(host, where, dtype)
        device, dtype = "cpu", deployment.dtype if deployment.dtypes else dtype
    before = _stamp(where)
    config = read_config(where, None if deployment is None else deployment.revision, weights=not remote)
    if host is not None and deployment is not None:
        check_same_config(where, config, host, deployment)
    family = family_of(config)
    tokenizer = read_tokenizer(where, commit_of(config), asking)
    vocabulary = text_config(config).vocab_size
    check_vocabulary(tokenizer, vocabulary)
    read = read_weights if weights and host is None else read_outline
    module = read(where, config, family, dtype, device)
    keep_freed_memory()
    device, spread = spread_of(module, family, device)
    turns = settle_generation(where, module, tokenizer)
    identity = identity_of(name, where, host, module, tokenizer, family, turns, asking)
    identity |= {} if host is not None else coarse_products(device, identity["dtype"])
    if _stamp(where) != before:
        raise ModelError(f"The files in {where} changed while they were read.", "Run again when they are complete.")
    model, calls = _traced(module, tokenizer, host, deployment) if weights else (None, None)
    return Subject(
        name=name,
        path=where,
        identity=identity,
        model=model,
        tokenizer=tokenizer,
        family=family,
        openings=declared_openings(where, tokenizer),
        device=device,
        spread=spread,
        n_layers=family.depth(module),
        widths=family.widths(module),
        vocabulary=vocabulary,
        context=context_length(config),
        limits=limits(config, tokenizer),
        turns=turns,
        template_notes=_notes(where, config, tokenizer, asking),
        weight_bytes=sum(one.numel() * one.element_size() for one in module.parameters()),
        window=sliding_window(config),
        is_plain=is_plain(tokenizer),
        host=host,
        deployment=deployment,
        calls=calls,
    )


def _traced(
    module: Any, tokenizer: Any, host: Host | None, deployment: Deployment | None
) -> tuple[Any, "Calls | None"]:
    """nnsight's wrapper of a module, and what a module without weights is asked through."""
    from nnsight import TransformersModel

    own = copy.deepcopy(tokenizer)  # it is changed
    if host is None or deployment is None:
        # else the pipeline in it moves the model to the first GPU, wherever it was loaded
        place = {} if getattr(module, "hf_device_map", None) else {"device": module.device}
    else:
        place = {"device": "meta"}
    with quiet(errors=False):  # that a model which also reads images is not for text alone
        model = TransformersModel(module, tokenizer=own, task="text-generation", **place)
    if host is None or deployment is None:
        return model, None
    from ssn_probe.remote.calls import Calls

    return model, Calls(host, deployment, model, BODIES)


def _notes(where: str, config: Any, tokenizer: Any, asking: Asking) -> tuple[str, ...]:
    """What a reader must know of template and tokenizer, and of code that is left out."""
    return (
        *(() if asking.chat else template_notes(where, tokenizer)),
        *asking_notes(tokenizer),
        *vocabulary_notes(tokenizer, text_config(config).vocab_size),
        *own_code_notes(config),
    )


def _stamp(where: str) -> object:
    return stamp(Path(where), files_here(where)) if Path(where).is_dir() else None
