"""ImageNet-1K's names: what they are, and which weights get them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mindcv_poolformer.models import PoolFormer, find_variant
from mindcv_poolformer.weights import ModelWeights, imagenet, read_weights, start_from
from mindcv_poolformer.weights.model_weights import average
from mindcv_poolformer.weights.read import Source
from mindcv_poolformer.weights.recognise import recognise

# By ImageNet's own list: number, folder, name.
KNOWN = (
    (0, "n01440764", "tench, Tinca tinca"),
    (134, "n02012849", "crane"),
    (207, "n02099601", "golden retriever"),
    (281, "n02123045", "tabby, tabby cat"),
    (400, "n02669723", "academic gown, academic robe, judge's robe"),
    (517, "n03126707", "crane"),
    (638, "n03710637", "maillot"),
    (639, "n03710721", "maillot, tank suit"),
    (999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
)


def test_the_table() -> None:
    names, folders = imagenet.names(), imagenet.folders()
    assert len(names) == len(folders) == len(set(folders)) == 1000
    assert list(folders) == sorted(folders)  # classes are numbered by their folders' order
    assert len(set(names)) == 999  # two cranes
    for number, folder, name in KNOWN:
        assert (folders[number], names[number]) == (folder, name)


def test_folders_of_imagenet_alone() -> None:
    names, folders = imagenet.names(), imagenet.folders()
    assert imagenet.folders_of(names, ["n15075141", "other"]) == folders
    assert imagenet.folders_of(names, ["tench", "n00000001"]) is None
    assert imagenet.folders_of(names[::-1], folders) is None
    assert imagenet.folders_of((), folders) is None


@pytest.mark.parametrize(
    ("place", "known"),
    [
        ("weights/poolformer_s12.pth.tar", True),
        ("metaformer_ppaa_s12_224.pth.tar", True),
        ("caformer_b36_384_in21ft1k.pth", True),
        ("poolformer_s12-5be5c4e4.ckpt", True),
        ("poolformer_s12-c7e14eea-910v2.ckpt", True),
        ("https://hub/timm/caformer_s18.sail_in22k_ft_in1k_384", True),
        ("https://hub/timm/poolformerv2_s12.sail_in1k/resolve/main/pytorch_model.bin", True),
        ("h/models--timm--poolformer_s12.sail_in1k/snapshots/0a1/model.safetensors", True),
        ("poolformer_s12.sail_in1k/model.safetensors", True),
        ("poolformer_s12.sail_in1k.safetensors", True),
        ("poolformer_s12.sail_in1k/mine/v1/model.safetensors", False),
        ("poolformer_s12.sail_in1k/model_best.pth.tar", False),
        ("timm/caformer_s18.sail_in22k", False),
        ("poolformer_s12.ckpt", False),
        ("poolformer_s12/model.safetensors", False),
        ("poolformer_s12_pets.pth.tar", False),
        ("resnet50.pth", False),
        ("model.safetensors", False),
        ("", False),
    ],
)
def test_what_is_published_by_its_name(place: str, known: bool) -> None:
    assert imagenet.published(place) == known
    assert imagenet.published(Path(place)) == known


def test_published_files_have_names(official_s12: dict[str, np.ndarray], tmp_path: Path) -> None:
    repository = tmp_path / "poolformer_s12.sail_in1k"
    repository.mkdir()
    save_file(official_s12, repository / "model.safetensors")
    weights = read_weights(repository)
    assert (weights.classes, weights.for_people) == (imagenet.names(), True)
    assert weights.folders is None  # a folder of a user's own may have any name
    save_file(official_s12, tmp_path / "mine.safetensors")
    assert read_weights(tmp_path / "mine.safetensors").classes == ()


@pytest.mark.parametrize("change", ["classes", "outputs", "metadata"])
def test_others_have_none(official_s12: dict[str, np.ndarray], change: str) -> None:
    """Of the same name, but fine-tuned for other classes or written by this project."""
    values, metadata = dict(official_s12), {}
    if change == "classes":
        metadata = {"classes": ["a", "b"]}
    elif change == "metadata":
        metadata = {"model": "poolformer_s12"}
    else:
        values |= {name: values[name][:999] for name in ("head.weight", "head.bias")}
    weights = recognise(Source(Path("poolformer_s12.pth.tar"), values, metadata))
    assert weights.classes == (("a", "b") if change == "classes" else ())
    assert not weights.for_people


def published_weights(official_file: Path) -> ModelWeights:
    return read_weights(official_file).with_imagenet_names()


def test_the_mean_is_named_by_any(official_file: Path) -> None:
    named, plain = published_weights(official_file), read_weights(official_file)
    for several in ((named, plain), (plain, named)):
        mean = average({Path(str(number)): weights for number, weights in enumerate(several)})
        assert (mean.classes, mean.for_people) == (imagenet.names(), True)
    other = replace(named, classes=imagenet.names()[::-1])
    with pytest.raises(Exception, match="found labels"):
        average({Path("a"): named, Path("b"): other})


@pytest.mark.parametrize(
    ("ours", "kept"),
    [
        (imagenet.folders(), True),
        (tuple(f"{number:04d}" for number in range(1000)), True),  # nothing tells what they are
        (imagenet.folders()[::-1], False),
        (("n00000001", *imagenet.folders()[1:]), False),
    ],
    ids=["imagenet", "unknown", "another order", "another class"],
)
def test_training_goes_on_with_the_head_of_imagenet(
    official_file: Path, ours: tuple[str, ...], kept: bool
) -> None:
    weights = published_weights(official_file)
    variant = find_variant("poolformer_s12")
    network = PoolFormer(variant.depths, variant.dims, num_classes=1000)
    line = start_from(network, weights, ours)
    assert ("the head is new" in line) != kept
    assert network.classes == (imagenet.names() if kept else ours)
    assert network.for_people == kept
