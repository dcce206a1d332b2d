"""python -m mindcv_poolformer.training compare, on hand-made run folders and a real one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from PIL import Image
from scripts import write_workspace

from mindcv_poolformer.config import ModelConfig, Recipe, ScheduleConfig
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.training.__main__ import compare, table
from mindcv_poolformer.training.curves import read_run
from mindcv_poolformer.training.records import Records, write_facts


def train(epoch: float, loss: float | None, speed: float = 100.0) -> dict[str, Any]:
    row = {"kind": "train", "step": round(10 * epoch), "epoch": epoch, "loss": loss, "lr": 0.1}
    return row | {"images_per_second": speed}


def val(epoch: int, top1: float) -> dict[str, Any]:
    return {"kind": "val", "step": 10 * epoch, "epoch": epoch, "loss": 1.0, "top1": top1}


def write_run(folder: Path, rows: Sequence[dict[str, Any]], more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + more)
    (folder / "recipe.yaml").write_text("model: poolformer_s12\nepoch_size: 8\n")
    return folder


def cells(folder: Path) -> list[str]:
    """The columns of a run in the table, but its name."""
    _, line = table([read_run(folder)])
    return re.split(r"  +", line)[1:]


def test_the_table_tells_where_a_run_stands(tmp_path: Path) -> None:
    rows = [train(0.5, 2.5, 90), train(1, 2.25, 100), val(1, 40), train(2, 2, 500), val(2, 30)]
    run = write_run(tmp_path / "run", rows)
    assert cells(run) == ["poolformer_s12", "2/8", "40.00 % (1)", "2.0000", "100.0"]
    write_run(run, [*rows, train(2.5, None)], more='{"kind": "train", "st')  # it writes just now
    assert cells(run) == ["poolformer_s12", "2.5/8", "40.00 % (1)", "2.0000", "100.0"]
    write_run(run, [{"kind": "train", "step": 1, "epoch": 0.1, "loss": None, "lr": 0.1}])
    assert cells(run) == ["poolformer_s12", "0.1/8", "-", "-", "-"]


def test_the_latest_of_equal_validations_is_the_best(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [val(1, 40), val(2, 40), val(3, 39)])
    assert cells(run)[2] == "40.00 % (2)"


def test_records_that_a_resumed_run_has_made_again_count_once(tmp_path: Path) -> None:
    before = [train(1, 9), val(1, 10), train(1.5, 8), train(2, 7), val(2, 99), train(2.5, 6)]
    again = [train(1.5, 5), train(2, 4), val(2, 20)]
    run = read_run(write_run(tmp_path / "run", [*before, *again]))
    assert [(row["epoch"], row["loss"]) for row in run.train] == [(1, 9), (1.5, 5), (2, 4)]
    assert [(row["epoch"], row["top1"]) for row in run.val] == [(1, 10), (2, 20)]


def drawn(runs: Sequence[Path], picture: Path) -> np.ndarray:
    """The three panels, (height, 3, width) bool: whether there is colour."""
    compare(runs, picture, overwrite=True)
    pixels = np.asarray(Image.open(picture).convert("HSV"))
    assert pixels.shape[1] == 13 * 110
    coloured = pixels[: int(3.9 * 110), :, 1] > 100  # above the legend
    return coloured[:, : 3 * (coloured.shape[1] // 3)].reshape(len(coloured), 3, -1)


def test_every_run_adds_to_every_panel(tmp_path: Path) -> None:
    def run(name: str, slope: float, epochs: int) -> Path:
        rows = [
            row
            for epoch in range(1, epochs + 1)
            for row in (train(epoch, slope / epoch) | {"lr": slope / epoch}, val(epoch, slope))
        ]
        return write_run(tmp_path / name, rows)

    picture = tmp_path / "curves.png"
    first, second = run("a", 3.0, 8), run("b", 2.0, 5)
    alone, both = (drawn(runs, picture).sum(axis=(0, 2)) for runs in ([first], [first, second]))
    assert (alone > 300).all()
    assert (both > alone + 150).all()
    without = write_run(tmp_path / "c", [train(1, 1.0), train(2, 0.5)])
    assert drawn([without], picture).sum(axis=(0, 2))[2] == 0


def test_runs_are_told_apart_without_colour(tmp_path: Path) -> None:
    """One run, drawn first and drawn second: other line, other markers."""
    rows = [train(epoch, 10 / epoch) for epoch in range(1, 30)]
    off = [train(epoch, 0.0) for epoch in (1, 29)]
    one, other = write_run(tmp_path / "one", rows), write_run(tmp_path / "other", off)
    first, second = (drawn(runs, tmp_path / "c.png")[:, 0] for runs in ([one, other], [other, one]))
    middle = slice(150, 300)  # the curve alone, not the other's
    assert (first[middle] != second[middle]).sum() > 100


def test_what_a_run_writes_is_read(tmp_path: Path) -> None:
    recipe = Recipe(model=ModelConfig(model="poolformer_s24"), schedule=ScheduleConfig(lr=0.1))
    write_facts(tmp_path, recipe.to_yaml(), ["cat"])
    records = Records(tmp_path, 0)
    for row in (train(1, 2.0), val(1, 25.0), train(1.5, 1.0)):
        records.write(row.pop("kind"), row.pop("step"), row)
    records.close()
    epochs = recipe.schedule.epoch_size
    assert cells(tmp_path) == ["poolformer_s24", f"1.5/{epochs}", "25.00 % (1)", "1.0000", "100.0"]


@pytest.mark.long
def test_a_real_run_beside_one_made_by_hand(tmp_path: Path) -> None:
    keys = {"mode": 1, "epoch_size": 1, "warmup_epochs": 0, "batch_size": 24}
    trained = forked.run("train.py", write_workspace(tmp_path), **keys, val_while_train=True)
    assert (trained.code, trained.err) == (0, "")
    write_run(tmp_path / "made", [train(1, 2.0), val(1, 50.0)])
    words = ["compare", "run", "made", "--output", "both.png"]
    ended = forked.call(tmp_path, ["-m", "mindcv_poolformer.training", *words])
    assert (ended.code, ended.err) == (0, "")
    head, real, made, curves = ended.out.splitlines()
    assert head.split() == ["run", "model", "epochs", "best", "top-1", "final", "loss", "images/s"]
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = list(map(json.loads, rows))
    best = max((row for row in records if row["kind"] == "val"), key=lambda row: row["top1"])
    assert f"{best['top1']:.2f} %" in real
    assert " 1/1 " in real
    assert len(head) == len(real) == len(made)
    assert curves == "curves: both.png"
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: found no such folder, expected a run folder"),
        (["run/recipe.yaml"], "run/recipe.yaml: found a file, expected a run folder"),
        (["empty"], "empty: found no records (metrics.jsonl), expected those of a run"),
        (["torn"], "torn/metrics.jsonl: found no records of a run"),
        (["foreign"], "foreign/metrics.jsonl: found no records of a run"),
        (["lossless"], "lossless/metrics.jsonl: found no records of a run (KeyError('loss'"),
        (["bare"], "bare/recipe.yaml: found no such file"),
        (["odd"], "odd/recipe.yaml: found no recipe"),
        (["run", "empty/../run"], "empty/../run: found it twice"),
        (["run", "--output", "there.png"], "output: there.png exists"),
        (["run", "--output", "curves.pdf"], "output: found curves.pdf, expected a name"),
        (
            ["run", "--output", "folder.png", "--overwrite"],
            "output: found folder.png to be no file",
        ),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "bare", "odd"):
        write_run(tmp_path / name, [train(1, 2.0)])
    (tmp_path / "bare" / "recipe.yaml").unlink()
    (tmp_path / "odd" / "recipe.yaml").write_text("- model\n")
    write_run(tmp_path / "torn", [], more="{torn}\n")
    write_run(tmp_path / "foreign", [{"loss": 3.0}])
    write_run(tmp_path / "lossless", [{"kind": "train", "epoch": 1, "step": 1}])
    for name in ("empty", "folder.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "there.png").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    runs = [Path(word) for word in words if "-" not in word and not word.endswith((".png", ".pdf"))]
    output = Path(words[words.index("--output") + 1]) if "--output" in words else Path("curves.png")
    with pytest.raises(UserError, match=f"^{re.escape(said)}") as caught:
        compare(runs, output, "--overwrite" in words)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.png").read_text() == "mine"
