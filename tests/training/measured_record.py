"""What a run measured of a training, as a delta file states it."""

from typing import Any

MEASURES = {
    "asr": (0.4334, 0.1508),
    "invalid": (0.0, 0.0125),
    "over_refusal": (0.0017, 0.0242),
    "utility": (1.0, 0.995),
}
TRAP = "<b>a</b> | [x](http://x)"


def effects(*languages: str) -> list[dict[str, Any]]:
    return [
        {"language": language, "measure": measure, "n": 1200, "before": before, "after": after}
        | {"before_low": 0.0, "before_high": 1.0, "low": max(0.0, after - 0.01), "high": min(1.0, after + 0.01)}
        for language in languages
        for measure, (before, after) in MEASURES.items()
    ]


def control(arm: str, value: float, low: Any, high: Any, measure: str = "asr") -> dict[str, Any]:
    return {"arm": arm, "measure": measure, "value": value, "low": low, "high": high}


MEASURED = {
    "run": f"run {TRAP}",
    "arm": "ss.at(20)",
    "effects": effects("qab", "average"),
    "controls": [control("4 random sets", 0.36, -0.02, 0.5), control(TRAP, 0.37, None, None)],
}
