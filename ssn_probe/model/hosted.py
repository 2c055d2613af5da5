"""A model that a host runs: which deployment it is, and whether the config that was read here is the host's."""

from collections.abc import Mapping
from typing import Any

from ssn_probe.errors import ModelError, RemoteError
from ssn_probe.model.families import FAMILIES
from ssn_probe.model.refused_families import refused
from ssn_probe.model.text_config import raw_text_config, text_config
from ssn_probe.remote.deployments import Deployment, find_deployment, why_unfit
from ssn_probe.remote.host import Host
from ssn_probe.text import counted

COMPARED = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "hidden_act",
    "attention_bias",
    "mlp_bias",
    "rms_norm_eps",
    "tie_word_embeddings",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "rope_parameters",
    "quantization_config",
)
"""The fields of a config that decide what is computed, and mean the same in every version of transformers."""
OF_THE_WHOLE = ("model_type", "tie_word_embeddings", "quantization_config")
"""Those of them that do not stand in the config of the text model, where that is nested."""


def hosted_deployment(host: Host, where: str, dtype: str) -> Deployment:
    """The deployment that runs a model on a host, in the dtype asked for, if one is."""
    found = find_deployment(host, where)
    if dtype not in ("auto", found.dtype):
        raise ModelError(
            f"{host.url} runs {where} in {found.dtype}, not in {dtype}.",
            "Leave --dtype out: the host chooses it, and it is part of what results are kept under.",
        )
    return found


def in_words(one: Deployment) -> str:
    """What runs, and how long a job may take."""
    limit = "" if one.timeout is None else f"; a job may take {one.timeout:.0f} s"
    return f"{one.dtype}, revision {one.revision or 'main'}, {counted(one.running, 'replica')}{limit}"


def why_unsupported(one: Deployment) -> str | None:
    """Why a hosted model cannot be studied; None if it can, as far as its host tells."""
    kind = one.config.get("model_type")
    if (reason := why_unfit(one)) is not None:
        return f"hosted {reason}"
    if kind is not None and kind not in FAMILIES:
        reason = refused().get(str(kind))
        return f"the family {kind!r} is not studied" + (f": {reason}" if reason else "")
    return None


def check_same_config(where: str, ours: Any, host: Host, deployment: Deployment) -> None:
    """Raises RemoteError, naming the fields, where a host's config is not that which was read here.

    A host that tells no config is believed.
    """
    theirs = deployment.config
    fields = [name for name in COMPARED if theirs and _value(ours, name) != _theirs(ours, theirs, name)]
    if not fields:
        return
    name = fields[0]
    also = f", and {', '.join(fields[1:])}" if fields[1:] else ""
    raise RemoteError(
        f"The model {where!r} on {host.url} is not the one here: its {name} is {_theirs(ours, theirs, name)!r:.80}, "
        f"and here it is {_value(ours, name)!r:.80}{also}.",
        "One of the two is of another revision or was changed: get the config and tokenizer that the host has "
        f"(revision {deployment.revision or 'main'}), or ask those who run it.",
    )


def _value(config: Any, name: str) -> Any:
    value = getattr(config if name in OF_THE_WHOLE else text_config(config), name, None)
    return dict(value) if isinstance(value, Mapping) else value


def _theirs(ours: Any, theirs: Mapping[str, Any], name: str) -> Any:
    """A host's value of a field. It leaves out what is the default of the config's class.

    Of a table, only entries that both sides have: versions of transformers write different ones.
    """
    value = _value(ours, name)
    own = ours if name in OF_THE_WHOLE else text_config(ours)
    held = theirs if own is ours else raw_text_config(theirs)
    found = held.get(name, value if isinstance(value, dict) else _value(type(own)(), name))
    if isinstance(found, dict) and isinstance(value, dict):
        return value | {key: one for key, one in found.items() if key in value}
    return found
