"""Runs inside_the_server.py, which tells why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tritonclient", reason="needs the extra serving")

TESTS = Path(__file__).with_name("inside_the_server.py")


def test_inside_the_server(served: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", TESTS]
    done = subprocess.run(
        words, env={**os.environ, "BUNDLE": str(served)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
