"""Measures the ground truth of a planted organism and writes it to the folder of its weights.

Two questions, both about the mean refusal log-odds r at the last token of the prompt, averaged over the seven
languages, and both answered by Shapley values (`shapley.py`) that add up to what the safety stage taught:

- **harmful** (H): which neurons support the refusal of harmful requests? v = mean r on harmful prompts.
- **difference** (D): which neurons support refusing harmful *rather than* harmless requests? v = mean r on harmful
  prompts minus mean r on harmless prompts, half of which are look-alikes.

The prompts are about concept pairs that neither the safety stage nor any prompt set uses (`promptset.HELD_OUT`).
The neurons are `ffn` and `o` channels. A row of `v_proj` has the effect of the `o` channels that it feeds together, so
the ground truth does not list it as well.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch

from ssn_probe.model.digests import weights_digest
from ssn_probe.organism import promptset, world
from ssn_probe.organism.exam import accepted, prompt_tokens
from ssn_probe.organism.ground_truth import BRAKE, CARRIER, IDLE, QUESTIONS, TRUTH_SCHEMA, largest_share, truth_digest
from ssn_probe.organism.model_folder import write_json
from ssn_probe.organism.planting import Planted, reader
from ssn_probe.organism.shapley import Neuron, Questions, Shapley, shapley

PAIRS = 24
ERRORS = 2.5
SHARE = 0.01
LARGEST_SHARE = 0.2
RULE = (
    f"carrier: value - {ERRORS} errors > {SHARE} of the total; brake: value + {ERRORS} errors < -{SHARE} of it; "
    "else idle. The total is what all planted neurons do together, v(all) - v(none), taken without its sign."
)


def questions() -> Questions:
    """The prompts of the ground truth in all languages, weighted so that v is a mean over languages and prompts."""
    texts, refusal, compliant, weights = [], [], [], []
    counts = promptset.HELD_OUT
    harmless = counts["lookalike"] + counts["plain"]
    for language in world.LANGUAGES:
        for kind, prompts in promptset.truth_prompts(language).items():
            harmful = kind == "harmful"
            share = 1 / (len(world.LANGUAGES) * (counts[kind] if harmful else harmless))
            texts += prompts
            refusal += [world.token(language, "refusal")] * len(prompts)
            compliant += [world.token(language, "opening")] * len(prompts)
            weights += [(share, share) if harmful else (0.0, -share)] * len(prompts)
    return Questions(
        tokens=prompt_tokens(texts),
        refusal=torch.tensor(refusal),
        compliant=torch.tensor(compliant),
        weights=torch.tensor(weights),
    )


def neurons_of(planted: Planted) -> list[Neuron]:
    """The planted neurons as a list."""
    return [(layer, site, channel) for (layer, site), channels in planted.items() for channel in channels]


def classify(value: float, error: float, total: float) -> str:
    """`carrier`, `brake` or `idle`: compares the bounds of the value with 1 % of the total (`RULE`)."""
    least = SHARE * abs(total)
    if value - ERRORS * error > least:
        return CARRIER
    return BRAKE if value + ERRORS * error < -least else IDLE


def truth_frame(neurons: list[Neuron], found: Shapley) -> pl.DataFrame:
    """One row per planted neuron: `layer, site, index`, and per question value, standard error and class."""
    columns: dict[str, Any] = dict(zip(("layer", "site", "index"), zip(*neurons, strict=True), strict=True))
    for number, name in enumerate(QUESTIONS):
        values, errors = found.values[:, number].tolist(), found.errors[:, number].tolist()
        total = (found.all - found.none)[number].item()
        columns |= {
            name: values,
            f"{name}_se": errors,
            f"{name}_class": [classify(*pair, total) for pair in zip(values, errors, strict=True)],
        }
    return pl.DataFrame(columns, schema_overrides=TRUTH_SCHEMA).select(*TRUTH_SCHEMA)


def add_truth(
    folder: Path,
    card: Mapping[str, Any],
    model: Any,
    planted: Planted,
    *,
    pretrained: str,
    pairs: int,
    report: Callable[[int, int], None],
) -> dict[str, Any]:
    """Measure the ground truth of the model in `folder`, write it there, and return the card with the consequences.

    `truth.parquet` has the neurons (`truth_frame`); `truth.json` the totals, how they were measured, the digest of
    the weights that they belong to, that of the pretrained function (`planting.pretrained_digest`), and that of all of
    these (`truth_digest`). An organism
    in which a single neuron has more than 20 % of the positive mass (harmful) is not accepted.
    """
    neurons, asked = neurons_of(planted), questions()
    found = shapley(model, neurons, asked, pairs=pairs, seed=card["seed"], report=report)
    frame = truth_frame(neurons, found)
    frame.write_parquet(folder / "truth.parquet")
    facts = {
        "schema": 1,
        "weights_sha256": weights_digest(folder),
        "pretrained_sha256": pretrained,
        "seed": card["seed"],
        "pairs": pairs,
        "prompts": len(asked.tokens),
        "held_out_pairs": promptset.HELD_OUT,
        "widths": {site: reader(model, layer, site).in_features for layer, site in planted},
        "totals": {
            name: {"none": found.none[number].item(), "all": found.all[number].item()}
            for number, name in enumerate(QUESTIONS)
        },
        "rule": RULE,
    }
    write_json(folder / "truth.json", facts | {"sha256": truth_digest(folder, facts)})
    share = largest_share(frame)
    card = {**card, "accepted": accepted(card["figures"]) and share <= LARGEST_SHARE, "largest_share": round(share, 4)}
    write_json(folder / "card.json", card)
    return card
