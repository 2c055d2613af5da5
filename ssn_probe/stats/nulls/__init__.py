"""What would be found without any difference between harmful and harmless prompts, and what other prompts would give.

Pure numerics over per-prompt effects: exchanged labels (`permutation_null`), complementary half-samples (`stability`)
and the false discovery rate of single neurons (`false_discoveries`). Every draw comes from a seed that the caller
passes. No model is needed.
"""

from ssn_probe.stats.nulls.false_discoveries import Discoveries, discoveries
from ssn_probe.stats.nulls.label_exchange import Exchange, draw_labels, exchange
from ssn_probe.stats.nulls.mask_algebra import no_null
from ssn_probe.stats.nulls.permutation_null import permutation_null
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.stability import Stability, stability
from ssn_probe.stats.nulls.stable_neurons import stable_set

__all__ = [
    "Discoveries",
    "Exchange",
    "PromptEffects",
    "Stability",
    "discoveries",
    "draw_labels",
    "exchange",
    "no_null",
    "permutation_null",
    "stability",
    "stable_set",
]
