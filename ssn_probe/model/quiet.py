"""transformers without its bars and warnings."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """transformers reports what it loaded on stderr: we read the report, and say what it means."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the only one
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
