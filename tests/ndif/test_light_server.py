"""The server that other tests run against: what it hosts and where, and that it leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from light_ndif import LightNDIF, listening_elsewhere
from remote_bodies import device_of_weights, endless

from ssn_probe.model.subject import load_subject

pytestmark = pytest.mark.ndif


def test_who_is_untrusted_sees_no_weights(ndif: LightNDIF) -> None:
    """What tells the two apart on the public NDIF, too."""
    subject = load_subject("organism", remote=ndif.host)
    assert subject.calls is not None
    assert subject.calls.run(device_of_weights) == "cpu"
    with ndif.untrusted():
        assert subject.calls.run(device_of_weights) == "meta"
    assert subject.calls.run(device_of_weights) == "cpu"
    assert listening_elsewhere(ndif.family()) == []


def test_a_job_that_never_ends_is_ended_and_the_next_one_runs(ndif: LightNDIF) -> None:
    subject = load_subject("organism", remote=ndif.host)
    assert subject.calls is not None
    with ndif.timeout(0.5), pytest.raises(Exception, match=r"execution timeout of 0\.5s"):
        subject.calls.run(endless)
    assert subject.calls.run(device_of_weights) == "cpu"


KILLED = """
import sys, threading
from light_ndif import LightNDIF
from remote_bodies import endless
from ssn_probe.model.subject import load_subject

ndif = LightNDIF()
ndif.add("organism")
subject = load_subject("organism", remote=ndif.host)
before = len(ndif.family())
with ndif.untrusted():
    threading.Thread(target=subject.calls.run, args=(endless,), daemon=True).start()
    while len(ndif.family()) == before:
        pass
    print(ndif.process.pid, ndif.home, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize("who", ["tests", "server"])
def test_nothing_stays_when_one_is_killed(who: str) -> None:
    """The server, redis and a sandbox that has hardly begun end when the tests or the server are gone at once."""
    tests = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what a job says whose server is gone
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
    )
    assert tests.stdout is not None
    pid, home = tests.stdout.readline().split()
    server = psutil.Process(int(pid))
    family = [server, *server.children(recursive=True)]
    assert {"redis-server", "sh"} < {one.name() for one in family}
    assert len(family) >= 4
    os.kill({"tests": tests.pid, "server": server.pid}[who], signal.SIGKILL)
    tests.communicate()  # ends, if it was not killed
    _, alive = psutil.wait_procs(family, timeout=20)
    shutil.rmtree(home, ignore_errors=True)
    assert not alive
