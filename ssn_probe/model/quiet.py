"""transformers without its bars and warnings."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*, errors: bool = True) -> Iterator[None]:
    """transformers reports what it loaded on stderr: we read the report, and say what it means.

    errors: whether it may still report what it takes for one; exceptions are raised in either case.
    """
    import logging as levels

    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the only one
    before = logging.get_verbosity()
    logging.set_verbosity(levels.ERROR if errors else levels.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)
