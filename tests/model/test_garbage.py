"""While a model is made, Python looks for no garbage, and what was made is old from then on."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

import ssn_probe
from ssn_probe.model.garbage import left_for_later

WATCHED = """
import gc
from ssn_probe.model.garbage import left_for_later
with left_for_later():
    made = [[number] for number in range(5000)]
    assert not gc.isenabled()
assert gc.isenabled()
old = {id(one) for one in gc.get_objects(generation=2)}
assert all(id(one) in old for one in made)
assert not gc.get_freeze_count()
gc.freeze()
frozen = gc.get_freeze_count()
with left_for_later():
    pass
assert gc.get_freeze_count() == frozen
"""


def test_what_is_made_inside_is_old_and_nothing_is_thawed() -> None:
    package = Path(ssn_probe.__file__).parents[1]
    subprocess.run([sys.executable, "-c", WATCHED], check=True, cwd=package)


def test_garbage_is_looked_for_again_whatever_happens() -> None:
    with pytest.raises(KeyError), left_for_later():
        raise KeyError
    assert gc.isenabled()


def test_who_looks_for_none_stays_so() -> None:
    gc.disable()
    try:
        with left_for_later():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
