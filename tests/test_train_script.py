"""train.py as a user runs it: what it says, writes, continues and refuses."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from scripts import (
    TWINS,
    Ended,
    Running,
    Twins,
    assert_equal_weights,
    command,
    run,
    weights,
    write_images,
    write_workspace,
)
from tensorboardX.proto.event_pb2 import Event

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.training.schedule import learning_rates

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
    flags = command("train.py", **keys)[4:]
    return parse_recipe(flags, description="", default_config=path)


# What a run leaves behind


def test_the_run_folder_holds_these_files(twins: Twins) -> None:
    best_two = sorted(records(twins.plain, "val"), key=lambda row: (row["top1"], row["epoch"]))[1:]
    kept = sorted(f"epoch_{row['epoch']:04d}.ckpt" for row in best_two)
    always = "best.ckpt classes.json curves.png last.ckpt metrics.jsonl recipe.yaml tensorboard"
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


def test_last_checkpoint_loads_into_mindcvs_model_by_name(twins: Twins) -> None:
    entries = ms.load_checkpoint(str(twins.plain / "last.ckpt"))
    network = mindcv.create_model("poolformer_s12", num_classes=3)
    missing, _ = ms.load_param_into_net(network, entries)
    assert missing == []
    assert (network.head.weight.asnumpy() == entries["head.weight"].asnumpy()).all()


def test_without_a_terminal_it_prints_plain_lines(twins: Twins) -> None:
    assert twins.ended.err == ""
    assert "\r" not in twins.ended.out and "\x1b" not in twins.ended.out
    first, *lines, best, curves = twins.ended.out.splitlines()
    assert "48 training images of 3 classes, 3 epochs of 6 steps of 8 images" in first
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
    for epoch in (1, 2, 3):
        assert twins.screen.count(f"epoch {epoch}/3: ") == 1


# Going on


def test_a_finished_run_is_left_as_it_is(twins: Twins) -> None:
    before = {p: p.read_bytes() for p in twins.plain.glob("*.*") if p.suffix != ".png"}
    again = run("train.py", twins.workspace, ckpt_save_dir="plain", **TWINS)
    assert (again.code, again.err) == (0, "")
    assert "step" not in "".join(again.out.splitlines()[1:])
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.long
def test_a_killed_run_goes_on_as_if_nothing_had_happened(twins: Twins) -> None:
    keys = {**TWINS, "ckpt_save_dir": "killed", "ckpt_save_policy": "latest_k"}
    first = Running(twins.workspace, command("train.py", **keys, keep_checkpoint_max=1))
    for line in first.process.stdout:
        if line.startswith("epoch 2/3  step 2/6"):
            break
    first.kill()
    folder = twins.workspace / "killed"
    assert metadata(folder / "last.ckpt")["epoch"] == 1

    second = run("train.py", twins.workspace, **keys, keep_checkpoint_max=1)
    assert (second.code, second.err) == (0, "")
    assert "epoch 1/3" not in second.out
    assert_equal_weights(folder / "last.ckpt", twins.plain / "last.ckpt")
    assert [row["loss"] for row in records(folder, "train")] == [
        row["loss"] for row in records(twins.plain, "train")
    ]
    assert metadata(folder / "best.ckpt") == metadata(twins.plain / "best.ckpt")
    assert [name for name in run_files(folder) if name.startswith(("epoch", "."))] == [
        "epoch_0003.ckpt"
    ]


@pytest.mark.long
def test_resume_false_starts_anew(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    keys = {"mode": 1, "epoch_size": 1, "warmup_epochs": 0, "batch_size": 24}
    keys |= {"ckpt_save_policy": None, "log_interval": 1}
    assert run("train.py", tmp_path, **keys).code == 0
    old = weights(tmp_path / "run" / "last.ckpt")
    ended = run("train.py", tmp_path, **keys, resume=False, seed=7)
    assert (ended.code, ended.err) == (0, "")
    assert (weights(tmp_path / "run" / "last.ckpt")["head.weight"] != old["head.weight"]).any()
    assert [row["step"] for row in records(tmp_path / "run", "train")] == [1, 2]
    assert "epoch_0001.ckpt" not in run_files(tmp_path / "run")


# Options that must do something


@pytest.mark.long
@pytest.mark.parametrize("level", ["O2", "O3", "auto"])
def test_mixed_precision_with_everything_else(tmp_path: Path, level: str) -> None:
    write_workspace(tmp_path)
    keys = {"amp_level": level, "val_amp_level": level, "loss_scale_type": "dynamic"}
    keys |= {"loss_scale": 2.0**40, "ema": True, "ema_decay": 0.5}
    keys |= {"gradient_accumulation_steps": 2, "clip_grad": True, "clip_value": 5.0}
    keys |= {"batch_size": 20, "drop_remainder": False, "num_classes": 5}
    keys |= {"epoch_size": 4, "val_while_train": True, "val_interval": 4, "log_interval": 1}
    keys |= {"ckpt_save_policy": "latest_k", "keep_checkpoint_max": 2}
    ended = run("train.py", tmp_path, **keys)
    assert (ended.code, ended.err) == (0, "")

    folder = tmp_path / "run"
    rows = records(folder, "train")
    assert len(rows) == 12  # 48 images in batches of 20: three a epoch, the last one filled up
    for row in rows:  # one update in two steps; each that overflows halves the scale
        assert row["skipped_updates"] <= row["step"] // 2
        assert row["loss_scale"] == 2.0 ** (40 - row["skipped_updates"])
    assert rows[-1]["skipped_updates"] > 0
    assert all(np.isfinite(row["loss"]) for row in rows)

    last, best = weights(folder / "last.ckpt"), weights(folder / "best.ckpt")
    assert best["head.weight"].shape == (5, 512)
    assert not [name for name in best if name.startswith("train.")]
    averages = [name for name in best if f"train.ema.{name}" in last]
    assert len(averages) == len(best)
    for name in best:
        assert (best[name] == last[f"train.ema.{name}"]).all()
    assert [name for name in run_files(folder) if "epoch" in name] == [
        "epoch_0003.ckpt",
        "epoch_0004.ckpt",
    ]


@pytest.fixture(scope="module")
def restrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A run in PyNative mode from given weights, in file order, with its gradients clipped away."""
    folder = tmp_path_factory.mktemp("restrained")
    write_workspace(folder)
    network = mindcv.create_model("poolformer_s12", num_classes=3)
    rng = np.random.default_rng(1)
    head = rng.normal(size=(3, 512)).astype(np.float32)
    network.head.weight.set_data(Tensor(head))
    ms.save_checkpoint(network, str(folder / "start.ckpt"))
    keys = {"mode": 1, "epoch_size": 1, "warmup_epochs": 0, "log_interval": 1, "shuffle": False}
    keys |= {"ckpt_path": "start.ckpt", "ckpt_save_policy": None, "weight_decay": 0.0}
    keys |= {"clip_grad": True, "clip_value": 1e-14, "drop_path_rate": 0.0, "batch_size": 24}
    keys |= {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0, "interpolation": "bicubic"}
    return folder, run("train.py", folder, **keys)


@pytest.mark.long
def test_clipped_gradients_leave_the_given_weights(restrained: tuple[Path, Ended]) -> None:
    folder, ended = restrained
    assert (ended.code, ended.err) == (0, "")
    assert [name for name in run_files(folder / "run") if name.endswith("ckpt")] == ["last.ckpt"]
    last = weights(folder / "run" / "last.ckpt")
    for name, start in weights(folder / "start.ckpt").items():
        assert np.abs(last[name] - start).max() < 1e-7


@pytest.mark.long
def test_without_shuffle_the_batches_follow_the_names(restrained: tuple[Path, Ended]) -> None:
    folder, _ = restrained
    network = mindcv.create_model("poolformer_s12", num_classes=3)
    ms.load_param_into_net(network, ms.load_checkpoint(str(folder / "start.ckpt")))
    network.set_train(False)
    paths = sorted((folder / "data" / "train").glob("*/*.png"))
    expected = []
    for batch in (paths[:24], paths[24:]):
        logits = network(Tensor(np.stack([central_square(path) for path in batch]))).asnumpy()
        labels = [int(path.parent.name[-1]) for path in batch]
        odds = np.exp(logits.astype(np.float64))
        chosen = odds[np.arange(24), labels] / odds.sum(axis=1)
        expected.append(-np.log(chosen).mean())
    losses = [row["loss"] for row in records(folder / "run", "train")]
    np.testing.assert_allclose(losses, expected, atol=2e-4)


def central_square(path: Path) -> np.ndarray:
    """A 40 x 36 image's largest centred square at 32 pixels, normalised as ImageNet's."""
    image = Image.open(path).crop((2, 0, 38, 36)).resize((32, 32), Image.Resampling.BICUBIC)
    pixels = (np.asarray(image) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return pixels.transpose(2, 0, 1).astype(np.float32)


# Mistakes: one line each, before anything is written

MISTAKES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no data": ({"data_dir": "nowhere"}, 1, "nowhere/train"),
    "unknown model": ({"model": "poolformer_s13", "drop_path_rate": 0.1}, 1, "poolformer_s13"),
    "no weights": ({"ckpt_path": "mistyped.ckpt"}, 1, "mistyped.ckpt"),
    "corrupt image, processes": (
        {"train_split": "corrupt", "python_multiprocessing": True, "num_parallel_workers": 2},
        1,
        "data/corrupt/class0/00.png",
    ),
    "bad value": ({"lr": -1}, 2, "lr"),
}
MORE_MISTAKES: dict[str, tuple[dict[str, Any], int, str]] = {
    "empty class": ({"train_split": "empty"}, 1, "data/empty/class3"),
    "stranger in val": ({"val_split": "stranger", "val_while_train": True}, 1, "class9"),
    "corrupt image": ({"train_split": "corrupt"}, 1, "data/corrupt/class0/00.png"),
    "corrupt image in val": (
        {"val_split": "corrupt", "val_while_train": True, "mode": 1, "batch_size": 48},
        1,
        "data/corrupt/class0/00.png",
    ),
    "few classes": ({"num_classes": 2}, 1, "num_classes: found 2 with 3 classes"),
    "large batch": ({"batch_size": 49}, 1, "48 images, expected at least 49"),
    "no launcher": ({"distribute": True}, 1, "distribute"),
    "published weights": ({"pretrained": True}, 1, "pretrained"),
    "other weights": ({"ckpt_path": "s24.ckpt"}, 1, "s24.ckpt"),
    "nothing to resume": ({"resume": True}, 1, "last.ckpt"),
    "resume from nowhere": ({"resume": "mistyped.ckpt"}, 1, "mistyped.ckpt"),
    "resume from bare weights": ({"resume": "s24.ckpt"}, 1, "s24.ckpt"),
    "unknown flag": ({"learning_rate": 1}, 2, "learning_rate"),
    "contradiction": ({"ckpt_save_policy": "top_k"}, 2, "ckpt_save_policy"),
}


@pytest.fixture(scope="module")
def mistakable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with all that the mistakes need."""
    folder = write_workspace(tmp_path_factory.mktemp("mistakes"))
    for split in ("empty", "stranger", "corrupt"):
        write_images(folder / "data" / split, 16)
    (folder / "data" / "empty" / "class3").mkdir()
    (folder / "data" / "stranger" / "class2").rename(folder / "data" / "stranger" / "class9")
    damaged = folder / "data" / "corrupt" / "class0" / "00.png"
    damaged.write_bytes(damaged.read_bytes()[:600])
    network = mindcv.create_model("poolformer_s24", num_classes=3)
    ms.save_checkpoint(network, str(folder / "s24.ckpt"))
    return folder


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        *(pytest.param(*case, id=name) for name, case in MISTAKES.items()),
        *(pytest.param(*c, id=name, marks=pytest.mark.long) for name, c in MORE_MISTAKES.items()),
    ],
)
def test_a_mistake_is_one_line(
    mistakable: Path, tmp_path: Path, keys: dict[str, Any], code: int, said: str
) -> None:
    save_dir = tmp_path / "run"
    ended = run("train.py", mistakable, **{"shuffle": False, "ckpt_save_dir": save_dir} | keys)
    assert ended.code == code, ended.err
    assert re.fullmatch(rf"error: [^\n]*{re.escape(said)}[^\n]*\n", ended.err)
    if "corrupt" not in said:  # found when training has begun
        assert ended.out == ""
        assert not save_dir.exists()


def test_another_recipe_in_the_folder_is_refused(twins: Twins) -> None:
    ended = run("train.py", twins.workspace, ckpt_save_dir="plain", **{**TWINS, "mixup": 0.4})
    assert ended.code == 1
    assert ended.out == ""
    assert re.fullmatch(r"error: resume: [^\n]*mixup 0\.8[^\n]* 0\.4[^\n]*\n", ended.err)


@pytest.mark.long
def test_ctrl_c_is_one_word(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    running = Running(tmp_path, command("train.py", python_multiprocessing=True))
    for line in running.process.stdout:
        if "step 2/6" in line:
            break
    running.process.send_signal(signal.SIGINT)
    ended = running.finish(within=30)
    assert (ended.code, ended.err) == (130, "interrupted\n")
