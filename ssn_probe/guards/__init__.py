"""Guard models as judges: `qwen3guard`, `polyguard`, `wildguard`, alone or with a folder or name on the hub."""

from functools import lru_cache

from ssn_probe.data.judges.validity import judged_if_valid
from ssn_probe.data.judges.verdicts import Judge, JudgeContext
from ssn_probe.errors import JudgeError
from ssn_probe.guards.guard_format import GuardFormat
from ssn_probe.guards.guard_model import GuardModel, model_of
from ssn_probe.guards.polyguard import POLYGUARD
from ssn_probe.guards.qwen3guard import QWEN3GUARD
from ssn_probe.guards.wildguard import WILDGUARD

GUARDS = {one.name: one for one in (QWEN3GUARD, POLYGUARD, WILDGUARD)}


def guard_judge(kind: str, argument: str | None, languages: tuple[str, ...], context: JudgeContext) -> Judge:
    """A guard model. Raises JudgeError for languages that it does not know, and for a model that is not there."""
    known = GUARDS[kind].languages
    others = [one for one in languages if known is not None and one.partition("-")[0] not in known]
    if known is not None and others:
        raise JudgeError(
            f"The judge {kind} knows {', '.join(known)}, and not {', '.join(others)}",
            "Take qwen3guard, which knows 119, or leave them out (run: -T languages=…; certify: --languages …).",
        )
    model = _shared(GUARDS[kind], argument, context.device)
    return Judge(
        name=kind if argument is None else f"{kind}:{argument}",
        identity=model.identity(),
        judge=lambda rows: judged_if_valid(rows, model.judge),
        local=True,
    )


@lru_cache(maxsize=2)
def _shared(format: GuardFormat, name: str | None, device: str) -> GuardModel:
    """One model for all that ask for it: it is in the memory once."""
    return model_of(format, name, device)
