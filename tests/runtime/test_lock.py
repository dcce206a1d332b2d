from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.runtime.lock import locked

ROOT = Path(__file__).parents[2]
HOLDER = """
import os, sys, time
from pathlib import Path
from mindcv_poolformer.runtime.lock import locked
with locked(Path(sys.argv[1])):
    child = os.fork()  # as data workers are
    if child == 0:
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen:
    """Another process that holds the folder `run`, and has a child that does not."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def test_the_second_is_refused(tmp_path: Path, holder: subprocess.Popen) -> None:
    with pytest.raises(UserError, match=f"run: found it in use by process {holder.pid} on "):
        with locked(tmp_path / "run"):
            pytest.fail("two hold it")
    assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {holder.pid} on ")


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, holder: subprocess.Popen) -> None:
    holder.kill()
    holder.wait()
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_folder_that_was_not_used_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "new" / "run"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert sorted(os.listdir(tmp_path / "run")) == [".lock", "file"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="run: cannot be used"), locked(tmp_path / "run"):
        pytest.fail("it holds a file")
