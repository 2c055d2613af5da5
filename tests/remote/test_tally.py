"""How jobs are, in words, and what has travelled."""

from ssn_probe.remote.tally import Tally
from ssn_probe.remote.transport import JobState


def test_jobs_in_words() -> None:
    tally = Tally()
    first, second, third = tally.begun(), tally.begun(), tally.begun()
    tally.note(first, JobState(job="a", status="running"))
    tally.note(second, JobState(job="b", status="queued", position=4, text="position 4"))
    text = tally.note(third, JobState(job="c", status="queued", position=3, text="position 3"))
    assert text == "jobs at the host: 0 done, 1 running, 2 queued (position 3)"
    tally.ended(10, 20, 1.5, False)
    assert tally.note(first, None) == "jobs at the host: 1 done, 0 running, 2 queued (position 3)"
    troubled = tally.note(second, JobState(job="b", status="retrying", text="The host cannot be reached"))
    assert troubled.endswith("; The host cannot be reached")
    tally.ended(0, 20, 1.5, True)
    assert "2 done (1 of them sent by an earlier run), 0 running" in tally.note(second, None)


def test_what_travelled_adds_up() -> None:
    tally = Tally()
    tally.begun()
    tally.ended(100, 2_000, 1.234, True)
    tally.ended(50, 1_000, 1.0, False)
    tally.add("log odds", 3, 0.5)
    tally.add("log odds", 1, 0.25)
    assert tally.to_json() == {
        "jobs": 1,
        "taken_up": 1,
        "sent": 150,
        "received": 3_000,
        "waited": 2.23,
        "kinds": {"log odds": {"calls": 4, "seconds": 0.75}},
    }
