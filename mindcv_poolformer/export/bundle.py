"""A bundle: a folder with a graph and, in model.json, all it takes to answer images with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from ..data.detection.fitting import CanvasTransform
from ..data.fitting import nearest_shape
from ..data.preprocess import EvalTransform
from ..data.segmentation.fitting import EvalTransform as SceneTransform
from ..data.segmentation.stretch import StretchTransform
from .description import (
    CLASSIFICATION,
    DESCRIPTION,
    MINDIR,
    Description,
    Graph,
    precision_in,
    read_description,
)
from .image_size import Size, as_size, size_of
from .key import read_key
from .runtimes import Runtime, Taken, chosen

__all__ = [
    "DESCRIPTION",
    "MINDIR",
    "Bundle",
    "Load",
    "PictureBundle",
    "load_bundle",
    "load_sizes",
    "log_probabilities",
    "softmax",
]

Network = Callable[..., Any]  # images to an array; of a detector see DetectorBundle
T_co = TypeVar("T_co", covariant=True)
Preparation = TypeVar("Preparation", EvalTransform, StretchTransform)


@dataclass(frozen=True, eq=False)
class LoadedGraph(Generic[Preparation]):
    """What a bundle holds for one image size, ready to run.

    Attributes:
        folder: where it was read from.
        model: name of the model, such as poolformer_s12.
        classes: name of each output.
        transform: from an image to a normalised one, (C, height, width) float32.
        batch_sizes: the only ones the network takes, in rising order; empty for any.
        precision: of what runs. fp32; fp16, of weights and, in MindSpore, of arithmetic, where
            ONNX Runtime computes in float32; or int8, of convolutions in ONNX Runtime. The output
            always is float32.
        takes: what the network takes: "float32", normalised images (N, C, H, W), or "uint8", their
            pixels (N, H, W, C).
        gives: "logits" or "probabilities"; "objects" of a detector.
        runtime: what runs it, "onnx" or "mindspore".
        network: the graph, or for several batch sizes a call that chooses among theirs.
        checksums: SHA-256 of the graph's file, or of several, by name.
    """

    folder: Path
    model: str
    classes: tuple[str, ...]
    transform: Preparation
    batch_sizes: tuple[int, ...]
    precision: str
    takes: str
    gives: str
    runtime: Taken
    network: Network
    checksums: Mapping[str, str]

    @property
    def image_size(self) -> Size:
        """Height and width of what the network takes."""
        return size_of(self.transform)

    @property
    def channels(self) -> int:
        """Channels of the images: 1 grey, 3 RGB, 4 RGBA."""
        return len(self.transform.mean)

    @property
    def loading(self) -> Preparation:
        """From an image to what :meth:`to_input` takes: normalised unless the graph does that."""
        if self.takes == "float32":
            return self.transform
        zeros, ones = (0.0,) * self.channels, (1.0,) * self.channels
        return dataclasses.replace(self.transform, mean=zeros, std=ones)

    def to_input(self, images: np.ndarray) -> np.ndarray:
        """From (N, C, H, W) float32 of :attr:`loading` to what the network takes."""
        if self.takes == "float32":
            return images
        return np.ascontiguousarray(images.astype(np.uint8).transpose(0, 2, 3, 1))

    def prepare(self, images: Iterable[Image.Image]) -> np.ndarray:
        """From images of any size, with ``channels`` channels, to what the network takes."""
        return self.to_input(np.stack([self.loading(image) for image in images]))

    def outputs(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """Run the network.

        Args:
            images: (N, C, H, W) float32 or (N, H, W, C) uint8, as ``takes`` tells, with N >= 1.
            batch_size: images in one run; the last run is filled up with zeros, since the network
                compiles anew for every batch size it meets. None: all in one run. A bundle of fixed
                batch sizes runs at those, whatever is given: at the smallest that takes all that
                is left, or else at the largest.

        Returns:
            (N, classes) float32, what ``gives`` tells; of a segmenter (N, classes, h, w).
        """
        (height, width), channels = self.image_size, self.channels
        pixels = self.takes == "uint8"
        shape: tuple[int, ...] = (height, width, channels) if pixels else (channels, height, width)
        if len(images) == 0 or images.shape[1:] != shape or images.dtype != self.takes:
            wanted = ", ".join(map(str, ("N", *shape)))
            raise ValueError(
                f"images: found {images.dtype} {images.shape}, expected {self.takes} ({wanted})"
            )
        rows = []
        for start, size in self._runs(len(images), batch_size):
            batch = images[start : start + size]
            if (missing := size - len(batch)) > 0:
                batch = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
            rows.append(self.network(batch)[: size - missing])
        return np.concatenate(rows)

    def _runs(self, count: int, batch_size: int | None) -> Iterator[tuple[int, int]]:
        """Where each run starts, and its batch size."""
        start = 0
        while start < count:
            size = batch_size or count
            if self.batch_sizes:
                enough = (fixed for fixed in self.batch_sizes if fixed >= count - start)
                size = next(enough, self.batch_sizes[-1])
            yield start, size
            start += size

    def logits(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """As :meth:`outputs`, and logits in any case.

        Of probabilities these are the logarithms: logits less a constant of each image.
        """
        outputs = self.outputs(images, batch_size)
        if self.gives == "logits":
            return outputs
        return log_probabilities(outputs)


@dataclass(frozen=True, eq=False)
class Bundle(LoadedGraph[EvalTransform]):
    """A loaded bundle of a classifier, for one image size; its images are squares."""

    def probabilities(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """As :meth:`outputs`, and probabilities in any case, float64."""
        outputs = self.outputs(images, batch_size)
        return softmax(outputs) if self.gives == "logits" else outputs.astype(np.float64)

    def classify(self, images: Sequence[Image.Image], batch_size: int | None = None) -> np.ndarray:
        """Give the probability of each class, (N, classes) float64, for images of any size.

        ``batch_size`` is as in :meth:`outputs`. The images have ``channels`` channels, as
        ``open_image(path, channels)`` gives them.
        """
        return self.probabilities(self.prepare(images), batch_size)


@dataclass(frozen=True, eq=False)
class PictureBundle:
    """A loaded bundle of a segmenter or detector: graphs of one size or several.

    Attributes:
        folder: where it was read from.
        model: name of the model, such as semantic_fpn_poolformer_s12.
        classes: name of each class.
        graphs: what runs, by the size of the images it takes.
    """

    folder: Path
    model: str
    classes: tuple[str, ...]
    graphs: Mapping[Size, LoadedGraph[Any]]

    def graph_for(self, size: Size) -> LoadedGraph[Any]:
        """Give the graph whose shape is nearest to a picture's height and width."""
        return self.graphs[nearest_shape(*size, list(self.graphs))]


class Load(Protocol[T_co]):
    """Reads a bundle for a runtime, as :func:`load_bundle` does."""

    def __call__(
        self, folder: str | Path, *, runtime: Taken, key_file: str | Path | None
    ) -> T_co: ...


def load_bundle(
    folder: str | Path,
    *,
    image_size: int | Size | None = None,
    runtime: Runtime = "auto",
    key_file: str | Path | None = None,
    threads: int | None = None,
) -> Bundle:
    """Read a classifier's bundle that export.py has written.

    Args:
        folder: the bundle.
        image_size: one of the bundle's, None for its first.
        runtime: "mindspore", on the device that MindSpore is set to, "onnx" for ONNX Runtime on the
            CPU, or "auto", see :func:`chosen`.
        key_file: holds the key of an encrypted bundle.
        threads: that compute one run in ONNX Runtime; None for all cores.

    Raises:
        UserError: the folder is no bundle, is damaged (its files are checked against their
            SHA-256), does not fit its description, was written by a later version, has nothing
            that the runtime runs, the key is not its own, or it is no classifier's.
    """
    description = read_description(folder)
    description.check_task(CLASSIFICATION)
    size = description.image_sizes[0] if image_size is None else as_size(image_size)
    graphs = load_graphs(description, [size], runtime=runtime, key_file=key_file, threads=threads)
    return Bundle(**vars(graphs[size]))


def load_sizes(
    folder: str | Path,
    task: str,
    image_size: Size | None = None,
    runtime: Runtime = "auto",
    key_file: str | Path | None = None,
) -> tuple[Description, dict[Size, LoadedGraph[Any]]]:
    """Read a bundle of segmentation or detection that export.py has written.

    Args:
        folder: the bundle.
        task: that it is for.
        image_size: the only one of its sizes to load, height and width; None for all.
        runtime: as of :func:`load_bundle`.
        key_file: holds the key of an encrypted bundle.

    Raises:
        UserError: as :func:`load_bundle`, or it is another task's.
    """
    description = read_description(folder)
    description.check_task(task)
    sizes = description.image_sizes if image_size is None else (image_size,)
    return description, load_graphs(description, sizes, runtime=runtime, key_file=key_file)


def load_graph(
    description: Description,
    image_size: Size,
    *,
    runtime: Runtime = "auto",
    key_file: str | Path | None = None,
) -> LoadedGraph[Any]:
    """Load what a bundle holds for one image size; arguments and errors as :func:`load_bundle`."""
    sizes = [image_size]
    return load_graphs(description, sizes, runtime=runtime, key_file=key_file)[image_size]


def load_graphs(
    description: Description,
    image_sizes: Iterable[Size],
    *,
    runtime: Runtime = "auto",
    key_file: str | Path | None = None,
    threads: int | None = None,
) -> dict[Size, LoadedGraph[Any]]:
    """Load what a bundle holds for several image sizes, each graph once: one may be for all."""
    taken = chosen(description, runtime)
    key = read_key(description.folder, description.cipher, key_file)
    wanted = {size: description.graphs_for(taken, size) for size in image_sizes}
    files = {graph.file: graph for graphs in wanted.values() for graph in graphs}
    networks = {
        name: _load(description, graph, taken, key, threads) for name, graph in files.items()
    }
    return {
        size: _loaded(description, size, taken, graphs, networks) for size, graphs in wanted.items()
    }


def _loaded(
    description: Description,
    image_size: Size,
    runtime: Taken,
    graphs: Sequence[Graph],
    loaded: Mapping[str, Network],
) -> LoadedGraph[Any]:
    networks = {graph.batch_size: loaded[graph.file] for graph in graphs}
    return LoadedGraph(
        folder=description.folder,
        model=description.model,
        classes=description.classes,
        transform=transform_for(description, image_size),
        batch_sizes=tuple(sorted(size for size in networks if size is not None)),
        precision=precision_in(runtime, description.precision),
        takes=description.takes,
        gives=description.gives,
        runtime=runtime,
        network=_by_batch_size(networks),
        checksums={graph.file: description.files[graph.file][1] for graph in graphs},
    )


def transform_for(
    description: Description, image_size: Size
) -> EvalTransform | StretchTransform | CanvasTransform:
    """From an image to the input of a bundle's graph of a size."""
    transform = description.transform
    if isinstance(transform, EvalTransform):
        return dataclasses.replace(transform, image_size=image_size[0])
    if isinstance(transform, SceneTransform):
        return StretchTransform.of(transform, image_size)
    return CanvasTransform.of(transform, image_size)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Give probabilities for logits (N, classes), in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Give the logarithms, finite ones also of what is zero in float32."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def _load(
    description: Description, graph: Graph, runtime: Taken, key: bytes | None, threads: int | None
) -> Network:
    # Each imported where it is wanted: the other need not be installed.
    if runtime == "onnx":
        from .onnx.run import load_onnx

        return load_onnx(description, graph, threads)
    from .run_mindir import load_mindir

    return load_mindir(description, graph, key)


def _by_batch_size(networks: Mapping[int | None, Network]) -> Network:
    if len(networks) == 1:
        return next(iter(networks.values()))
    return lambda images: networks[images.shape[0]](images)
