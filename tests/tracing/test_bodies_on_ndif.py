"""Every body against the NDIF server, in both ways of running a job, and a checkpoint that asks a lot of generation."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from light_ndif import LightNDIF
from tiny import EVERY_FAMILY, slow_but_for

from ssn_probe.model.subject import load_subject
from ssn_probe.tracing.effects import score_refusal
from ssn_probe.tracing.generate import greedy_tokens
from ssn_probe.tracing.host_facts import check_host, host_facts

from .test_effects import OPENINGS, PROMPTS
from .test_hosted_bodies import REQUESTS, RUNS, allowed, decoded

pytestmark = [pytest.mark.ndif, pytest.mark.usefixtures("sequences_apart", "torchs_products")]


@pytest.mark.parametrize("sandbox", [False, True])
def test_every_body(ndif: LightNDIF, sandbox: bool) -> None:
    """To the last bit, but for what `allowed` says; the sandbox has no outline of the model."""
    here, there = load_subject("organism"), load_subject("organism", remote=ndif.host)
    runs = {**RUNS}
    if not sandbox:
        runs["refusal"] = lambda one: decoded(score_refusal(one, PROMPTS, OPENINGS))
    with ndif.untrusted(outline=False) if sandbox else nullcontext():
        facts = host_facts(there)
        assert (facts.gradients, facts.weights, facts.dtype) == (not sandbox, not sandbox, "float32")
        check_host(there)
        with ThreadPoolExecutor(len(runs)) as pool:
            found = dict(zip(runs, pool.map(lambda run: run(there), runs.values()), strict=True))
    for name, run in runs.items():
        for part, wanted in run(here).items():
            gap = allowed(name, part, wanted, sandbox)
            same = wanted.equal(found[name][part]) or ((found[name][part] - wanted).abs() <= gap).all()
            assert same, (name, part)


HOSTED = ("gemma3", "phi3")
"""A text model in a larger one, and one whose sites are parts of a module: what a host loads and finds otherwise."""


@pytest.mark.parametrize("sandbox", [False, True])
@pytest.mark.parametrize("family", slow_but_for(HOSTED, EVERY_FAMILY))
def test_every_family(ndif: LightNDIF, tiny_folder: Callable[[str], Path], family: str, sandbox: bool) -> None:
    """Effects, read-outs and responses with changed neurons, of a tiny model."""
    folder = str(tiny_folder(family))
    here, there = load_subject(folder, dtype="float32"), load_subject(ndif.add(folder), remote=ndif.host)
    runs = {name: RUNS[name] for name in ("local", "log odds", "generation")}
    if not sandbox:
        runs["refusal"] = lambda one: decoded(score_refusal(one, PROMPTS, OPENINGS))
    with ndif.untrusted() if sandbox else nullcontext():
        for name, run in runs.items():
            found = run(there)
            for part, wanted in run(here).items():
                gap = allowed(name, part, wanted, sandbox)
                assert ((found[part] - wanted).abs() <= gap).all() or wanted.equal(found[part]), (name, part)


@pytest.mark.parametrize("sandbox", [False, True])
def test_generation_is_greedy_whatever_the_checkpoint_asks(ndif: LightNDIF, tmp_path: Path, sandbox: bool) -> None:
    folder = tmp_path / "asks"
    shutil.copytree(load_subject("organism", weights=False).path, folder)
    (folder / "generation_config.json").write_text(json.dumps(REQUESTS), encoding="utf-8")
    wanted = greedy_tokens(load_subject(str(folder)), PROMPTS, max_new_tokens=8)
    assert min(map(len, wanted)) > 1
    subject = load_subject(ndif.add(str(folder)), remote=ndif.host)
    with ndif.untrusted() if sandbox else nullcontext():
        assert greedy_tokens(subject, PROMPTS, max_new_tokens=8) == wanted
