"""What can go wrong with a host, as errors that say what is the case and what to do."""

from ssn_probe.errors import RemoteError


class JobTooLargeError(RemoteError):
    """A job that asks too much of the host: a smaller one may succeed."""


class HostMemoryError(JobTooLargeError):
    """A job that the host's memory does not suffice for."""


class HostTimeoutError(JobTooLargeError):
    """A job that ran longer than the host allows."""


class StoppedWaiting(Exception):
    """Nobody waits for a job any more, since `stop` was set; the host has it still if `job` is its id."""

    def __init__(self, job: str | None):
        super().__init__(job)
        self.job = job
