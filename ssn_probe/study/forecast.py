"""What a run would take and could show: what is cached, passes, time, memory, disk, and the smallest effect."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.data.clusters import cluster_columns
from ssn_probe.data.judges import is_unjudged, make_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.engines.vllm_engine import Vllm, ending
from ssn_probe.model.asking import asking_of
from ssn_probe.model.footprint import Footprint
from ssn_probe.model.known import SHAPE, find_subject
from ssn_probe.model.loading import read_config, read_outline, weights_here
from ssn_probe.model.memory import Work, footprint
from ssn_probe.model.placement import memory_beside
from ssn_probe.model.precision import WIDTH
from ssn_probe.model.shape import Shape, shape_of
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.torch_settings import computing_plainly
from ssn_probe.runs.cache import Cache, NotCached
from ssn_probe.spec import SITES, Prompts, Recipe, SafetyNeurons
from ssn_probe.stats import MINIMUM_CONTROLS, fewest_discordant, smallest_detectable, smallest_p
from ssn_probe.study.arm_steps import evaluated_in
from ssn_probe.study.arms import expected_arms
from ssn_probe.study.comparisons import COMPARISONS, LABELS
from ssn_probe.study.host_checks import check_allowed, check_fits
from ssn_probe.study.importance import screening
from ssn_probe.study.ingredients import ingredients
from ssn_probe.study.looked_up import look_up
from ssn_probe.study.model_notes import notes_on_model, notes_on_texts
from ssn_probe.study.plan import Plan, limited, make_plan
from ssn_probe.study.prompt_tokens import length_notes, prompt_lengths
from ssn_probe.study.refusal_trial import (
    PORTIONS,
    GateNeed,
    Refusals,
    gate_needs,
    gated_sets,
    tried,
    tried_languages,
    tried_sets,
)
from ssn_probe.study.remote_plan import plan_of_run
from ssn_probe.study.resolve import measured, reads_log_odds
from ssn_probe.study.steps import Cost, Row
from ssn_probe.study.unjudged import notes_on_sending
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import counted, duration, listing, probability, size
from ssn_probe.tracing.readout import forced_on


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The rows of a plan, and their consequences.

    `cached`: row → prompts whose results are in the cache. `unreached`: row → why no run gets to it, where the cache
    shows that already. `seconds`: row → seconds per prompt, measured now; empty
    where nothing was run. `lines`: the rest in words. `gates`: what the refusal log-odds needs of every prompt set that
    it is tested on; `needed`: those sets without whose log-odds no neuron can be chosen. `tried`: what the model
    answered to a few prompts.
    """

    recipe: Recipe
    rows: tuple[Row, ...]
    cached: Mapping[str, int] = field(default_factory=dict)
    unreached: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    gates: tuple[GateNeed, ...] = ()
    needed: frozenset[str] = frozenset()
    tried: tuple[Refusals, ...] = ()
    data: Mapping[Prompts, PromptSet] = field(default_factory=dict)


@computing_plainly()
def forecast(
    recipe: Recipe,
    limit: int | None = None,
    *,
    out: Path = Path("results"),
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    remote: bool | str = False,
    yes: bool = False,
    engine: str = "transformers",
    calibrated: bool = False,
) -> Forecast:
    """The plan of a recipe and what it takes; the options are those of a run.

    Reads configuration, prompts and what is cached below `out`; computes nothing and loads no weights, unless
    `calibrated`: then each kind of work runs on one batch, to see how long it takes. With `remote`, that would send
    prompts to the host, and needs `yes`.
    """
    plan = make_plan(limited(recipe, limit), remote=remote, device=device, engine=engine)
    options: dict[str, Any] = {"dtype": dtype, "device": device, "remote": remote, "asking": asking_of(plan.recipe)}
    subject = find_subject(plan.recipe.model, cache=out / "cache", writes=False, weights=False, **options)
    check_fits(plan.recipe, subject)
    lengths = prompt_lengths(plan.recipe, plan.data, subject)
    vllm = None if plan.engine is None else Vllm(plan.engine, subject)
    rows, cached, unreached = look_up(plan, subject, vllm, out)
    reached = [row for row in rows if row.label not in unreached]
    loaded = cache(lambda: load_subject(plan.recipe.model, **options))
    if remote and calibrated:
        check_allowed(plan.recipe, loaded())
    untried = _untried(plan, remote, yes)
    with ending(vllm):
        first = _try(plan, subject, None if untried else loaded, vllm, out, batch_size) if calibrated else ()
        seconds, time = _time(plan, reached, cached, untried or loaded, vllm, batch_size) if calibrated else ({}, [])
    layers, widths = subject.n_layers, subject.widths
    memory = [_memory(rows, subject, lengths)] if subject.host is None else []
    needs = [*memory, *_disk(plan, layers, widths)]
    bench = Workbench(subject=subject, data=plan.data, anchor=plan.anchor)
    known = (*notes_on_model(subject), *notes_on_texts(subject, plan.data, subject.kept))
    notes = [f"Note: {note}." for note in (*known, *notes_on_sending(bench, plan.recipe, rows))]
    lines = [
        *ingredients(plan),
        *_hosted(subject, plan, out, lengths),
        *time,
        _neurons(layers, widths),
        *needs,
        *length_notes(lengths, subject),
        *_power(plan),
        *_without_average(bench, plan.recipe),
        *notes,
    ]
    tested = [prompts for prompts in reads_log_odds(plan.recipe, plan.data) if not is_unjudged(prompts.judge)]
    gates = [need for prompts in tested for need in gate_needs(bench, prompts)]
    return Forecast(
        recipe=plan.recipe,
        rows=tuple(rows),
        cached=cached,
        unreached=unreached,
        seconds=seconds,
        lines=tuple(lines),
        gates=tuple(gates),
        needed=frozenset(prompts.name for prompts in gated_sets(plan.recipe, plan.data)),
        tried=first,
        data=plan.data,
    )


def _hosted(subject: Subject, plan: Plan, out: Path, lengths: pl.DataFrame) -> list[str]:
    """Where the model runs, if that is a host, and what a run will send there."""
    if subject.host is None:
        return []
    return plan_of_run(subject, plan, Cache(root=out / "cache", compute=False), lengths).lines()


def _untried(plan: Plan, remote: bool | str, yes: bool) -> str | None:
    """Why the model is not to run for an estimate, if it is not."""
    if remote:
        return None if yes else "that would send prompts to the host; with --yes it does"
    return None if weights_here(plan.recipe.model) else "the weights are not on this machine yet"


def _try(
    plan: Plan,
    subject: Subject,
    loaded: Callable[[], Subject] | None,
    engine: Vllm | None,
    out: Path,
    batch_size: int | None,
) -> tuple[Refusals, ...]:
    """What the model answers to a few prompts, from the cache below `out` where a run has asked them already.

    `loaded` is None where the model may not be asked.
    """
    kept = Workbench(
        subject=subject,
        data=plan.data,
        anchor=plan.anchor,
        cache=Cache(root=out / "cache", compute=False),
        engine=engine,
    )
    with contextlib.suppress(NotCached):
        return tuple(_tried(kept, plan))
    if loaded is None or not all(map(_is_judged_here, tried_sets(plan.recipe, plan.data))):
        return ()
    bench = Workbench(subject=loaded(), data=plan.data, anchor=plan.anchor, batch_size=batch_size, engine=engine)
    return tuple(_tried(bench, plan))


def _is_judged_here(prompts: PromptSet) -> bool:
    """Is nobody asked over a network, and no guard model downloaded? Looking at a plan sends and fetches nothing."""
    judge = make_judge(prompts.judge, prompts.languages, prompts.name, asked=False)
    return judge.local and ("model" not in judge.identity or weights_here(judge.identity["model"]))


def _tried(bench: Workbench, plan: Plan) -> Iterator[Refusals]:
    for prompts in tried_sets(plan.recipe, plan.data):
        for language in tried_languages(bench, prompts):
            yield tried(bench, prompts, language, PORTIONS[0])


def _time(
    plan: Plan,
    rows: Sequence[Row],
    cached: Mapping[str, int],
    loaded: Callable[[], Subject] | str,
    engine: Vllm | None,
    batch_size: int | None,
) -> tuple[Mapping[str, float], list[str]]:
    """Seconds per prompt of every row, and the whole in words; `loaded` is a reason where nothing is to run."""
    from ssn_probe.study.calibration import calibrate

    if all(cached.get(row.label, 0) >= row.prompts for row in rows):
        return {}, ["Time: all that the model has to do is in the cache."]
    if isinstance(loaded, str):
        return {}, [f"Time: not estimated, because {loaded}."]
    subject = loaded()
    seconds = calibrate(subject, plan, rows, batch_size, engine)
    total = sum(seconds[row.label] * (row.prompts - cached.get(row.label, 0)) for row in rows)
    estimate = f"Time: about {duration(total)} of the model on {subject.place}, judged by a batch of each kind of work."
    return seconds, [f"{estimate} Loading, nulls and statistics take more time."]


def _neurons(layers: int, widths: dict) -> str:
    per_layer = ", ".join(f"{site} {width:,}" for site, width in widths.items())
    return f"{layers * sum(widths.values()):,} neurons: {layers} layers of {per_layer}."


GPU = 24 * 10**9
"""Bytes of the card that the memory of a study is compared with, where the device is none itself."""
WORK: Mapping[str, tuple[Work, str]] = {
    "responses": ("generate", "responses"),
    "log odds": ("log_odds", "log-odds"),
    "text": ("text", "KL"),
}
"""Work that scores no neuron → its name in the estimate of memory, and for a reader."""


def _memory(rows: Sequence[Row], subject: Subject, lengths: pl.DataFrame) -> str:
    """What each kind of work takes beside the weights, and the batches that a card holds: arithmetic, not measured."""
    shape = _shape(subject, None)
    memory, _, gpus = memory_beside(shape.weights, subject.device, GPU)
    tokens = max(lengths["tokens"], default=1)
    costs = {_work(row.cost): row.cost for row in reversed(rows)}
    parts = []
    for (work, name), cost in reversed(costs.items()):
        if work is None:
            parts.append(f"{name} not estimated")
            continue
        found = _footprint(_shape(subject, _bytes(cost)), work, cost, subject, tokens)
        whole = found.weights
        found = replace(found, weights=memory_beside(found.weights, subject.device, GPU)[1])
        largest = found.largest_batch(memory)
        holds = f"batches of {largest:,}" if largest else f"not one ({size(found.needed(1))} are needed)"
        wider = f", weights then {size(whole)}" if cost.dtype else ""
        parts.append(f"{name} {size(found.per_prompt)} a prompt{wider}, {holds}")
    each = f" on each of {gpus} GPUs" if gpus > 1 else ""
    several = "" if subject.openings else " (openings of one token; longer ones take more)"
    return (
        f"Memory, by arithmetic: weights {size(shape.weights)}; prompts of at most {tokens} tokens{several}. "
        f"In {size(memory)}{each}: {'; '.join(parts)}. A batch that does not fit is halved."
    )


def _shape(subject: Subject, dtype_bytes: int | None) -> Shape:
    """The numbers of the model that decide on memory: those that were kept, or of its outline."""

    def compute() -> dict[str, Any]:
        config = read_config(subject.path, subject.identity.get("commit"))
        module = read_outline(subject.path, config, subject.family, subject.identity["dtype"], "meta")
        return asdict(shape_of(module, subject.family, dtype_bytes))

    found = subject.kept.value(SHAPE, [subject.identity["dtype"], dtype_bytes], compute)
    return Shape(**found | {"windows": tuple(found["windows"])})


def _work(cost: Cost) -> tuple[Work | None, str]:
    """The name of the work in the estimate of memory, if it is estimated, and for a reader."""
    if cost.effect is None:
        return WORK[cost.work]
    by_neuron = ", a neuron for a prompt" if cost.effect.by_neuron else ""
    wider = f" in {cost.dtype}" if cost.dtype else ""
    return cost.effect.memory, f"{cost.effect.name} effects{wider}{by_neuron}"  # type: ignore[return-value]


def _bytes(cost: Cost) -> int | None:
    """Of a number while this work is done, where that is not in the model's own dtype."""
    return None if cost.dtype is None else WIDTH[cost.dtype] // 8


def _footprint(shape: Shape, work: Work, cost: Cost, subject: Subject, tokens: int) -> Footprint:
    forcings = [forced_on(subject, reads, [[0] * tokens]) for reads in (subject.openings or {}).values()]
    along = cost.generated if cost.effect is not None else 0  # what an effect is read along is one sequence with it
    read = cost.work == "log odds" or (cost.effect is not None and cost.effect.needs_openings)
    return footprint(
        shape,
        work,
        tokens=tokens + along,
        new_tokens=max(1, cost.generated),
        sequences=max((len(forcing.prefixes) for forcing in forcings), default=1) if read else 1,
        kept=max((forcing.kept for forcing in forcings), default=1) if read else 1,
        sites=cost.sites or SITES,
        probes=getattr(cost.effect, "probes", 1),
        exact_qk=getattr(cost.effect, "exact_qk", 1.0),
        behind_start=subject.calls is None if cost.effect is None else cost.behind_starts,
    )


def _disk(plan: Plan, layers: int, widths: dict) -> list[str]:
    """fp16 effects of every prompt and neuron, one fp32 scale per prompt, layer and site."""
    from ssn_probe.spec.node import walk

    total = 0
    chosen = [node for node in walk(plan.recipe) if isinstance(node, SafetyNeurons)]
    chosen += [first for first in map(screening, chosen) if first is not None]
    nodes = {(node.prompts, node.effect, node.sites) for node in chosen}
    for prompts, _, sites in nodes:
        rows = plan.data[prompts].frame
        count = rows.filter((rows["split"] == "identify") & rows["context"].is_in(["harmful", "harmless"])).height
        total += count * layers * sum(2 * widths[site] + 4 for site in sites)
    return [f"Per-prompt scores on disk: {size(total)}; of which one language and context at a time is in memory."]


def _power(plan: Plan) -> list[str]:
    recipe = plan.recipe
    contexts = measured(recipe, plan.data)
    if "harmful" not in contexts or not recipe.arms:
        return []
    rows = contexts["harmful"].select("evaluate", "harmful")
    names = cluster_columns(rows)
    levels = rows.group_by("language").agg(pl.col(names).n_unique()).select(pl.col(names).min()).row(0)
    if rows.is_empty():
        return ["There are no harmful prompts to evaluate on, so nothing can be shown about ASR."]
    alone = all(rows.select("language", name).is_unique().all() for name in names)
    languages = set(rows["language"]) - {plan.anchor}
    lines = [_detectable(levels, min(rows.group_by("language").len()["len"]), falls=_lowers(recipe))]
    if recipe.primary is not None and alone and languages:
        lines.append(_discordant(len(languages)))
    return [*lines, *_ranks(recipe)]


def _without_average(bench: Workbench, recipe: Recipe) -> Iterator[str]:
    """The arms that are measured in no language of their average: the anchor is not in it, nor the neurons' own one."""
    harmful = measured(recipe, bench.data).get("harmful")
    if harmful is None:
        return
    for arm in expected_arms(bench, recipe):
        spoken = evaluated_in(arm, harmful)
        left_out = {bench.anchor, arm.set_language if len(spoken) > 1 else None}
        if spoken and set(spoken) <= left_out:
            yield (
                f"{arm.title} will have no average over languages, and no test: the average leaves out the anchor and "
                f"the language of the neurons, and {listing(spoken)} {'is' if len(spoken) == 1 else 'are'} all."
            )


def _lowers(recipe: Recipe) -> bool:
    node = None if recipe.primary is None else recipe.arms[recipe.primary]
    return node is not None and node.lowers


def _detectable(levels: Sequence[int], prompts: int, *, falls: bool) -> str:
    """A fall from 30 % is, to the test, a rise from 70 %."""
    change, level = ("fall", 0.7) if falls else ("rise", 0.3)
    found, independent = (smallest_detectable(count, level) for count in (min(levels), prompts))
    clusters = counted(levels[0], "cluster") if len(levels) == 1 else f"{' × '.join(map(str, levels))} clusters"
    against = f"{change} of ASR against the baseline"
    if found is None:
        said = f"no {against} is so large that one language shows it with 80 % power at a baseline of 30 %"
        more = "; one of {} is"
    else:
        said = (
            f"the smallest {against} that one language shows with 80 % power is {_points(found)} at a baseline of 30 %"
        )
        more = ", and {}"
    alone = ""
    if len(levels) > 1 and independent is not None:
        alone = f"{more.format(_points(independent))} if clusters make no difference"
    return f"{clusters} of harmful prompts per language: {said}{alone}."


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _discordant(languages: int) -> str:
    adjusted = fewest_discordant(0.05 / languages)
    return (
        f"McNemar's exact test of one language needs {fewest_discordant()} prompts that change, all one way, for "
        f"p ≤ .05; {adjusted} for the smallest of {languages} languages after Holm."
    )


def _ranks(recipe: Recipe) -> list[str]:
    few = f" (too few for a test: {MINIMUM_CONTROLS} is the least)"
    lines = [
        f"{COMPARISONS[LABELS].counted(count)} {where}: the smallest p is {probability(smallest_p(count))}"
        f"{'' if count >= MINIMUM_CONTROLS else few}"
        for count, where in (
            (recipe.label_sets, "that generate responses"),
            (recipe.log_odds_label_sets, "on the log-odds"),
        )
        if count and recipe.primary is not None and LABELS in recipe.comparisons
    ]
    return [f"{'; '.join(lines)}."] if lines else []
