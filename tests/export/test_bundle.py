from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from bundles import redescribe, sign
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto
from overwriting import overwriting

from mindcv_poolformer.data.preprocess import open_image
from mindcv_poolformer.export.bundle import Bundle, load_bundle
from mindcv_poolformer.runtime.errors import UserError


@pytest.mark.parametrize("count", [1, 3, 5])
def test_logits_are_the_networks_at_any_batch_size(
    bundle: Bundle, inputs: np.ndarray, expected: np.ndarray, count: int
) -> None:
    logits = bundle.logits(inputs[:count])
    assert logits.dtype == np.float32
    assert np.ptp(expected, axis=0).max() > 0.1  # the images do differ
    np.testing.assert_allclose(logits, expected[:count], atol=5e-5)


def test_probabilities_of_image_files(
    bundle: Bundle, pictures: list[Path], expected: np.ndarray
) -> None:
    probabilities = bundle.classify([open_image(path, bundle.channels) for path in pictures], 2)
    softmax = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, softmax, atol=1e-5)


def test_probabilities_of_huge_logits(bundle: Bundle, pictures: list[Path]) -> None:
    huge = dataclasses.replace(bundle, network=lambda images: bundle.network(images) * 1e4)
    probabilities = huge.classify([open_image(path) for path in pictures])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_runs_are_of_one_size_and_padding_is_cut_off(
    bundle: Bundle, inputs: np.ndarray, expected: np.ndarray
) -> None:
    sizes = []

    def recording(images: np.ndarray) -> np.ndarray:
        sizes.append(images.shape[0])
        return bundle.network(images)

    logits = dataclasses.replace(bundle, network=recording).logits(inputs, batch_size=3)
    assert sizes == [3, 3]
    np.testing.assert_allclose(logits, expected, atol=5e-5)


@pytest.mark.parametrize("overwrites", [False, True])
def test_answers_stay_when_others_follow(
    bundle: Bundle,
    inputs: np.ndarray,
    expected: np.ndarray,
    overwrites: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of other runs of one call, and of a later call: so a server's."""
    if overwrites:
        monkeypatch.setattr(nn.GraphCell, "__call__", overwriting(nn.GraphCell.__call__))
    logits = bundle.logits(inputs, batch_size=3)
    before = logits.copy()
    bundle.logits(inputs[::-1].copy(), batch_size=3)
    bundle.logits(inputs[::-1].copy())
    assert logits.tobytes() == before.tobytes()
    np.testing.assert_allclose(logits, expected, atol=5e-5)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (1, 3, 32, 31), (1, 1, 32, 32)])
def test_input_of_another_shape(bundle: Bundle, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        bundle.logits(np.zeros(shape, np.float32))


def change(key: str, value: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        description = json.loads((folder / "model.json").read_text())
        description[key] = value
        (folder / "model.json").write_text(json.dumps(description))

    return apply


def remove(key: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        description = json.loads((folder / "model.json").read_text())
        del description[key]
        (folder / "model.json").write_text(json.dumps(description))

    return apply


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.mindir"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def no_mindir_with_right_checksum(folder: Path) -> None:
    (folder / "model.mindir").write_bytes(b"not a MINDIR")
    checksum = hashlib.sha256(b"not a MINDIR").hexdigest()
    change("files", {"model.mindir": {"sha256": checksum, "size": 12}})(folder)
    change("golden", {})(folder)


def cut_off(folder: Path) -> None:
    path = folder / "model.mindir"
    path.write_bytes(path.read_bytes()[:-100])


def graph(**changes: Any) -> Callable[[Path], None]:
    """Tell something else of the graph."""

    def apply(folder: Path) -> None:
        redescribe(folder, lambda told: told["graphs"]["model.mindir"].update(changes))

    return apply


def end(which: str, /, **changes: Any) -> Callable[[Path], None]:
    """Tell something else of the input or the output."""
    return lambda folder: redescribe(folder, lambda told: told[which].update(changes))


def eleven_classes(folder: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        told["classes"].append("one more")
        told["output"]["shape"][1] = 11

    redescribe(folder, change)


def four_channels(folder: Path) -> None:
    preprocessing = {"mean": [1.0] * 4, "std": [1.0] * 4}
    redescribe(folder, lambda told: told["preprocessing"].update(preprocessing))


def newer_graph(folder: Path, version: str = "2.11.0", ir_version: int | None = None) -> None:
    """As a MINDIR that another MindSpore wrote, while model.json tells ours."""
    path = folder / "model.mindir"
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    model.model_version = version
    if ir_version is not None:
        model.mind_ir_version = ir_version
    path.write_bytes(model.SerializeToString())
    sign(folder, "model.mindir")


def elsewhere(folder: Path) -> None:
    """A name that leads out of the folder."""

    def change(told: dict[str, Any]) -> None:
        told["files"]["../model.mindir"] = told["files"]["model.mindir"]
        told["graphs"]["../model.mindir"] = told["graphs"].pop("model.mindir")

    redescribe(folder, change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "model.mindir: found .* bytes, expected .*: cut off or replaced"),
        (graph(batch_size=8), r"found a graph of \(-1, 3, 32, 32\) .*, expected \(8, 3, 32, 32\)"),
        (graph(batch_size="8"), "found batch size '8', expected a count or null"),
        (graph(image_size=0), "image size 0, expected an edge, or height and width"),
        (eleven_classes, r"found a graph of .* to \(-1, 10\), expected .* to \(-1, 11\)"),
        (four_channels, r"found a graph of \(-1, 3, 32, 32\) .*, expected \(-1, 4, 32, 32\)"),
        (end("input", dtype="uint8"), r"found a graph of .* expected \(-1, 32, 32, 3\)"),
        (end("input", dtype="int8"), "found input dtype 'int8', expected one of"),
        (end("output", name="votes"), "found output name 'votes', expected one of"),
        (change("encryption", "ROT13"), "found encryption 'ROT13', expected one of"),
        (change("classes", list(range(10))), "found a model or class that is no text"),
        (change("mindspore", "2.11.0"), "written with MindSpore 2.11.0, expected at most 2"),
        (change("mindspore", "new"), "found MindSpore version 'new', expected such as 2.10"),
        (newer_graph, "model.mindir: found it written with MindSpore 2.11.0, expected at most"),
        (
            lambda folder: newer_graph(folder, ms.__version__, 99),
            "model.mindir: found no MINDIR that MindSpore .* can load",
        ),
        (elsewhere, r"found the file '../model.mindir', expected one in the bundle's folder"),
        (shutil.rmtree, "bundle .*: found no such folder"),
        (lambda folder: (folder / "model.json").unlink(), "model.json: found 'No such file"),
        (lambda folder: (folder / "model.json").write_text("{"), "model.json: found no readable"),
        (lambda folder: (folder / "model.json").write_bytes(b"\xff"), "found no readable JSON"),
        (
            lambda folder: (folder / "model.json").write_text("[]"),
            "found format None, expected 1 to 2",
        ),
        (change("format", 3), "found format 3, expected at most 2: a later version"),
        (remove("preprocessing"), "found no key 'preprocessing'"),
        (
            lambda folder: redescribe(folder, lambda told: told["output"].pop("shape")),
            "found no key 'shape'",
        ),
        (change("files", {}), "found no key 'model.mindir'"),
        (change("files", 3), "found a malformed value"),
        (change("preprocessing", {"mean": 0}), r"preprocessing has the keys \['mean'\]"),
        (change("classes", ["a", "b"]), "found 2 classes for 10 outputs"),
        (lambda folder: (folder / "model.mindir").unlink(), "model.mindir: found no such file"),
        (flip_a_byte, "model.mindir: found SHA-256 .*: damaged or replaced"),
        (no_mindir_with_right_checksum, "found no MINDIR that MindSpore .* can load"),
    ],
)
def test_damaged_bundle(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(folder, copy)
    (copy / "model.mindir").chmod(0o644)
    damage(copy)
    with pytest.raises(UserError, match=message) as caught:
        load_bundle(copy)
    assert "\n" not in str(caught.value)
