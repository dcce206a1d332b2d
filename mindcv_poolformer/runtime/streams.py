"""Standard streams that the caller has closed."""

from __future__ import annotations

import os
import sys


def open_closed() -> None:
    """Lead closed standard streams to nowhere; to call before anything opens a file.

    The next file would get the closed one's number, and MindSpore's messages with it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)
