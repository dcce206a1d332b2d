"""Which output a class folder stands for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import load_file, save_file

from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import (
    ModelWeights,
    load_weights,
    read_weights,
    start_from,
    write_weights,
)
from mindcv_poolformer.weights.labels import match, order_tells

S12 = {"depths": (2, 2, 6, 2), "dims": (64, 128, 320, 512), "layer_scale_init": 1e-5}


SPELLED = ("New York", "Cafe\u0301", "A-b")  # é in two characters, as macOS writes file names


def outputs(number: int, names: Sequence[str] = "", for_people: bool = True) -> ModelWeights:
    """Weights as far as their labels go."""
    facts = ("poolformer_s12", number, 3, "norm_pool", tuple(names), None, "", Path("x.ckpt"))
    return ModelWeights({}, *facts, for_people=for_people)


@pytest.mark.parametrize(
    ("weights", "found", "folders"),
    [
        (outputs(3, "cab"), "abc", "cab"),  # the same in another order
        (outputs(3, "cab"), "a", "cab"),  # some of them
        (outputs(4, "cab"), "bc", "cab"),  # the last has no name
        (outputs(3, "cab", for_people=False), "abc", "cab"),
        (outputs(3, SPELLED), ("a_b", "caf\u00e9", "new_york"), ("new_york", "caf\u00e9", "a_b")),
        (outputs(3), "abc", None),
    ],
)
def test_names_tell_or_there_are_none(
    weights: ModelWeights, found: Sequence[str], folders: Sequence[str] | None
) -> None:
    assert match(weights, tuple(found), None) == (folders and tuple(folders), "")


@pytest.mark.parametrize(
    ("weights", "found", "asked", "said"),
    [
        (outputs(5), "abc", 5, "the folders are taken for outputs 0 to 2"),
        (outputs(3, "xyz"), "abc", None, "has the name of an output (a is none of them), so the"),
        (outputs(5, "vwxyz"), "abc", 5, "not all of which have such a name: the folders are taken"),
        (outputs(3, "abz"), "abc", None, "2 of 3 class folders are names of outputs, c is none"),
        (outputs(3, "aab"), "axy", None, "1 of 3 class folders are names of outputs, a is one of"),
    ],
)
def test_where_order_tells_it_is_said(
    weights: ModelWeights, found: Sequence[str], asked: int | None, said: str
) -> None:
    folders, line = match(weights, tuple(found), asked)
    assert folders is None
    assert line.startswith("labels: ") and said in line and "\n" not in line


@pytest.mark.parametrize(
    ("weights", "found", "asked", "said"),
    [
        (outputs(5), "abc", None, "3 class folders, 5 outputs.*num_classes 5 takes the folders"),
        (outputs(5, "vwxyz"), "abc", None, "expected weights that name the folders"),
        (outputs(2), "abc", 2, "3 class folders, 2 outputs, .* or as many outputs$"),
        (outputs(3, "bax"), "abc", None, "and a, output 1, is class 0 in the folders' order"),
        (
            outputs(3, ("A-b", "a_b", "c")),
            ("a b", "c", "d"),
            None,
            "c, output 2, is class 1 in the",
        ),
        (
            outputs(3, ("New York", "Boston", "x")),
            ("boston", "new_york", "y"),
            None,
            "2 of 3 class folders .*, y is none, and boston, output 1, is class 0 in the",
        ),
        (outputs(0), "abc", None, "found no classifier"),
    ],
)
def test_what_is_refused(
    weights: ModelWeights, found: Sequence[str], asked: int | None, said: str
) -> None:
    with pytest.raises(UserError, match=f"x.ckpt: .*{said}"):
        match(weights, tuple(found), asked)


def test_order_of_a_bundle() -> None:
    assert order_tells(("x", "y"), ("a", "b"), "bundle") == ""
    with pytest.raises(UserError, match="bundle: found 1 of 2 class folders are names of outputs"):
        order_tells(("b", "y"), ("a", "b"), "bundle")


def test_a_network_with_its_outputs_in_another_order(
    tmp_path: Path, official_file: Path, pynative_mode: None
) -> None:
    """It is the same classifier, so each folder's class has the logits that it had."""
    folders = ("cat", "dog", "emu")
    weights = read_weights(official_file).with_new_head(3)
    write_weights(replace(weights, classes=folders), tmp_path / "hf", "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][[2, 0, 1]].copy()
    config["id2label"] = {"0": "emu", "1": "cat", "2": "dog"}
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    other = read_weights(tmp_path / "hf")

    labels = {folder: match(other, folders, None)[0].index(folder) for folder in folders}
    image = Tensor(np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32))
    logits = []
    for each in (weights, other):
        network = PoolFormer(**S12, num_classes=3).set_train(False)
        load_weights(network, each)
        logits.append(network(image).asnumpy()[0])
    for number, folder in enumerate(folders):
        assert logits[1][labels[folder]] == pytest.approx(logits[0][number], abs=1e-5)

    network = PoolFormer(**S12, num_classes=3)
    said = start_from(network, other, folders)
    assert "whose order is another: class 0 is emu in the weights, cat in the images" in said
    assert network.classes == folders
