"""validate.py on folders named by WordNet ids, with weights and bundles that know ImageNet's names.

Only some of the 1,000 folders are there, so their order would give other labels.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
from official import official_state_dict
from safetensors.numpy import save_file
from scripts import RECIPE, write_images

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.tasks import validating_images
from mindcv_poolformer.weights import ModelWeights, imagenet, read_weights, write_weights

FOLDERS = {"n01440764": 0, "n02123045": 281, "n15075141": 999}  # tench, tabby, toilet tissue


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> ModelWeights:
    """The weights of a file with the name that timm's repository has."""
    folder = tmp_path_factory.mktemp("hub") / "poolformer_s12.sail_in1k"
    folder.mkdir()
    save_file(official_state_dict("poolformer_s12"), folder / "model.safetensors")
    return read_weights(folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    write_images(tmp_path / "data" / "val", per_class=4)
    for number, name in enumerate(FOLDERS):
        (tmp_path / "data" / "val" / f"class{number}").rename(tmp_path / "data" / "val" / name)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def recipe_in(folder: Path) -> Recipe:
    words = ["--config", str(folder / "recipe.yaml"), "--data_dir", str(folder / "data")]
    return parse_recipe(words, description="", default_config="")


def test_labels_are_the_outputs_of_the_ids(workspace: Path, published: ModelWeights) -> None:
    images, said = validating_images.images_for_weights(published, recipe_in(workspace))
    assert said == [] and images.classes == imagenet.folders()
    assert [Path(path).parent.name for path in images.paths[::4]] == list(FOLDERS)
    np.testing.assert_array_equal(images.labels, np.repeat(list(FOLDERS.values()), 4))
    assert [published.classes[label] for label in images.labels[::4]] == [
        "tench, Tinca tinca",
        "tabby, tabby cat",
        "toilet tissue, toilet paper, bathroom tissue",
    ]


def test_a_training_folder_with_few_classes_changes_nothing(
    workspace: Path, published: ModelWeights
) -> None:
    (workspace / "data" / "train").symlink_to("val")
    images, said = validating_images.images_for_weights(published, recipe_in(workspace))
    assert (said, set(images.labels.tolist())) == ([], set(FOLDERS.values()))


def test_a_bundle_is_looked_at_the_same_way(workspace: Path) -> None:
    recipe = recipe_in(workspace)
    images, note = validating_images.images_for(imagenet.names(), workspace, recipe)
    np.testing.assert_array_equal(images.labels, np.repeat(list(FOLDERS.values()), 4))
    assert note == []


def test_outputs_without_names_are_said_to_be_imagenets(
    workspace: Path, published: ModelWeights
) -> None:
    nameless = replace(published, classes=(), for_people=False)
    images, (said,) = validating_images.images_for_weights(nameless, recipe_in(workspace))
    np.testing.assert_array_equal(images.labels, np.repeat(list(FOLDERS.values()), 4))
    assert said.startswith("labels: the weights name none of their 1,000 outputs")


@pytest.mark.parametrize("names", [(), imagenet.names()])
def test_some_classes_are_taken_in_their_order_only_where_asked_for(
    workspace: Path, published: ModelWeights, names: tuple[str, ...]
) -> None:
    for number, name in enumerate(FOLDERS):
        (workspace / "data" / "val" / name).rename(workspace / "data" / "val" / f"mine{number}")
    weights, recipe = (
        replace(published, classes=names, for_people=bool(names)),
        recipe_in(workspace),
    )
    with pytest.raises(UserError, match="3 class folders, 1,000 outputs.*; num_classes 1000 takes"):
        validating_images.images_for_weights(weights, recipe)
    asked = replace(recipe, model=replace(recipe.model, num_classes=1000))
    images, (said,) = validating_images.images_for_weights(weights, asked)
    np.testing.assert_array_equal(images.labels, np.repeat([0, 1, 2], 4))
    assert "the folders are taken for outputs 0 to 2 in their order" in said


def test_a_stranger_among_the_ids_is_refused(workspace: Path, published: ModelWeights) -> None:
    (workspace / "data" / "val" / "n15075141").rename(workspace / "data" / "val" / "n00000001")
    with pytest.raises(UserError, match="n00000001 is not among the 1000"):
        validating_images.images_for_weights(published, recipe_in(workspace))


@pytest.mark.long
def test_the_scores_are_those_of_known_folders(workspace: Path, published: ModelWeights) -> None:
    """The same weights, once of published ones, once of a training on ImageNet's folders."""
    trained = replace(published, classes=imagenet.folders(), for_people=False)
    write_weights(trained, workspace / "trained.ckpt", "ckpt")
    found = []
    for ckpt_path in (published.path.parent, "trained.ckpt"):
        keys = {"mode": 1, "ckpt_path": ckpt_path, "result_file": "result.json"}
        ended = forked.run("validate.py", workspace, **keys)
        assert (ended.code, ended.err) == (0, "")
        result = json.loads((workspace / "result.json").read_text())
        found.append([result[key] for key in ("images", "top1", "top5", "loss")])
    assert found[0] == pytest.approx(found[1], abs=1e-5) and found[0][0] == 12
