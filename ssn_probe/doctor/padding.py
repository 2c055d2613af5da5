"""Is a prompt in a padded batch the same as alone? Padding on the left must change nothing but the shape."""

from ssn_probe.doctor.checks import Check, failed, passed, warned
from ssn_probe.doctor.probing import plain_logits, prompts
from ssn_probe.model.row_independence import tolerance
from ssn_probe.model.subject import Subject

STEPS = 8
"""Tokens that each response may have."""


def check_padding(subject: Subject) -> Check:
    """Are logits and greedy responses of prompts of different lengths the same in one batch as one by one?"""
    import torch

    side = subject.model.tokenizer.padding_side
    if side != "left":
        meaning = "Text given to the traced model itself would be padded after its last token: [:, -1] reads padding."
        remedy = 'Set subject.model.tokenizer.padding_side = "left", and report this line: loading should have done so.'
        return failed("padding", f"the traced model pads on the {side}", meaning, remedy)
    tokens = prompts(subject)
    single = torch.cat([plain_logits(subject, [row]) for row in tokens])
    gap, allowed = float((plain_logits(subject, tokens) - single).abs().max()), tolerance(subject, single)
    found = f"batched and single logits differ by {gap:.2g} (allowed {allowed:.2g})"
    if gap > allowed:
        meaning = "Padding reaches the computation: a result would depend on which prompts share a batch."
        return failed("padding", found, meaning, "Use --batch-size 1, and report the model's family and this line.")
    same = equal_responses(subject)
    found = f"{found}; {sum(same)} of {len(same)} greedy responses are equal"
    if all(same):
        return passed("padding", found)
    if subject.identity["dtype"] in ("bfloat16", "float16"):
        meaning = "Two words were about as likely, and rounding chose: a few responses depend on the batch size."
        return warned("padding", found, meaning, "Keep one --batch-size within a study, or give --dtype float32.")
    meaning = "Generating with a cache does not treat padding as a forward pass does: batched responses are wrong."
    return failed("padding", found, meaning, "Use --batch-size 1, and report the model's family and this line.")


def equal_responses(subject: Subject) -> list[bool]:
    """Whether each prompt's greedy response is the same in a batch as alone."""
    from ssn_probe.tracing.generate import generate

    tokens = prompts(subject)
    batched, single = (generate(subject, tokens, max_new_tokens=STEPS, batch_size=size) for size in (len(tokens), 1))
    return [one == other for one, other in zip(batched, single, strict=True)]
