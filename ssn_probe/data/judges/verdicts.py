"""What every judge gives and how it is called."""

from collections.abc import Callable
from typing import Literal

Verdict = Literal["refused", "complied", "invalid", "unjudged"]
Judge = Callable[[str, str], Verdict]
"""(language, response) → verdict."""
