"""MindSpore's own log lines, where the error that it raises says the same."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keep Python's loggers silent within the block, MindSpore's among them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def logged_on_success() -> Iterator[None]:
    """Hold back what the block writes to standard error; drop it if the block raises.

    For MindSpore's C++ side, whose log is set up once for the process.
    """
    sys.stderr.flush()
    error_output = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(error_output, 2)
            os.close(error_output)
        held.seek(0)
        os.write(2, held.read())
