"""Jobs that an earlier run had sent, and results whose address has expired."""

from pathlib import Path

import pytest
from bad_network import MadeUp, Network, drop, run, same, says

from ssn_probe.errors import RemoteError
from ssn_probe.remote import transport
from ssn_probe.remote.journal import Journal


class TestExpiredAddresses:
    def test_there_is_a_new_one(self, network: Network, made_up: MadeUp) -> None:
        network.faults["GET /store"] = [says(403)]
        assert same(run(network).values)
        assert made_up.sent == 1

    def test_there_is_none(self, network: Network, made_up: MadeUp) -> None:
        made_up.says = [{"status": "COMPLETED", "data": f"{network.url}/store/x"}]
        network.faults["GET /store"] = [says(404)]
        assert same(run(network).values)
        assert made_up.sent == 2

    def test_nor_later(self, network: Network, made_up: MadeUp) -> None:
        network.faults["GET /store"] = [says(403)] * 100
        with pytest.raises(RemoteError, match=r"has the result of a job no more \(403\)"):
            run(network)
        assert made_up.sent == transport.SENDS


class TestTakingUp:
    @pytest.fixture
    def journal(self, tmp_path: Path, network: Network) -> Journal:
        """A run was killed after it had sent a job."""
        journal = Journal(folder=tmp_path)
        network.faults["GET /response"] = [says(400, "over")]
        with pytest.raises(RemoteError):
            run(network, name="n", journal=journal)
        assert journal.jobs() == ["job1"]
        return journal

    def test_a_job_that_is_there_still(self, network: Network, made_up: MadeUp, journal: Journal) -> None:
        found = run(network, name="n", journal=journal)
        assert same(found.values)
        assert (found.taken_up, found.sent, found.job, made_up.sent) == (True, 0, "job1", 1)
        assert journal.jobs() == []

    def test_another_job(self, network: Network, made_up: MadeUp, journal: Journal) -> None:
        assert not run(network, name="m", journal=journal).taken_up
        assert journal.jobs() == ["job1"]

    def test_a_job_that_is_gone(self, network: Network, made_up: MadeUp, journal: Journal) -> None:
        made_up.looks.clear()
        found = run(network, name="n", journal=journal)
        assert same(found.values)
        assert (found.taken_up, found.job) == (False, "job2")

    def test_a_job_that_failed(self, network: Network, made_up: MadeUp, journal: Journal) -> None:
        """What made it fail may be over."""
        network.faults["GET /response"] = [
            lambda asked, upstream: made_up._said({"id": "job1", "status": "ERROR", "description": "no"})
        ]
        assert run(network, name="n", journal=journal).job == "job2"

    def test_a_result_that_is_damaged(self, network: Network, made_up: MadeUp, journal: Journal) -> None:
        network.faults["GET /store"] = [says(200)]
        assert run(network, name="n", journal=journal).job == "job2"

    def test_a_network_that_fails_for_good_loses_no_job(
        self, network: Network, made_up: MadeUp, journal: Journal
    ) -> None:
        network.faults["GET /response"] = [drop] * 1000
        with pytest.raises(RemoteError, match="broke"):
            run(network, name="n", journal=journal)
        network.faults.clear()
        assert run(network, name="n", journal=journal).taken_up
