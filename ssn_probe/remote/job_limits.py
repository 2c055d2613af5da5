"""How much travels at once to a host, and back."""

from dataclasses import dataclass

MOST_SENT, MOST_RECEIVED = 16_000_000, 64_000_000
"""Bytes of a job's different values, and of what comes back."""
MOST_SECONDS = 60.0
"""How long a job is made to run at most, as far as that can be told."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Jobs under way at the same time; calls of a job; calls of a kind as long as none has told what it takes."""

    jobs: int = 4
    calls: int = 64
    first: int = 8
    seconds: float = MOST_SECONDS

    @property
    def waiting(self) -> int:
        """Pieces of work that may wait at the same time: as many as fill the jobs."""
        return self.jobs * self.calls
