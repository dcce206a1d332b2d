"""export.py with the checkpoint of a detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mindcv
import mindspore as ms
import pytest
from small_network import SMALL_DETECTOR

import export
from mindcv_poolformer.config.parse import RecipeError
from mindcv_poolformer.data.detection.transforms import official_test
from mindcv_poolformer.export.detectors import graph_sizes
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import save_weights

pytestmark = pytest.mark.usefixtures("small_is_known")

CLASSES = ("disc", "bar")

Export = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """``run(*flags)`` for a recipe of the model."""
    ms.set_seed(1)
    network = mindcv.create_model(SMALL_DETECTOR, num_classes=2, channels=8, stacked_convs=1)
    network.classes, network.category_ids = CLASSES, (7, 2)
    network.preprocessing = official_test((64, 48)).to_dict()
    save_weights(network, tmp_path / "best.ckpt")
    (tmp_path / "recipe.yaml").write_text(
        f"task: detection\nmodel: {SMALL_DETECTOR}\ndataset: coco\ndevice_target: CPU\n"
        f"mode: 1\nlr: 0.001\nscheduler: constant\nscore_thr: 0.001\nmax_per_img: 30\n"
        f"data_dir: {tmp_path}/data\nckpt_save_dir: {tmp_path}\n"
    )

    def run(*flags: str) -> None:
        words = ["-c", str(tmp_path / "recipe.yaml"), *flags]
        monkeypatch.setattr("sys.argv", ["export.py", *words])
        export.main()

    return run


def test_without_sizes_there_is_a_wide_canvas_and_a_high_one() -> None:
    assert graph_sizes([], official_test()) == [(800, 1344), (1344, 800)]
    assert graph_sizes([], official_test((64, 60))) == [(64, 64)]
    assert graph_sizes([(96, 64)], official_test()) == [(96, 64)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "probabilities"], "output: found probabilities with a detection model"),
        (["--input", "uint8"], "input: found uint8 with a detection model, expected float32"),
        (["--export_batch_size", "2"], "export_batch_size: found 2 with .*, expected 1: its graph"),
        (["--export_image_size", "64x48"], "export_image_size: found 64x48, expected multiples"),
        (
            ["--model", "poolformer_s12"],
            "model: found 'poolformer_s12', a classifier, with task detection",
        ),
        (
            ["--model", SMALL_DETECTOR.replace("retinanet", "mask_rcnn")],
            "found weights of .*, a RetinaNet, expected",
        ),
    ],
)
def test_mistakes(run: Export, tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises((UserError, RecipeError), match=message) as caught:
        run("--file_format", "MINDIR", *flags)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()
