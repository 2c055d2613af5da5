"""Files of others are regular files within a limit, or one error: nothing waits and nothing is read whole unseen."""

import os
import socket

import pytest

from ssn_probe.errors import DataError, ModelError
from ssn_probe.limits import check_regular, read_limited


def test_a_file_within_the_limit_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"1234")
    assert read_limited(tmp_path / "file", 4, DataError) == b"1234"
    assert check_regular(tmp_path / "file", 4, DataError) == 4


def test_a_larger_file_is_refused_with_the_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    for read in (read_limited, check_regular):
        with pytest.raises(DataError, match="more than 0"):
            read(tmp_path / "file", 4, DataError)
    assert check_regular(tmp_path / "file", None, DataError) == 5


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device", "nothing", "null"])
def test_what_is_no_regular_file_is_one_error_at_once(tmp_path, monkeypatch, kind):
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            monkeypatch.chdir(tmp_path)  # a socket's path has at most some hundred characters
            bound.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "null":
        path = tmp_path / "a\0b"
    for read in (read_limited, check_regular):
        with pytest.raises(ModelError):
            read(path, 10, ModelError)
