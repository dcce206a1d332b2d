"""What export.py is to export, by task: a network with its weights, and samples to prove it on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..config import Recipe
from ..data.detection.fitting import EvalTransform as PictureTransform
from ..data.folder import find_images
from ..data.segmentation.scenes import IMAGES
from ..export.classifiers import check_edges, images_at, proof_images, trained_classifier
from ..export.detectors import graph_sizes, pictures_at, trained_detector
from ..export.image_size import Size
from ..export.int8 import MOST_CALIBRATION_IMAGES, MOST_PROOF_IMAGES, Int8Images, evenly
from ..export.proof import Samples
from ..export.proof_pictures import proof_pictures
from ..export.segmenters import check_sizes, scenes_at, trained_segmenter
from ..export.trained import Trained
from ..models.variants import find_detector, find_segmenter
from ..runtime.errors import UserError
from ..weights import ModelWeights, find_weights, network_of
from . import validating_images, validating_pictures, validating_scenes

Prepared = tuple[Trained, Sequence[Samples], str]


def prepare(recipe: Recipe, sizes: Sequence[Size], sample_images: str) -> Prepared:
    """Give what to export, samples for each size to prove it on, and where these are from.

    Args:
        recipe: names the task, the model and its weights.
        sizes: of the images that the graphs are to take; where none is asked for, that of the
            recipe's images, a square of the scale's shorter edge for scenes, and for pictures with
            objects two canvases, a wide one and a high one.
        sample_images: an image or folder to prove it on, empty for those of the validation split.

    Raises:
        UserError: names the key, or the file.
    """
    return _PREPARATIONS[recipe.model.task](recipe, sizes, sample_images)


def _classifier(recipe: Recipe, sizes: Sequence[Size], sample_images: str) -> Prepared:
    edges = check_edges(recipe, sizes) or [recipe.augmentation.image_resize]
    trained = trained_classifier(recipe, _weights(recipe), edges[0])
    images, origin = proof_images(recipe, sample_images)
    return trained, images_at(trained, edges, images), origin


def _segmenter(recipe: Recipe, sizes: Sequence[Size], sample_images: str) -> Prepared:
    check_sizes(sizes)
    name = recipe.model.model
    find_segmenter(name)
    weights = _weights(recipe)
    network = network_of(weights, num_classes=recipe.model.num_classes or weights.num_classes)
    transform = validating_scenes.eval_transform(recipe)
    trained = trained_segmenter(network, name, weights, transform)
    folder = Path(recipe.data.data_dir) / IMAGES / recipe.data.val_split
    pictures, origin = proof_pictures(folder, sample_images)
    return trained, scenes_at(trained, sizes, pictures), origin


def _detector(recipe: Recipe, sizes: Sequence[Size], sample_images: str) -> Prepared:
    name = recipe.model.model
    find_detector(name)
    weights = _weights(recipe)
    network = validating_pictures.restored(recipe, weights)
    if note := validating_pictures.limits_note(recipe, weights):
        print(note)
    transform = validating_pictures.eval_transform(recipe)
    trained = trained_detector(network, name, weights, transform)
    assert isinstance(trained.transform, PictureTransform)
    sizes = graph_sizes(sizes, trained.transform)
    folder = Path(recipe.data.data_dir) / recipe.data.val_split
    pictures, origin = proof_pictures(folder, sample_images)
    return trained, pictures_at(trained.transform, sizes, pictures), origin


def int8_images(
    recipe: Recipe, trained: Trained, calibration_images: str, sample_images: str
) -> Int8Images:
    """Give images to calibrate a classifier's INT8 graph on, and to prove it on.

    Args:
        recipe: names the data set.
        trained: the classifier.
        calibration_images: an image or folder, empty for the training split.
        sample_images: an image or folder, of which no labels are known, to prove it on; empty for
            the validation split, whose folders are the outputs that validation takes them for.

    Raises:
        UserError: there are no images for one of them.
    """
    data = recipe.data
    train, val = (Path(data.data_dir) / split for split in (data.train_split, data.val_split))
    for key, given, folder in (
        ("calibration_images", calibration_images, train),
        ("sample_images", sample_images, val),
    ):
        if not given and not folder.is_dir():
            raise UserError(f"{key}: found no folder {folder} for precision int8, expected --{key}")
    calibration = find_images([calibration_images or train])
    labels = None
    if sample_images:
        proof = find_images([sample_images])
    else:
        images, notes = validating_images.images_for(trained.classes, trained.checkpoint, recipe)
        print(*notes, sep="\n", end="\n" if notes else "")
        proof = list(map(Path, images.paths))
        labels = images.labels
    calibrated = evenly(len(calibration), MOST_CALIBRATION_IMAGES)
    proven = evenly(len(proof), MOST_PROOF_IMAGES)
    return Int8Images(
        calibration=[calibration[i] for i in calibrated],
        proof=[proof[i] for i in proven],
        labels=None if labels is None else labels[proven],
        origin="sample_images" if sample_images else "val_split",
    )


_PREPARATIONS: dict[str, Callable[[Recipe, Sequence[Size], str], Prepared]] = {
    "classification": _classifier,
    "segmentation": _segmenter,
    "detection": _detector,
}


def _weights(recipe: Recipe) -> ModelWeights:
    """Those that are asked for, with what is said of them."""
    weights = find_weights(recipe.model, Path(recipe.checkpointing.ckpt_save_dir) / "best.ckpt")
    if weights.note:
        print(f"{weights.path}: {weights.note}")
    return weights
