from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from official import load_official_weights
from PIL import Image
from small_network import SMALL

import mindcv_poolformer
from mindcv_poolformer import ImageProcessor, classify, load_model
from mindcv_poolformer.classification import processor_for
from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.checkpoint_file import save_checkpoint
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import read_weights, write_weights

pytestmark = pytest.mark.usefixtures("small_is_known")

CLASSES = ("chat", "chien", "zèbre")
TRANSFORM = EvalTransform(32, 1.0, "bicubic", (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))


@pytest.fixture(autouse=True)
def pynative(graph_mode: None) -> None:
    """As a user finds MindSpore, and without compiling."""
    ms.set_context(mode=ms.PYNATIVE_MODE)


def make_network(model: str = SMALL, **settings) -> nn.Cell:
    network = mindcv.create_model(model, num_classes=3, **settings)
    return load_official_weights(network).set_train(False)


def save(path: Path, model: str = SMALL, **facts) -> Path:
    network = make_network(model)
    metadata = {"model": model, "num_classes": 3, "in_channels": 3, **facts}
    save_checkpoint(path, {p.name: p for p in network.get_parameters()}, metadata)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model with classes and preprocessing in every form that holds both; two pictures."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    for number in (0, 1):
        Image.fromarray(pixels[number]).save(folder / f"{number}.png")
    checkpoint = save(
        folder / "best.ckpt", classes=list(CLASSES), preprocessing=TRANSFORM.to_dict()
    )
    write_weights(read_weights(checkpoint), folder / "model.safetensors", "safetensors")
    write_weights(read_weights(checkpoint), folder / "hub", "hf")
    trained = Trained(make_network(), SMALL, checkpoint, TRANSFORM, CLASSES)
    write_bundle(trained, folder / "bundle", prepared(pixels))
    names = ("0.png", "1.png", "best.ckpt", "model.safetensors", "hub", "bundle")
    return {name: folder / name for name in names}


def prepared(pixels: np.ndarray) -> np.ndarray:
    """TRANSFORM on images of 32 x 32, by its formula."""
    values = (pixels - np.float32([120, 115, 100])) / np.float32([60, 50, 55])
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def expected(path: Path) -> list[tuple[str, float]]:
    logits = make_network()(Tensor(prepared(np.asarray(Image.open(path))[None]))).asnumpy()[0]
    powers = np.exp(logits.astype(np.float64))
    pairs = zip(CLASSES, powers / powers.sum(), strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


def assert_same(found: list[tuple[str, float]], ranking: list[tuple[str, float]]) -> None:
    assert [label for label, _ in found] == [label for label, _ in ranking]
    assert [p for _, p in found] == pytest.approx([p for _, p in ranking], abs=1e-4)
    assert all(type(p) is float for _, p in found)


@pytest.mark.parametrize("form", ["best.ckpt", "model.safetensors", "hub", "bundle"])
def test_every_form_of_a_model(files: dict[str, Path], form: str) -> None:
    assert_same(classify(str(files["0.png"]), model=str(files[form])), expected(files["0.png"]))
    model = load_model(files[form])
    several = classify([files["0.png"], Image.open(files["1.png"])], model, top_k=2)
    assert len(several) == 2
    assert_same(several[0], expected(files["0.png"])[:2])
    assert_same(several[1], expected(files["1.png"])[:2])
    array = np.asarray(Image.open(files["1.png"]))
    assert_same(classify(array[None], model)[0], expected(files["1.png"]))


def test_a_model_object_and_a_processor(files: dict[str, Path]) -> None:
    network = load_model(files["best.ckpt"])
    assert network.id2label == dict(enumerate(CLASSES))
    assert network.label2id == {"chat": 0, "chien": 1, "zèbre": 2}
    assert not network.training
    network.set_train(True)
    assert_same(classify(files["0.png"], network), expected(files["0.png"]))
    assert network.training
    other = ImageProcessor.from_transform(TRANSFORM)
    bare = make_network()
    found = classify(files["0.png"], bare, processor=other)
    labels = {name: f"LABEL_{number}" for number, name in enumerate(CLASSES)}
    assert_same(found, [(labels[name], p) for name, p in expected(files["0.png"])])


@pytest.mark.long
def test_published_preprocessing_if_there_is_no_other(tmp_path: Path) -> None:
    small = "poolformer_s12"
    for model in (load_model(save(tmp_path / "bare.ckpt", small)), make_network(small)):
        published = ImageProcessor.for_model(small)
        assert processor_for(model).transform == published.transform
    medium = mindcv.create_model("poolformer_m36")
    assert processor_for(medium).transform.crop_pct == 0.95
    large = mindcv.create_model("caformer_s18_384")  # caformer_s18's network
    assert processor_for(large).transform.image_size == 384
    grey = make_network(small, in_channels=1)
    with pytest.raises(UserError, match=r"preprocessing: found none .* 1 input channel\b"):
        processor_for(grey)


def test_folders_go_before_published_weights(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poolformer_s12").symlink_to(files["hub"])
    monkeypatch.chdir(tmp_path)
    assert load_model("poolformer_s12").classes == CLASSES
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("MINDCV_POOLFORMER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="127.0.0.1:9.*poolformer_s24"):
        load_model("poolformer_s24")


def test_mistakes_are_told_in_one_line(files: dict[str, Path]) -> None:
    network = load_model(files["best.ckpt"])
    features = mindcv.create_model(SMALL, features_only=True)
    headless = mindcv.create_model(SMALL, num_classes=0)
    picture = files["0.png"]
    for image, model, settings, error, said in [
        (picture, "no/such.ckpt", {}, UserError, "model no/such.ckpt: found no such file"),
        (picture, picture, {}, UserError, "found '.png'"),
        ("cat.jpg", network, {}, UserError, "image cat.jpg does not exist"),
        (picture, network, {"top_k": 0}, ValueError, "top_k: found 0"),
        ([], network, {}, ValueError, "found none"),
        (picture, features, {}, ValueError, "found no classifier"),
        (picture, headless, {}, ValueError, "found no classifier"),
    ]:
        with pytest.raises(error, match=said) as raised:
            classify(image, model, **settings)
        assert "\n" not in str(raised.value)


def test_the_package_gives_its_surfaces_when_asked() -> None:
    with pytest.raises(AttributeError, match="no attribute 'clasify'"):
        _ = mindcv_poolformer.clasify
    program = (
        "import sys, mindcv_poolformer as package\n"
        "assert package.__name__ + '.export.bundle' not in sys.modules\n"
        "import mindcv_poolformer.classification\n"
        "assert callable(package.classify) and callable(package.classify)\n"
        "from mindcv_poolformer import *\n"
        "assert classify is package.classify and ImageProcessor\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
