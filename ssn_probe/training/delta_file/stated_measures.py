"""What a delta file states of a run that measured its training."""

from typing import Literal, get_args

Measure = Literal["asr", "invalid", "over_refusal", "utility"]
MEASURES = get_args(Measure)
