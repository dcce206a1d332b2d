"""What the caller leaves open or wrong: variables, standard streams, a home."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from mindcv_poolformer.runtime import cpu
from mindcv_poolformer.runtime.environment import home, whole_number
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.runtime.launch import World, discover
from mindcv_poolformer.weights.pretrained import fetch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that runs as a number: no $HOME, and a user whom nobody knows."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "MINDCV_POOLFORMER_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("given", ["~", "$HOME", "home", ""])
def test_a_home_that_is_no_absolute_path_is_ignored(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("HOME", given)
    assert home() == Path(pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.setenv("HOME", "/somewhere")
    assert home() == Path("/somewhere")


@pytest.mark.parametrize(("text", "number"), [("", None), (" ", None), ("3", 3), (" 12 ", 12)])
def test_whole_numbers(monkeypatch: pytest.MonkeyPatch, text: str, number: int | None) -> None:
    monkeypatch.setenv("COUNT", text)
    assert whole_number("COUNT", 1) == number


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5", "1e3", "1_0", "\u0663"])
def test_what_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("COUNT", text)
    with pytest.raises(UserError, match=f"COUNT: found '{text}', expected an integer >= 1, or"):
        whole_number("COUNT", 1)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OMPI_COMM_WORLD_SIZE": ""}, None),
        ({"PMI_SIZE": "", "MS_WORKER_NUM": "many"}, None),  # nobody reads it without MS_ROLE
        ({"OMPI_COMM_WORLD_SIZE": "two"}, "OMPI_COMM_WORLD_SIZE: found 'two'"),
        ({"MS_ROLE": "MS_WORKER", "MS_NODE_ID": "one"}, "MS_NODE_ID: found 'one'"),
        ({"MS_ROLE": "MS_WORKER", "MS_NODE_ID": ""}, "msrun: found several hosts"),
        ({"MS_ROLE": "MS_WORKER", "MS_NODE_ID": "0"}, "MS_ROLE: found it without MS_WORKER_NUM"),
        (
            {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": "0", "MS_WORKER_NUM": "2"},
            "MS_ROLE: found it without DEVICE_ID",
        ),
    ],
)
def test_launchers_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str | None
) -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MS_ROLE", "MS_WORKER_NUM", "DEVICE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cpu.defaults()["OMP_WAIT_POLICY"] == "PASSIVE"  # importing stumbles over none of them
    if said is None:
        assert discover() == World()
    else:
        with pytest.raises(UserError, match=said):
            discover()


def test_msruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "8", "MS_NODE_ID": "5", "DEVICE_ID": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert discover() == World(rank=5, size=8, local_rank=1, launcher="msrun")


def test_without_a_home_nothing_is_written_where_it_runs(
    homeless: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert home() is None
    assert "MS_COMPILER_CACHE_PATH" not in cpu.defaults()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert "MS_COMPILER_CACHE_PATH" not in cpu.defaults()
    with pytest.raises(UserError, match="cache_dir: found '~/.cache/.*' with no home folder"):
        fetch("https://127.0.0.1:1/model.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_home_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    assert home() == Path(pwd.getpwuid(os.getuid()).pw_dir)


DRAW = """
import os, pwd, sys
from pathlib import Path
del os.environ["HOME"]
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
from mindcv_poolformer.runtime.figures import drawn
with drawn(Path("figure.png"), 1, 1): pass
"""


def test_without_a_home_figures_are_drawn(tmp_path: Path) -> None:
    ended = python(tmp_path, "-c", DRAW, HOME=str(tmp_path), XDG_CONFIG_HOME="", XDG_CACHE_HOME="")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


FIRST_FILE = """
import os, sys
import mindcv_poolformer
file = open("first", "w")
print("out", flush=True), print("err", file=sys.stderr, flush=True), os.write(1, b"native")
sys.exit(file.fileno() < 3 or sys.stdin.read() != "")
"""


def test_closed_streams_lead_nowhere_and_into_no_file(tmp_path: Path) -> None:
    closing = f'exec "{sys.executable}" -c "$0" <&- >&- 2>&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["sh", "-c", closing, FIRST_FILE]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, timeout=120)
    assert ended.returncode == 0
    assert (tmp_path / "first").read_bytes() == b""


def test_a_log_level_that_is_none_is_one_line(tmp_path: Path) -> None:
    ended = python(tmp_path, str(ROOT / "train.py"), GLOG_v="loud")
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: GLOG_v: found 'loud', expected 0 (all) to 4 (least), or it unset\n"
    )


def test_what_does_not_matter_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    wrong = dict.fromkeys(("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MS_WORKER_NUM"), "x")
    empty = dict.fromkeys(("OMP_NUM_THREADS", "GLOG_v", "MS_COMPILER_CACHE_PATH"), "")
    command = ("-m", "mindcv_poolformer.data", "check", "empty")
    ended = python(tmp_path, *command, **wrong, **empty)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: empty: found no image")
    assert ended.stderr.count("\n") == 1


def python(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
