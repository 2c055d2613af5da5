"""What has travelled to a host and back in a run, for its manifest."""

import threading
from dataclasses import dataclass, field
from typing import Any

from ssn_probe.remote.transport import JobState


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
    states: dict[int, JobState] = field(default_factory=dict)
    """What the host said last of every job under way, by number."""
    left: list[str] = field(default_factory=list)
    """The ids of jobs that nobody waits for any more."""
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

    def note(self, number: int, state: JobState | None) -> str:
        """How the jobs are now that the host says this of one of them; None where nobody waits for it any more."""
        with self.lock:
            self.states.pop(number, None)
            if state is not None:
                self.states[number] = state
            return self._in_words()

    def _in_words(self) -> str:
        running = sum(state.status == "running" for state in self.states.values())
        places = [state.position for state in self.states.values() if state.position is not None]
        others = len(self.states) - running
        queue = f" (position {min(places)})" if places else ""
        troubles = {state.text for state in self.states.values() if state.status == "retrying"}
        earlier = f" ({self.taken_up:,} of them sent by an earlier run)" if self.taken_up else ""
        parts = [f"{self.done:,} done{earlier}", f"{running} running", f"{others} queued{queue}"]
        return "; ".join([f"jobs at the host: {', '.join(parts)}", *sorted(troubles)])

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
