"""A set alone: which neurons an expression stands for, from the cache that runs share, without a run's folder."""

from dataclasses import replace

from rich.console import Console
from rich.text import Text

from ssn_probe.api.remote_run import confirm_sending, watched
from ssn_probe.api.runner import Options, found_subject
from ssn_probe.neurons import NeuronSet
from ssn_probe.remote.settings import check_settings
from ssn_probe.report.terminal.progress_bars import tracking
from ssn_probe.runs import folder as results
from ssn_probe.runs.cache import Cache
from ssn_probe.spec import Recipe
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.plan import limited, make_plan
from ssn_probe.study.prompt_tokens import prompt_lengths
from ssn_probe.study.refusal_trial import try_refusal
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.steps import rows_of_steps, run_steps
from ssn_probe.study.workbench import Workbench


def evaluate_set(recipe: Recipe, options: Options, console: Console) -> NeuronSet:
    """The one set of a recipe. Measured is what a run with the same set would measure, under the same keys."""
    check_settings(options.remote, device=options.device, gradient_checkpointing=False)
    recipe = limited(recipe, options.limit)
    plan = make_plan(recipe, remote=options.remote, device=options.device)
    root = results.prepare(options.out)
    subject = found_subject(recipe, options, root)
    lengths = prompt_lengths(recipe, plan.data, subject)
    confirm_sending(console, subject, plan, root, lengths, fresh=False, yes=True)
    cache = Cache(root=root / "cache")
    cache = cache if subject.calls is None else replace(cache, pause=subject.calls.turns.pause)
    bench = Workbench(subject=subject, data=plan.data, anchor=plan.anchor, batch_size=options.batch_size, cache=cache)
    rows = [(row.label, row.prompts) for row in rows_of_steps(identify_steps(bench, recipe))]
    with tracking(console, rows) as tracker, watched(subject, tracker):
        bench = replace(bench, tracker=tracker)
        try_refusal(bench, recipe)
        for _ in run_steps(bench, identify_steps(bench, recipe)):
            pass
        (expression,) = recipe.sets.values()
        found = evaluate(bench, expression)
    for note in bench.warnings:
        console.print(Text(f"Note: {note}."))
    return found
