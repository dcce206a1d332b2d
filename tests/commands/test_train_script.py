"""train.py as a user runs it: what it says, writes, continues and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import forked
import mindspore as ms
import pytest
from PIL import Image
from scripts import (
    TWINS,
    Running,
    Twins,
    assert_equal_weights,
    command,
    run,
    weights,
    write_workspace,
)
from small_network import DEPTHS, DIMS, SMALL
from tensorboardX.proto.event_pb2 import Event

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.training.schedule import learning_rates

pytestmark = pytest.mark.long

EPOCH_STEPS = 6  # 48 images in batches of 8


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == kind]


def metadata(path: Path) -> dict[str, Any]:
    return json.loads(ms.load_checkpoint(str(path))["metadata"])


def run_files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def recipe_of(folder: Path, **keys: Any) -> Recipe:
    path = str(folder / "recipe.yaml")
    flags = command("train.py", **keys)[5:]
    return parse_recipe(flags, description="", default_config=path)


# What a run leaves behind


def test_the_run_folder_holds_these_files(twins: Twins) -> None:
    best_two = sorted(records(twins.plain, "val"), key=lambda row: (row["top1"], row["epoch"]))[1:]
    kept = sorted(f"epoch_{row['epoch']:04d}.ckpt" for row in best_two)
    always = ".lock best.ckpt classes.json curves.png last.ckpt metrics.jsonl previous.ckpt"
    always += " recipe.yaml tensorboard training_images.txt.gz"
    assert run_files(twins.plain) == sorted([*always.split(), *kept])


def test_the_best_checkpoint_is_the_best(twins: Twins) -> None:
    top1 = {row["epoch"]: row["top1"] for row in records(twins.plain, "val")}
    assert list(top1) == [1, 2, 3]
    best = metadata(twins.plain / "best.ckpt")
    assert best["top1"] == top1[best["epoch"]] == max(top1.values())
    assert_equal_weights(twins.plain / "best.ckpt", twins.plain / f"epoch_{best['epoch']:04d}.ckpt")


def test_the_recipe_in_the_folder_is_the_one_that_ran(twins: Twins) -> None:
    asked = recipe_of(twins.workspace, ckpt_save_dir="plain", **TWINS)
    assert recipe_of(twins.plain) == asked


def test_the_classes_have_their_index(twins: Twins) -> None:
    index = json.loads((twins.plain / "classes.json").read_text())
    assert index == {"class0": 0, "class1": 1, "class2": 2}


def test_the_metrics_follow_the_steps_and_the_schedule(twins: Twins) -> None:
    train, val = records(twins.plain, "train"), records(twins.plain, "val")
    assert [row["step"] for row in train] == list(range(2, 19, 2))
    assert [row["step"] for row in val] == [6, 12, 18]
    rates = learning_rates(recipe_of(twins.plain).schedule, 0.001, EPOCH_STEPS)
    assert [row["lr"] for row in train] == [float(rates[row["step"] - 1]) for row in train]
    assert [row["images"] for row in val] == [21] * 3
    assert len({row["loss"] for row in val}) == 3  # of the weights that each epoch has left
    assert all(row["images_per_second"] > 0 for row in train[1:])


def test_tensorboard_holds_the_same_scalars(twins: Twins) -> None:
    (path,) = (twins.plain / "tensorboard").iterdir()
    scalars = {
        (value.tag, event.step): value.simple_value
        for event in tensorboard_events(path.read_bytes())
        for value in event.summary.value
    }
    for kind in ("train", "val"):
        for row in records(twins.plain, kind):
            assert scalars[f"{kind}/loss", row["step"]] == pytest.approx(row["loss"], rel=1e-6)


def tensorboard_events(data: bytes) -> list[Event]:
    """Read a TFRecord file: length (8 bytes), its checksum (4), an event, its checksum (4)."""
    events = []
    while data:
        end = 12 + int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12:end]))
        data = data[end + 4 :]
    return events


def test_the_curves_are_a_picture_of_something(twins: Twins) -> None:
    with Image.open(twins.plain / "curves.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert len(colours) > 100


def test_last_checkpoint_loads_into_the_network_by_name(twins: Twins) -> None:
    entries = ms.load_checkpoint(str(twins.plain / "last.ckpt"))
    network = PoolFormer(DEPTHS, DIMS, num_classes=3)
    missing, _ = ms.load_param_into_net(network, entries)
    assert missing == []
    assert (network.head.weight.asnumpy() == entries["head.weight"].asnumpy()).all()


def test_without_a_terminal_it_prints_plain_lines(twins: Twins) -> None:
    assert twins.ended.err == ""
    assert "\r" not in twins.ended.out and "\x1b" not in twins.ended.out
    first, compiling, compiled, *lines, best, curves = twins.ended.out.splitlines()
    assert "48 training images of 3 classes, 3 epochs of 6 steps of 8 images" in first
    model = recipe_of(twins.plain).model.model
    assert compiling == f"compiling the training step of {model}, once: this may take minutes"
    assert re.fullmatch(r"compiled, and the first step done: [\d.]+ s", compiled)
    step = r"epoch {}/3  step [246]/6  loss \d+\.\d{{4}}  lr [\d.e-]+  [\d.]+ images/s  ETA 0:.*"
    epoch = r"epoch {}/3: [\d.]+ s, training loss [\d.]+; validation top-1 [\d.]+ %, .*"
    for number in range(3):
        for line in lines[4 * number :][:3]:
            assert re.fullmatch(step.format(number + 1), line)
        assert re.fullmatch(epoch.format(number + 1), lines[4 * number + 3])
    assert len(lines) == 12
    assert "plain/best.ckpt" in best
    assert curves == "curves: plain/curves.png"


def test_a_terminal_shows_a_bar(twins: Twins) -> None:
    bars = [part for part in twins.screen.split("\r") if "img/s" in part and "loss" in part]
    assert re.search(
        r"\d+%\|.*\| \d+/144 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+img/s, loss [\d.]+, lr [\d.e-]+\]",
        bars[-2],
    )
    assert "step 2/6" not in twins.screen
    assert twins.screen.count("compiling the training step of ") == 1
    assert twins.screen.count("compiled, and the first step done: ") == 1
    for epoch in (1, 2, 3):
        assert twins.screen.count(f"epoch {epoch}/3: ") == 1


# Equal seeds give equal runs, bit by bit, whatever the workers; other seeds do not


def test_threads_and_processes_train_the_same_weights(twins: Twins) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        assert_equal_weights(twins.plain / name, twins.terminal / name)


@pytest.fixture(scope="module")
def short(twins: Twins) -> Path:
    """The twins' recipe for one epoch, two threads as workers; the checkpoint it ends with."""
    return train_one_epoch(twins, "short", seed=42, num_parallel_workers=2)


def train_one_epoch(twins: Twins, save_dir: str, **keys: object) -> Path:
    shorter = TWINS | {"epoch_size": 1, "warmup_epochs": 0, "ckpt_save_policy": None}
    keys = shorter | {"mode": 1, "ckpt_save_dir": save_dir} | keys
    ended = forked.run("train.py", twins.workspace, **keys)
    assert (ended.code, ended.err) == (0, "")
    return twins.workspace / save_dir / "last.ckpt"


def test_the_number_of_threads_changes_nothing(twins: Twins, short: Path) -> None:
    assert_equal_weights(short, train_one_epoch(twins, "one-thread", num_parallel_workers=1))


def test_another_seed_trains_other_weights(twins: Twins, short: Path) -> None:
    other = weights(train_one_epoch(twins, "other-seed", seed=43))
    same = [
        name
        for name, value in weights(short).items()
        if name.endswith("weight") and "exp_avg" not in name and (value == other[name]).any()
    ]
    assert same == []


# Going on


def test_a_finished_run_is_left_as_it_is(twins: Twins) -> None:
    files = [p for p in twins.plain.glob("*.*") if p.suffix != ".png" and p.name != ".lock"]
    before = {p: p.read_bytes() for p in files}
    again = forked.run("train.py", twins.workspace, ckpt_save_dir="plain", **TWINS)
    assert (again.code, again.err) == (0, "")
    assert "step" not in "".join(again.out.splitlines()[1:])
    assert {p: p.read_bytes() for p in before} == before


def test_a_killed_run_goes_on_as_if_nothing_had_happened(twins: Twins) -> None:
    keys = TWINS | {"ckpt_save_policy": "latest_k", "keep_checkpoint_max": 1, "ckpt_save_steps": 2}
    keys["ckpt_save_dir"] = "killed"
    first = Running(twins.workspace, command("train.py", **keys))
    for line in first.process.stdout:
        if line.startswith("epoch 2/3  step 4/6"):
            break
    first.kill()
    folder = twins.workspace / "killed"
    saved = metadata(folder / "last.ckpt")["position"]["step"] - EPOCH_STEPS
    assert saved in (2, 4)  # within the epoch, of whose fourth step the line tells before it saves

    second = run("train.py", twins.workspace, **keys)
    assert (second.code, second.err) == (0, "")
    assert "epoch 1/3" not in second.out
    assert_equal_weights(folder / "last.ckpt", twins.plain / "last.ckpt")
    assert [row["loss"] for row in records(folder, "train")] == [
        row["loss"] for row in records(twins.plain, "train")
    ]
    assert metadata(folder / "best.ckpt") == metadata(twins.plain / "best.ckpt")
    assert [name for name in run_files(folder) if name.startswith(("epoch", "."))] == [
        ".lock",
        "epoch_0003.ckpt",
    ]


def test_resume_false_starts_anew(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    keys = {"mode": 1, "epoch_size": 1, "warmup_epochs": 0, "batch_size": 24}
    keys |= {"ckpt_save_policy": None, "log_interval": 1}
    assert forked.run("train.py", tmp_path, **keys).code == 0
    old = weights(tmp_path / "run" / "last.ckpt")
    ended = forked.run("train.py", tmp_path, **keys, resume=False, seed=7)
    assert (ended.code, ended.err) == (0, "")
    assert (weights(tmp_path / "run" / "last.ckpt")["head.weight"] != old["head.weight"]).any()
    assert [row["step"] for row in records(tmp_path / "run", "train")] == [1, 2]
    assert "epoch_0001.ckpt" not in run_files(tmp_path / "run")


def test_a_step_is_counted_without_being_run(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    ended = forked.run("train.py", tmp_path, compile_only=True)
    assert (ended.code, ended.err) == (0, "")
    model, operators, memory, seconds = ended.out.splitlines()
    count = sum(p.size for p in PoolFormer(DEPTHS, DIMS, num_classes=3).get_parameters())
    assert model.startswith(f"{SMALL}: {count:,} parameters, {count:,} of them trained; 8 images")
    assert int(re.match(r"operators a step: ([\d,]+);", operators)[1].replace(",", "")) > 500
    assert memory.startswith("memory, at least: ") and seconds.startswith("compiled in ")
    assert not (tmp_path / "run").exists()


# Refused


def test_another_recipe_in_the_folder_is_refused(twins: Twins) -> None:
    keys = TWINS | {"mixup": 0.4, "ckpt_save_dir": "plain"}
    ended = forked.run("train.py", twins.workspace, **keys)
    assert ended.code == 1
    assert ended.out == ""
    assert re.fullmatch(r"error: resume: [^\n]*mixup 0\.8[^\n]* 0\.4[^\n]*\n", ended.err)
