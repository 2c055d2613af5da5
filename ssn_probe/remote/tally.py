"""What has travelled to a host and back in a run, for its manifest."""

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Tally:
    """Jobs, bytes and seconds so far; per kind of call, how many there were and how long the host worked on them.

    `waited`: seconds from a job's sending to its result, of all jobs together, as if none had waited beside another.
    """

    jobs: int = 0
    done: int = 0
    taken_up: int = 0
    sent: int = 0
    received: int = 0
    waited: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begun(self) -> int:
        """The number of a job that begins."""
        with self.lock:
            self.jobs += 1
            return self.jobs

    def ended(self, sent: int, received: int, waited: float, taken_up: bool) -> None:
        with self.lock:
            self.done += 1
            self.taken_up += taken_up
            self.sent, self.received, self.waited = self.sent + sent, self.received + received, self.waited + waited

    def add(self, kind: str, calls: int, seconds: float) -> None:
        """Calls of a kind were answered."""
        with self.lock:
            self.calls[kind] = self.calls.get(kind, 0) + calls
            self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    def to_json(self) -> dict[str, Any]:
        kinds = {
            kind: {"calls": count, "seconds": round(self.seconds[kind], 2)}
            for kind, count in sorted(self.calls.items())
        }
        return {
            "jobs": self.jobs,
            "taken_up": self.taken_up,
            "sent": self.sent,
            "received": self.received,
            "waited": round(self.waited, 2),
            "kinds": kinds,
        }
