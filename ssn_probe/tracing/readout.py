"""How r(x) is read: which sequences must run so that every opening is scored, and where its tokens are.

The openings of a prompt share it, so they can also run as branches of one sequence: the prompt, then the tree of what
is forced after it, where a token sees the prompt and its own branch alone. That is a prompt of a few more tokens, and
not one prompt for every branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import check_tokens, pad_left
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Forcing:
    """The teacher-forced continuations of a prompt: `prefixes` to append, and how to read openings off them.

    `kept` is how many last positions need logits; `scoring` is the plain data that `bodies.refusal.log_odds`
    interprets. `parents`: of each token of the only prefix the number of the token before it in its opening, −1 for the
    prompt's last one; empty where a prefix is a text, in which every token sees all before it.
    """

    prefixes: tuple[tuple[int, ...], ...]
    kept: int
    scoring: dict[str, Any]
    parents: tuple[int, ...] = ()


def forced(readout: Openings | Direction, vocabulary: int) -> Forcing:
    """The fewest sequences that r(x) can be read off: along a direction, the prompt alone.

    For openings, the prompt with each maximal one among the openings' proper prefixes, those that no other begins with.
    An opening's last token is predicted and never fed, so openings of one token need the prompt alone, one sequence.

    Raises:
        ModelError: a side without an opening, an empty opening, or a token outside the vocabulary.
    """
    if isinstance(readout, Direction):
        return Forcing(prefixes=((),), kept=1, scoring={"sequences": 1, "direction": list(readout.vector)})
    sides = [tuple(dict.fromkeys(side)) for side in (readout.refusal, readout.compliant)]
    every = [*sides[0], *sides[1]]
    if not all(sides) or not all(every):
        raise ModelError("Openings are missing.", "Give at least one non-empty opening on either side.")
    if not all(0 <= token < vocabulary for opening in every for token in opening):
        raise ModelError(
            f"An opening has a token outside the model's vocabulary of {vocabulary}.",
            "Tokenize the openings with the tokenizer of this model.",
        )
    proper = {opening[:-1] for opening in every}
    prefixes = tuple(sorted(proper - {longer[:cut] for longer in proper for cut in range(len(longer))}))
    kept = max(map(len, prefixes)) + 1
    terms: dict[str, list[int]] = {"row": [], "position": [], "token": [], "opening": []}
    for number, opening in enumerate(every):
        row = next(i for i, prefix in enumerate(prefixes) if prefix[: len(opening) - 1] == opening[:-1])
        first = kept - 1 - len(prefixes[row])  # the position that predicts the response's first token
        for step, token in enumerate(opening):
            for name, value in zip(terms, (row, first + step, token, number), strict=True):
                terms[name].append(value)
    counts = {"sequences": len(prefixes), "refusal": len(sides[0]), "openings": len(every)}
    return Forcing(prefixes=prefixes, kept=kept, scoring={**terms, **counts})


def forced_on(subject: Subject, readout: Openings | Direction, tokens: Sequence[Sequence[int]]) -> Forcing:
    """`forced`, with the openings of a prompt as branches of one sequence where the model can run them so.

    It can where its mask may be given: on this machine, and where no layer has a window shorter than the longest of all
    prompts with what is forced after it. That does not depend on the batch.
    """
    forcing = forced(readout, subject.vocabulary)
    if len(forcing.prefixes) == 1 or subject.calls is not None or not tokens:
        return forcing
    whole = branched(forcing)
    longest = max(map(len, tokens)) + max(map(len, forcing.prefixes))
    return whole if subject.window is None or longest <= subject.window[0] else forcing


def read_at_prompt(subject: Subject, readout: Openings | Direction) -> bool:
    """Can a generation read r(x) off its pass over the prompt, on this machine? Longer openings have to be forced."""
    here = subject.calls is None and subject.shards is None
    return here and forced(readout, subject.vocabulary).prefixes == ((),)


def branched(forcing: Forcing) -> Forcing:
    """The same openings as branches of one sequence, each of their tokens once; one branch stays what it is."""
    if len(forcing.prefixes) == 1:
        return forcing
    nodes = {
        prefix[: end + 1]: None for prefix in forcing.prefixes for end in range(len(prefix))
    }  # every beginning of a prefix is a token of the tree, after those that it begins with
    numbers = {node: number for number, node in enumerate(nodes)}
    parents = tuple(numbers.get(node[:-1], -1) for node in nodes)
    scoring, position = forcing.scoring, []
    for row, place in zip(scoring["row"], scoring["position"], strict=True):
        prefix = forcing.prefixes[row]
        fed = place - (forcing.kept - 1 - len(prefix))  # tokens of the opening before the one that is predicted
        position.append(numbers[prefix[:fed]] + 1 if fed else 0)
    return Forcing(
        prefixes=(tuple(node[-1] for node in nodes),),
        kept=len(nodes) + 1,
        scoring={**scoring, "sequences": 1, "row": [0] * len(position), "position": position},
        parents=parents,
    )


def branches_of(parents: Sequence[int]) -> list[list[int]]:
    """Of every token of a tree, the tokens of its branch, up to and with itself."""
    branches: list[list[int]] = []
    for number, parent in enumerate(parents):
        branches.append([*(branches[parent] if parent >= 0 else []), number])
    return branches


def forced_inputs(subject: Subject, tokens: Sequence[Sequence[int]], forcing: Forcing) -> dict[str, Any]:
    """One batch of prompts × prefixes, prompt-major, with logits kept at the scored positions only.

    `logits_to_keep` is a tensor, which also makes nnsight pass the batch on as it is instead of splitting it into
    rows.
    """
    import torch

    check_tokens(tokens)
    rows = [[*row, *prefix] for row in tokens for prefix in forcing.prefixes]
    inputs = pad_left(rows, subject.pad_id, subject.device)
    width = inputs["input_ids"].shape[1]
    kept = torch.arange(width - forcing.kept, width, device=subject.device)
    if forcing.parents:
        inputs |= _branched_inputs(subject, inputs, forcing.parents)
    return inputs | {"logits_to_keep": kept, "use_cache": False}


def _branched_inputs(subject: Subject, inputs: dict[str, Any], parents: Sequence[int]) -> dict[str, Any]:
    """The mask [prompt, 1, query, key] and the positions of prompts that end in a tree.

    A token of the tree sees the prompt and its own branch, and has the position that it has when its branch runs alone.
    """
    import torch

    real, positions = inputs["attention_mask"].bool(), inputs["position_ids"].clone()
    width, first = real.shape[1], real.shape[1] - len(parents)
    sees = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
    sees[first:, first:] = False
    for number, branch in enumerate(branches_of(parents)):
        sees[first + number, [first + one for one in branch]] = True
        positions[:, first + number] = positions[:, first - 1] + len(branch)
    # padding sees the padding before it, since a row of the mask that forbids everything gives NaN
    mask = (sees & (real[:, None] | ~real[:, :, None]))[:, None]
    if subject.family.implementation == "eager":  # which adds the mask to the scores
        dtype = next(subject.model._module.parameters()).dtype
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    return {"attention_mask": mask, "position_ids": positions}
