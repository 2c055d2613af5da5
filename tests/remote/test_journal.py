"""The journal of jobs under way: shared by processes, forgiving, and without a secret."""

from pathlib import Path

from ssn_probe.remote.journal import Journal

A_JOB = ("name", "https://api.ndif.us", "model")


def test_a_job_is_found_by_name_host_and_model_until_it_has_ended(tmp_path: Path) -> None:
    Journal(folder=tmp_path / "jobs").note(*A_JOB, "job1")
    journal = Journal(folder=tmp_path / "jobs")
    found = journal.find(*A_JOB)
    assert found is not None
    assert found.job == "job1"
    assert journal.find("other", *A_JOB[1:]) is None
    assert journal.find("name", "https://other.example", "model") is None
    assert journal.find(*A_JOB[:2], "other") is None
    journal.note("other", *A_JOB[1:], "job2")
    assert journal.jobs() == ["job1", "job2"]
    journal.forget(*A_JOB)
    journal.forget(*A_JOB)
    assert journal.find(*A_JOB) is None
    assert journal.jobs() == ["job2"]


def test_a_fresh_run_finds_no_job_of_an_earlier_one_and_leaves_its_own(tmp_path: Path) -> None:
    Journal(folder=tmp_path).note(*A_JOB, "job1")
    fresh = Journal(folder=tmp_path, fresh=True)
    assert fresh.find(*A_JOB) is None
    fresh.note(*A_JOB, "job2")
    found = Journal(folder=tmp_path).find(*A_JOB)
    assert found is not None
    assert found.job == "job2"


def test_old_ones_expire(tmp_path: Path) -> None:
    now = [1e9]
    journal = Journal(folder=tmp_path, now=lambda: now[0])
    journal.note(*A_JOB, "job1")
    now[0] += 86400
    found = journal.find(*A_JOB)
    assert found is not None
    assert found.age == 86400
    now[0] += 86400
    assert journal.find(*A_JOB) is None
    journal.note(*A_JOB, "job2")
    now[0] += 3 * 86400
    journal.note("other", *A_JOB[1:], "job3")
    assert len(list(tmp_path.iterdir())) == 1
    now[0] -= 10 * 86400  # a clock that was set back
    assert journal.find("other", *A_JOB[1:]) is None


def test_damaged_entries_are_none(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"job": "a"}', '{"job": "a", "sent": "b"}'):
        journal = Journal(folder=tmp_path)
        journal.note(*A_JOB, "job1")
        [path] = tmp_path.iterdir()
        path.write_text(content, encoding="utf-8")
        assert journal.jobs() == []
        assert journal.find(*A_JOB) is None
        assert list(tmp_path.iterdir()) == []


def test_where_nothing_was_noted(tmp_path: Path) -> None:
    journal = Journal(folder=tmp_path / "none")
    assert journal.jobs() == []
    assert journal.find(*A_JOB) is None
    assert not (tmp_path / "none").exists()
