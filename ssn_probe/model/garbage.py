"""When Python looks for garbage among what a model is made of."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_for_later() -> Iterator[None]:
    """Inside, Python looks for no garbage; after it, what was made is looked through as old objects are, seldom.

    Imports of torch and transformers, and a model, make half a million objects, of which nearly all stay: to look
    through them again and again takes a quarter of the time, and finds ten megabytes.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else others' objects would be thawed
            gc.freeze()
            gc.unfreeze()  # all are now in the oldest generation, and none has been looked at
        gc.enable()
