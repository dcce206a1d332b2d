"""export.py with the checkpoint of a segmentation model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mindcv
import mindspore as ms
import numpy as np
import pytest
from PIL import Image

import export
from mindcv_poolformer.config.parse import RecipeError
from mindcv_poolformer.data.photographs import photographs
from mindcv_poolformer.data.segmentation.fitting import EvalTransform
from mindcv_poolformer.data.segmentation.palette import palette_of
from mindcv_poolformer.data.segmentation.stretch import StretchTransform
from mindcv_poolformer.export.segmenter import load_segmenter_bundle
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import save_weights

CLASSES = ("sky", "sea", "sand", "boat", "bird")
TRANSFORM = EvalTransform((128, 64), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))

Export = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, tiny_segmenter: str, monkeypatch: pytest.MonkeyPatch) -> Export:
    """``run(*flags)`` for a recipe of the model."""
    ms.set_seed(1)
    network = mindcv.create_model(tiny_segmenter, num_classes=5, neck_channels=12, head_channels=8)
    network.classes, network.preprocessing = CLASSES, TRANSFORM.to_dict()
    save_weights(network, tmp_path / "best.ckpt")
    (tmp_path / "recipe.yaml").write_text(
        # op by op, where compiling the checkpoint for each size would take most of the time
        f"task: segmentation\nmodel: {tiny_segmenter}\ndataset: scenes\ndevice_target: CPU\n"
        f"mode: 1\nlr: 0.001\nscheduler: constant\n"
        f"data_dir: {tmp_path}/data\nckpt_save_dir: {tmp_path}\n"
    )

    def run(*flags: str) -> None:
        words = ["-c", str(tmp_path / "recipe.yaml"), "--deploy", "false", *flags]
        monkeypatch.setattr("sys.argv", ["export.py", *words])
        export.main()

    return run


@pytest.mark.long
def test_the_default_is_a_square_proven_on_photographs(
    run: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    said = capsys.readouterr().out
    origin = "scikit-learn's china.jpg and flower.jpg"
    assert f"found no folder {tmp_path}/data/images/val, so the proof is on {origin}\n" in said
    assert "MINDIR at 64 px: logits on 2 images within" in said
    assert said.rstrip().endswith("labels equal on 100.000% of the places")
    told = json.loads((tmp_path / "bundle" / "model.json").read_text())
    assert told["classes"] == list(CLASSES) and told["reduce_zero_label"] is False
    assert told["palette"] == palette_of(CLASSES).tolist()
    assert told["verification"][0]["samples"] == origin
    golden = np.load(tmp_path / "bundle" / "golden.npz")
    expected = StretchTransform.of(TRANSFORM, (64, 64))(photographs(3)[0])
    np.testing.assert_array_equal(golden["images"], expected[None])


@pytest.mark.long
def test_several_sizes_proven_on_the_validation_split(
    run: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "images" / "val").mkdir(parents=True)
    for name, colour in (("a", (9, 99, 200)), ("b", (30, 20, 10)), ("c", (0, 0, 0))):
        picture = Image.new("RGB", (90, 60), colour)
        picture.save(tmp_path / "data" / "images" / "val" / f"{name}.png")
    run("--export_image_size", "64x96", "64", "64x96", "--input", "uint8")
    bundle = load_segmenter_bundle(tmp_path / "bundle")
    assert list(bundle.graphs) == [(64, 96), (64, 64)]
    told = json.loads((tmp_path / "bundle" / "model.json").read_text())
    assert {proof["samples"] for proof in told["verification"]} == {"val_split"}
    pixels = np.load(tmp_path / "bundle" / "golden.npz")["pixels"]
    assert pixels.shape == (1, 64, 96, 3) and (pixels == (9, 99, 200)).all()
    assert "MINDIR at 64x96 px: logits on 2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "probabilities"], "output: found probabilities with a segmentation model"),
        (
            ["--in_channels", "1", "--mean", "1", "--std", "1"],
            "in_channels: found 1 with task segmentation",
        ),
        (["--export_image_size", "64x31"], "export_image_size: found 64x31, expected edges of 32"),
        (["--export_image_size", "64x"], "export_image_size: found .*64x.*, expected a list"),
        (["--export_image_size", "0"], "export_image_size: found .*0.*, expected a list"),
        (
            ["--model", "poolformer_s12"],
            "model: found 'poolformer_s12', a classifier, with task segmentation",
        ),
    ],
)
def test_mistakes(run: Export, tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises((UserError, RecipeError), match=message) as caught:
        run(*flags)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()
