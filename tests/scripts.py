"""The real scripts in real processes, on small generated images."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import psutil
from PIL import Image
from small_network import SMALL

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
MPIRUN = (str(BIN / "mpirun"), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n")
MARK = "RUN_UNDER_TEST"

# Every random draw that training knows, and checkpoints that come and go.
TWINS = {
    "interpolation": "random",
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "mixup": 0.8,
    "cutmix": 1.0,
    "re_prob": 0.5,
    "re_value": "pixel",
    "drop_path_rate": 0.3,
    "label_smoothing": 0.1,
    "gradient_accumulation_steps": 2,
    "ema": True,
    "ema_decay": 0.9,
    "val_while_train": True,
    "ckpt_save_policy": "top_k",
    "keep_checkpoint_max": 2,
}

RECIPE = """\
device_target: CPU
num_parallel_workers: 1
python_multiprocessing: false
data_dir: data
image_resize: 32
batch_size: 8
lr: 0.001
warmup_epochs: 1
epoch_size: 3
log_interval: 2
ckpt_save_dir: run
"""


@dataclass(frozen=True)
class Ended:
    """How a script ended."""

    code: int
    out: str
    err: str


def write_images(
    root: Path, per_class: int, classes: int = 3, size: tuple[int, int] = (40, 36)
) -> None:
    """Write `root/class<k>/<i>.png`: noise of which each class has a tint, too weak to be easy."""
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(per_class):
            rng = np.random.default_rng([label, number])
            pixels = rng.integers(0, 256, (size[1], size[0], 3)) + rng.normal(0, 25, 3)
            pixels[..., label % 3] += 12
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / f"class{label}" / f"{number:02d}.png")


def write_workspace(folder: Path, per_class: int = 16, model: str = SMALL) -> Path:
    """Fill a folder with `recipe.yaml` and the images it names, 3 classes; give the folder."""
    write_images(folder / "data" / "train", per_class)
    write_images(folder / "data" / "val", 7)
    (folder / "recipe.yaml").write_text(f"model: {model}\n{RECIPE}")
    return folder


def command(script: str, ranks: int = 1, **keys: Any) -> list[str]:
    """Give the command line of a script with `recipe.yaml`; keys become flags.

    The script knows the small network beside the variants.
    """
    launcher = [] if ranks == 1 else [*MPIRUN, str(ranks)]
    flags = [word for key, value in keys.items() for word in (f"--{key}", _text(value))]
    python = [sys.executable, str(ROOT / "tests" / "small_network.py")]
    return [*launcher, *python, str(ROOT / script), "--config", "recipe.yaml", *flags]


def _text(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


# Compiling graph kernels would double the time of the suite; the tests of the Cells have them.
NO_KERNELS = {"MINDCV_POOLFORMER_GRAPH_KERNELS": "0"}


class Running:
    """A command at work in a folder, with all the processes that come of it."""

    def __init__(self, folder: Path, words: list[str], **streams: Any) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            env={
                **NO_KERNELS,
                **os.environ,
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                MARK: self.mark,
            },
            text=True,
            start_new_session=True,
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams),
        )

    def finish(self, within: float = 240) -> Ended:
        """Wait for the end; no process of the command may outlive it."""
        try:
            out, err = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        deadline = time.monotonic() + 5
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        left = [process.cmdline() for process in self._alive()]
        self.kill()
        assert left == []
        return Ended(self.process.returncode, out, err)

    def commands(self) -> list[list[str]]:
        """The command line of every process of the command."""
        found = []
        for process in self._alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(process.cmdline())
        return found

    def kill(self) -> None:
        """End every process of the command at once."""
        for process in self._alive():
            process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _alive(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.is_running():
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def run(script: str, folder: Path, ranks: int = 1, within: float = 240, **keys: Any) -> Ended:
    """Run a script to its end in a folder that `write_workspace` filled."""
    return Running(folder, command(script, ranks, **keys)).finish(within)


def weights(path: Path) -> dict[str, np.ndarray]:
    """Read a checkpoint's parameters with MindSpore alone."""
    entries = ms.load_checkpoint(str(path))
    return {name: entry.asnumpy() for name, entry in entries.items() if name != "metadata"}


def assert_equal_weights(first: Path, second: Path) -> None:
    """Hold two checkpoints against each other, bit by bit."""
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].tobytes() != other[name].tobytes()] == []


@dataclass(frozen=True)
class Twins:
    """The recipe TWINS in a workspace, trained in two folders of it.

    `plain` wrote to pipes, with a thread as data worker; `terminal` to a terminal, whose text is
    `screen`, with two processes as data workers.
    """

    workspace: Path
    ended: Ended
    screen: str

    @property
    def plain(self) -> Path:
        return self.workspace / "plain"

    @property
    def terminal(self) -> Path:
        return self.workspace / "terminal"


def train_twins(folder: Path) -> Twins:
    """Train both at the same time; each takes half of two cores."""
    write_workspace(folder)
    workers = {"num_parallel_workers": 2, "python_multiprocessing": True}
    plain = Running(folder, command("train.py", ckpt_save_dir="plain", **TWINS))
    words = command("train.py", ckpt_save_dir="terminal", **workers, **TWINS)
    screen, code = run_on_terminal(folder, words)
    ended = plain.finish()
    assert (ended.code, code) == (0, 0), ended.err + screen
    return Twins(folder, ended, screen)


def run_on_terminal(folder: Path, words: list[str]) -> tuple[str, int]:
    """Run a command with a terminal as its output; give all it showed, and its exit code."""
    ours, theirs = pty.openpty()
    rows_and_columns = struct.pack("HHHH", 24, 120, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, rows_and_columns)
    running = Running(folder, words, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # how Linux tells that the last process has closed the terminal
        os.close(ours)
    return shown.decode(), running.finish().code
