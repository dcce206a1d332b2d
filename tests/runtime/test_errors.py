"""How a script ends: the line on standard error, the exit code, and --debug."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """\
import os, signal, sys
from pathlib import Path
import numpy as np
from mindcv_poolformer.runtime.arguments import OneLineParser
from mindcv_poolformer.runtime.errors import UserError, run

def ours(): raise UserError("first\\nsecond")
def bug(): raise AssertionError("a bug")
def absent(): open("nowhere/file", "w")
def renamed(): Path("file").touch(); os.rename("file", "nowhere/file")
def nameless():
    with open("/dev/full", "w") as file: file.write("text")
def memory(): np.zeros(10**18)
def no_room():
    from mindspore import Tensor, ops, set_context
    set_context(mode=1)
    ops.broadcast_to(Tensor([1.0]), (10**6, 10**6)).asnumpy()
def no_room_for_a_graph():
    from mindspore import Tensor, nn, set_context
    set_context(mode=0)
    nn.ReplicationPad2d((10**6,) * 4)(Tensor(np.ones((1, 1, 1), np.float32))).asnumpy()
def flags(): OneLineParser().parse_args(sys.argv[1:] or ["--no_such_flag"])
class Cell:
    def __del__(self): os.kill(os.getpid(), signal.SIGINT)
def compiling(): Cell(); raise RuntimeError("Response is empty.")
def words(): print(sys.argv[1:], "\\udcff")

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
run(globals()[sys.argv.pop(1)])
"""


def end_of(
    folder: Path, *words: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> tuple[int, str, str]:
    """Run a function of SCRIPT; give exit code, standard output and standard error."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "",
            "GLOG_v": "4",  # none of MindSpore's own lines
            "MINDCV_POOLFORMER_GRAPH_KERNELS": "0",
        },
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=120,
    )
    return ended.returncode, ended.stdout or "", ended.stderr or ""


def test_ctrl_c_where_python_drops_it_is_the_cause_of_what_follows(tmp_path: Path) -> None:
    assert end_of(tmp_path, "compiling") == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("function", "code", "line"),
    [
        ("ours", 1, "first second"),
        pytest.param(
            "absent", 1, "nowhere/file: No such file or directory", marks=pytest.mark.long
        ),
        pytest.param(
            "renamed", 1, "nowhere/file: No such file or directory", marks=pytest.mark.long
        ),
        pytest.param(
            "nameless", 1, "No space left on device (--debug tells where)", marks=pytest.mark.long
        ),
        pytest.param(
            "memory",
            1,
            "Unable to allocate 6.94 EiB for an array with shape (1000000000000000000,) and data "
            "type float64",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "no_room",
            1,
            "out of memory: found no room for more, expected it: smaller batches or images take "
            "less",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "no_room_for_a_graph",
            1,
            "out of memory: found no room for 16000.02 GB more, expected it: smaller batches or "
            "images take less",
            marks=pytest.mark.long,
        ),
        pytest.param("flags", 2, "unrecognized arguments: --no_such_flag", marks=pytest.mark.long),
    ],
)
def test_a_line_and_with_debug_its_traceback(
    tmp_path: Path, function: str, code: int, line: str
) -> None:
    assert end_of(tmp_path, function) == (code, "", f"error: {line}\n")
    debugged, out, err = end_of(tmp_path, function, "--debug")
    assert (debugged, out) == (code, "")
    assert "Traceback (most recent call last):\n" in err
    assert f", in {function}\n" in err
    assert err.endswith(f"\nerror: {line}\n")


def test_a_bug_shows_its_traceback(tmp_path: Path) -> None:
    code, out, err = end_of(tmp_path, "bug")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback") and err.endswith("AssertionError: a bug\n")


@pytest.mark.long
def test_a_program_of_the_users_own_ends_without_a_word() -> None:
    """Each Cell that is left at the end has MindSpore print its destructor's failure."""
    program = "import mindcv, mindcv_poolformer; model = mindcv.create_model('poolformer_s12')"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("", "")


def test_main_sees_no_debug_and_prints_any_file_name(tmp_path: Path) -> None:
    words = ("words", "--debug", "--seed", "3")
    assert end_of(tmp_path, *words) == (0, "['--seed', '3'] \\udcff\n", "")


@pytest.mark.parametrize("words", [["words"], ["flags", "--help"]])
def test_output_that_cannot_be_written(tmp_path: Path, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        code, _, err = end_of(tmp_path, *words, stdout=full.fileno())
    assert (code, err) == (1, "error: standard output: No space left on device\n")


def test_errors_that_cannot_be_written(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        assert end_of(tmp_path, "words", stderr=full.fileno()) == (0, "[] \\udcff\n", "")
        assert end_of(tmp_path, "flags", stderr=full.fileno()) == (2, "", "")


@pytest.mark.parametrize(
    "words",
    [
        ["train.py"],
        ["validate.py"],
        ["export.py"],
        ["predict.py"],
        ["-m", "mindcv_poolformer.weights"],
        ["-m", "mindcv_poolformer.weights", "convert"],
        ["-m", "mindcv_poolformer.data"],
        ["-m", "mindcv_poolformer.summary"],
    ],
    ids=" ".join,
)
def test_every_help_tells_of_debug(words: list[str]) -> None:
    ended = forked.call(ROOT, [*words, "--help"])
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("  --debug  ") == 1
