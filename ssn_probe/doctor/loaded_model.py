"""A loaded model in a line, whether it computes numbers, and whether tracing leaves them alone."""

from ssn_probe.doctor.checks import Check, failed, passed
from ssn_probe.doctor.probing import plain_logits, prompts, traced_logits
from ssn_probe.model.row_independence import tolerance
from ssn_probe.model.subject import Subject


def describe_subject(subject: Subject) -> Check:
    """What was loaded."""
    module, identity = subject.model._module, subject.identity
    count = sum(parameter.numel() for parameter in module.parameters())
    widths = ", ".join(f"{site} {width}" for site, width in subject.widths.items())
    layer = module.get_submodule(subject.family.layers)[0]
    biased = [site for site, (path, _) in subject.family.modules.items() if layer.get_submodule(path).bias is not None]
    limits = [limit.of.removeprefix("the model's ").removeprefix("the ") for limit in subject.limits]
    notes = [f"{identity['dtype']} on {subject.device}"]
    head, embedding = (subject.family.part(module, path) for path in (subject.family.head, subject.family.embedding))
    notes += ["tied embeddings"] if head.weight is embedding.weight else []
    notes += [f"biases at {', '.join(biased)}"] if biased else []
    return passed(
        "model",
        f"{subject.name}: {identity['family']}, {count / 1e6:,.1f} M parameters, {subject.n_layers} layers of {widths} "
        f"neurons; {'; '.join((*limits, *notes))}",
    )


def check_numbers(subject: Subject) -> Check:
    """Are all logits finite? Raises ModelError, naming layer and site, where they are not."""
    logits = plain_logits(subject, prompts(subject))
    return passed("numbers", f"finite; logits from {logits.min():.1f} to {logits.max():.1f}")


def check_tracing(subject: Subject) -> Check:
    """Does a trace without edits compute what the model computes without nnsight?"""
    tokens = prompts(subject)
    plain = plain_logits(subject, tokens)
    gap, allowed = float((traced_logits(subject, tokens) - plain).abs().max()), tolerance(subject, plain)
    found = f"a trace differs from a plain forward pass by {gap:.2g} (allowed {allowed:.2g})"
    if gap <= allowed:
        return passed("tracing", found)
    meaning = "What nnsight runs is not the model as transformers runs it: every result would be about something else."
    return failed(
        "tracing", found, meaning, "Install the tested nnsight, transformers and torch; see `packages` above."
    )
