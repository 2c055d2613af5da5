"""The model under a change as lm-eval sees it, so that any task of lm-eval can be run on it.

It is lm-eval's own Hugging Face model, of which only the two calls of the model are replaced by traced ones: tokens,
windows, batches and stop sequences are lm-eval's, and so are its numbers where nothing is changed.
"""

import copy
import warnings
from importlib import import_module
from typing import Any

from ssn_probe.model.subject import Subject
from ssn_probe.model.think_blocks import SWITCHES
from ssn_probe.tracing.batching import Advance
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import Edits, places_of, prepared
from ssn_probe.tracing.execution import OPEN_LOOP, run_body


def lm_eval_model(subject: Subject, edits: Edits, batch_size: int, advance: Advance) -> Any:
    """An `lm_eval.api.model.LM`; `advance` is told how many rows each call of the model had."""
    import torch

    from ssn_probe.tracing.bodies.generation import trace_generation
    from ssn_probe.tracing.bodies.next_tokens import trace_logits

    places, ready = places_of(subject), prepared(subject, edits)

    harness: Any = import_module("lm_eval.models.huggingface")

    class Changed(harness.HFLM):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

        def _model_call(self, inps: Any, attn_mask: Any = None, labels: Any = None) -> Any:
            kept = torch.arange(
                inps.shape[1], device=inps.device
            )  # as a tensor, so that nnsight leaves the batch whole
            inputs = {"input_ids": inps, "attention_mask": torch.ones_like(inps), "logits_to_keep": kept}
            logits = run_body(subject, trace_logits, inputs | {"use_cache": False}, places, ready)
            if not logits.isfinite().all():
                raise_non_finite(subject, inps.tolist(), ready=ready)
            advance(len(inps))
            return logits

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **settings: Any) -> Any:
            settings.setdefault("do_sample", bool(settings.get("temperature", 0.0)))
            if not settings["do_sample"]:
                settings.pop("temperature", None)
            criteria = harness.stop_sequences_criteria(self.tokenizer, stop, context.shape[1], context.shape[0])
            inputs = {"input_ids": context, "attention_mask": settings.pop("attention_mask")}
            settings |= {"max_length": max_length, "stopping_criteria": criteria, "use_cache": True}
            settings |= {"pad_token_id": self.tokenizer.pad_token_id}
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=OPEN_LOOP)
                new, finite, *_ = run_body(subject, trace_generation, inputs, places, ready, (), settings)
            if not finite:
                raise_non_finite(subject, context.tolist(), ready=ready)
            advance(len(context))
            return torch.cat([context, new.to(context)], 1)

    # it changes the tokenizer that it is given
    tokenizer = copy.deepcopy(subject.tokenizer)
    model = Changed(
        pretrained=subject.model._module, tokenizer=tokenizer, batch_size=batch_size, max_length=subject.context
    )
    model.chat_template_args = dict(SWITCHES)
    return model
