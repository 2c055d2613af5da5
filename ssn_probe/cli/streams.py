"""Standard output that somebody closed, or a disk that is full: the work goes on, and its outcome is the exit code.

`ssn-probe results | head` closes the pipe early, which is no mistake. Output that is lost in any other way is said
once, when the work is done.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Output(io.FileIO):
    """A file descriptor that takes what it cannot write, and remembers why."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                raise
            self.lost = self.lost or error
            return memoryview(data).nbytes


@contextmanager
def lasting_output() -> Iterator[None]:
    """Standard output and error that never break off a command. Exits with 1 where output was lost on a full disk."""
    _occupy()
    before = sys.stdout, sys.stderr
    outputs = [_replace(name) for name in ("stdout", "stderr")]
    code: object = 0
    try:
        yield
    except SystemExit as ended:
        code = ended.code
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        sys.stdout, sys.stderr = before
        lost = outputs[0].lost if outputs[0] else None
        if lost is not None and lost.errno != errno.EPIPE and not code:
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.write(f"Error: the output could not be written: {lost.strerror}\n")
            sys.exit(1)


def _replace(name: str) -> Output | None:
    """Puts an `Output` below a standard stream; one that is no file, as in tests and notebooks, is left alone."""
    stream = getattr(sys, name)
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # without a buffer where PYTHONUNBUFFERED is set
    if not isinstance(stream, io.TextIOWrapper) or type(raw) is not io.FileIO:
        return None
    with suppress(OSError):
        stream.flush()
    output = Output(raw.fileno(), "wb", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or name == "stderr",
        write_through=stream.write_through,
    )
    setattr(sys, name, text)
    return output


def _occupy() -> None:
    """Opens the null device in place of a closed standard stream: the next file would take its number otherwise."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
