"""What the contenders compute, and on which images."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import NO_KERNELS

from benchmarks import bench
from benchmarks.contenders.serve import images, targets
from benchmarks.field import check_agreement, contenders, write_bundle, write_weights
from benchmarks.photographs import draw_photograph, write_photographs
from benchmarks.rounds import ROOT, Contest, clean_environment
from benchmarks.sections import MODEL, Plan, breakdown
from benchmarks.targets import INPUT
from mindcv_poolformer.config import parse_recipe
from mindcv_poolformer.data.folder import scan_folder
from mindcv_poolformer.data.order import steps_per_epoch
from mindcv_poolformer.runtime.errors import UserError


def test_everybody_gets_the_same() -> None:
    assert images(2, 8).shape == (2, 3, 8, 8) and images(2, 8).dtype == np.float32
    np.testing.assert_array_equal(images(2, 8), images(2, 8))
    rows = targets(5)
    assert rows.shape == (5, 1000) and rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(rows.max(axis=1), 0.9 + 0.1 / 1000, rtol=1e-5)


def test_photographs(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_photographs(tmp_path / folder, 10)
    files = sorted((tmp_path / "a").rglob("*.jpg"))
    assert len(files) == 10 and len({file.parent for file in files}) == 8
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
        with Image.open(file) as image:
            assert image.size == (500, 375) and image.mode == "RGB"
    assert len({file.read_bytes() for file in files}) == 10
    mean = np.mean([file.stat().st_size for file in files])
    assert 90_000 < mean < 130_000  # ImageNet's is 110,000


def test_photographs_have_a_natural_spectrum() -> None:
    """The power of natural scenes falls about as 1 / frequency squared."""
    powers = []
    for seed in range(4):
        light = np.asarray(draw_photograph(np.random.default_rng(seed)).convert("L"), np.float64)
        light = light[:256, :256] * np.hanning(256)[:, None] * np.hanning(256)
        powers.append(np.abs(np.fft.fft2(light)) ** 2)
    frequency = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(256)]))
    bands = [(frequency >= low) & (frequency < 2 * low) for low in (1 / 64, 1 / 32, 1 / 16)]
    power = [np.mean(powers, axis=0)[band].mean() for band in bands]
    slopes = np.diff(np.log2(power))
    assert ((-3.0 < slopes) & (slopes < -1.0)).all()


@pytest.mark.parametrize("words", [["--quick"], []], ids=["quick", "full"])
def test_the_photographs_make_batches(tmp_path: Path, words: list[str]) -> None:
    """The pipelines drop what fills no batch, so fewer images than one would give none."""
    plan = bench.make_plan(bench.parse(words), tmp_path)
    recipe = parse_recipe(
        ["--config", str(ROOT / "configs" / f"{MODEL}_ascend.yaml")],
        description="",
        default_config="",
    )
    assert recipe.data.batch_size == INPUT[0] and recipe.data.drop_remainder
    assert steps_per_epoch(plan.drawn, INPUT[0], 1, drop_remainder=True) >= 1
    assert plan.rounds >= 1 and plan.seconds > 0


def test_given_photographs_are_counted_before_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "given" / "one"
    folder.mkdir(parents=True)
    for number in range(INPUT[0] - 1):
        (folder / f"{number}.png").touch()
    few = bench.parse(["--quick", "--images", str(folder.parent)])
    plan = bench.make_plan(few, tmp_path)
    expected = rf"images: found {INPUT[0] - 1} in .*given, expected at least {INPUT[0]}"
    with pytest.raises(UserError, match=expected):
        bench.put_photographs(few, plan)
    (folder / "another.png").touch()
    bench.put_photographs(few, plan)
    assert len(scan_folder(plan.photographs / "train")) == INPUT[0]


@pytest.mark.parametrize(
    ("contender", "strangers"),
    [
        ("stock_mindcv", {"mindcv_poolformer", "torch"}),
        ("onnx_runtime", {"mindspore", "mindcv", "torch"}),
    ],
)
def test_contenders_are_left_alone(contender: str, strangers: set[str]) -> None:
    script = (
        f"import sys, benchmarks.contenders.{contender}\n"
        f"assert not {strangers!r} & sys.modules.keys()\n"
    )
    environment = clean_environment(os.environ)
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)


@pytest.mark.rare
def test_all_networks_agree(tmp_path: Path) -> None:
    """The contenders of the real benchmark, on small images and without graph kernels."""
    pytest.importorskip("torch", reason="needs torch to compare with")
    pytest.importorskip("transformers", reason="needs transformers to compare with")
    environment = clean_environment(os.environ) | NO_KERNELS
    write_weights("poolformer_s12", tmp_path, environment)
    known = contenders("poolformer_s12", tmp_path, tmp_path, tmp_path, 1)
    names = ("deploy", "evaluation", "training", "mindcv", "mindcv_training", "hf", "hf_training")
    with Contest(known, environment, tmp_path) as contest:
        contest.start(dict.fromkeys(names, (2, 64)), at_once=2)
        check_agreement(contest)
        assert not contest.failures
        logits, losses = contest.outputs("evaluation"), contest.outputs("training")
        assert logits.shape == (2, 2, 1000) and np.ptp(logits) > 1
        assert losses.shape == (2,) and losses[1] < losses[0]  # the step has learnt


@pytest.mark.rare
def test_a_bundle_agrees_and_is_small(tmp_path: Path) -> None:
    """ONNX Runtime beside the bundle's checkpoint in Hugging Face."""
    pytest.importorskip("transformers", reason="needs transformers to compare with")
    write_photographs(tmp_path / "photographs" / "train", 2)
    environment = clean_environment(os.environ) | NO_KERNELS
    write_weights(MODEL, tmp_path, environment)
    write_bundle(MODEL, tmp_path, tmp_path / "photographs", environment)
    known = contenders(MODEL, tmp_path, tmp_path, tmp_path, 1)
    shapes = dict.fromkeys(("onnx", "hf"), (1, 224))
    with Contest(known, environment, tmp_path) as contest:
        contest.start(shapes)
        check_agreement(contest)
        contest.race(shapes, 1, 0.0)
        assert not contest.failures
        peaks = [contest.records[name].peak_bytes[1, 224] for name in shapes]
    assert peaks[0] < 0.5 * peaks[1]


@pytest.mark.rare
def test_a_metaformer_agrees_with_timm(tmp_path: Path) -> None:
    """Where timm is installed; where it is not, the others go on."""
    pytest.importorskip("torch", reason="needs torch to compare with")
    environment, model = clean_environment(os.environ) | NO_KERNELS, "poolformerv2_s12"
    write_weights(model, tmp_path, environment)
    known = contenders(model, tmp_path, tmp_path, tmp_path, 1)
    with Contest(known, environment, tmp_path) as contest:
        contest.start(dict.fromkeys(("deploy", "evaluation", "timm"), (2, 64)), at_once=2)
        check_agreement(contest, {"evaluation": "timm", "deploy": "timm"})
        check_agreement(contest, {"deploy": "evaluation"})
        assert not contest.failures
        assert contest.outputs("deploy").shape == (2, 2, 1000)
        assert ("timm" in contest.unavailable) == (find_spec("timm") is None)


@pytest.mark.rare
def test_breakdown(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photographs" / "train", 2)
    environment = clean_environment(os.environ)
    write_weights(MODEL, tmp_path, environment)
    plan = Plan(tmp_path, tmp_path / "photographs", 2, tmp_path, environment, 1, 0.1, 1, 1)
    measured = breakdown(plan)
    assert not measured.failures
    kernels, steps, fused = measured.tables
    # 4 embeddings, 12 x 2 in the MLPs, the classifier; the pooling of 10 blocks is two of them, and
    # the sums of 25 norms two small ones
    products = next(line for line in kernels.splitlines() if line.startswith("| matrix products"))
    assert products.count("(99)") == 2
    assert len(steps.splitlines()) == 5
    assert "deploy form, not fused" in fused
