"""The Open Inference Protocol's tensors, from and to what a bundle understands."""

from __future__ import annotations

import base64
import binascii
import math
import re
import urllib.parse
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, MetadataTensor, RequestInput, ResponseOutput
from PIL import Image

from ..data.pixels import MOST_PIXELS, resized_pixels
from ..data.preprocess import MODES, EvalTransform, convert
from ..export.bundle import Bundle, softmax

IMAGES, PIXELS, ENCODED = "images", "pixels", "encoded"
LOGITS, PROBABILITIES, LABELS, SCORES = "logits", "probabilities", "labels", "scores"
FORMATS = ("JPEG", "PNG")
TOP_K = 5
_CODES = {"FP32": "f", "UINT8": "B"}  # of the module array
_ID = re.compile(r"([!-~]([ -~]{0,126}[!-~])?)?")
_DATA_URI = re.compile(rb"\s*data:[^,]{0,200};base64,", re.IGNORECASE)


class BadRequestError(MLServerError):
    """A request that cannot be answered: names the thing, what was found and what was expected."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and all of them together.

    Args:
        images: in one request.
        pixels: of an image, as it comes and as it is resized.
        queue: images under way at once.
    """

    images: int = 64
    pixels: int = MOST_PIXELS
    queue: int = 256


@dataclass(frozen=True)
class Wanted:
    """The outputs that a request asks for, and how many labels."""

    names: tuple[str, ...]
    top_k: int


def input_metadata(bundle: Bundle) -> list[MetadataTensor]:
    """The inputs, of which a request has one."""
    edge, channels = bundle.transform.image_size, bundle.channels
    tensors = [
        MetadataTensor(name=PIXELS, datatype="UINT8", shape=[-1, -1, -1, channels]),
        MetadataTensor(name=ENCODED, datatype="BYTES", shape=[-1]),
    ]
    if bundle.takes == "float32":
        shape = [-1, channels, edge, edge]
        tensors.insert(0, MetadataTensor(name=IMAGES, datatype="FP32", shape=shape))
    return tensors


def output_metadata(bundle: Bundle) -> list[MetadataTensor]:
    """The outputs, of which a request names those it wants."""
    tensors = [
        MetadataTensor(name=PROBABILITIES, datatype="FP32", shape=[-1, len(bundle.classes)]),
        MetadataTensor(name=LABELS, datatype="BYTES", shape=[-1, -1]),
        MetadataTensor(name=SCORES, datatype="FP32", shape=[-1, -1]),
    ]
    if bundle.gives == "logits":
        shape = [-1, len(bundle.classes)]
        tensors.insert(0, MetadataTensor(name=LOGITS, datatype="FP32", shape=shape))
    return tensors


def check_id(request: InferenceRequest) -> None:
    """Refuse an id that the answer's headers cannot carry, where MLServer repeats it.

    Raises:
        BadRequestError: it is not printable ASCII, long, or begins or ends with a blank.
    """
    if request.id is not None and not _ID.fullmatch(request.id):
        raise BadRequestError(
            f"id: found {ascii(request.id[:40])} of {len(request.id)} characters, expected at most "
            "128 of printable ASCII, no blank at either end"
        )


def read_wanted(request: InferenceRequest, outputs: Sequence[MetadataTensor]) -> Wanted:
    """The outputs that are named; or else labels and scores with ``top_k``, probabilities without.

    Raises:
        BadRequestError: an output is unknown, or ``top_k`` no count.
    """
    parameters = request.parameters.model_dump() if request.parameters else {}
    top_k = parameters.get("top_k")
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise BadRequestError(f"parameter top_k: found {top_k!r:.40}, expected a whole number >= 1")
    default = [PROBABILITIES] if top_k is None else [LABELS, SCORES]
    names = [output.name for output in request.outputs or []] or default
    known = [tensor.name for tensor in outputs]
    for name in names:
        if name not in known:
            raise BadRequestError(f"output {name!r:.60}: found no such, expected {_either(known)}")
    return Wanted(tuple(dict.fromkeys(names)), top_k or TOP_K)


def count_images(request: InferenceRequest, inputs: Sequence[MetadataTensor], most: int) -> int:
    """The number of images that a request is for, by its shape alone.

    Raises:
        BadRequestError: it has not one input, or one of another name, datatype or shape.
    """
    if len(request.inputs) != 1:
        raise BadRequestError(f"inputs: found {len(request.inputs)}, expected one")
    found = request.inputs[0]
    by_name = {tensor.name: tensor for tensor in inputs}
    if found.name not in by_name:
        known = _either(list(by_name))
        raise BadRequestError(f"input {found.name!r:.60}: found no such, expected {known}")
    expected = by_name[found.name]
    if found.datatype != expected.datatype:
        raise BadRequestError(
            f"input {found.name}: found datatype {found.datatype!r:.20}, "
            f"expected {expected.datatype}"
        )
    shape = found.shape
    fits = len(shape) == len(expected.shape) and all(
        size >= 1 and wish in (-1, size) for size, wish in zip(shape, expected.shape)
    )
    if not fits:
        raise BadRequestError(
            f"input {found.name}: found shape {str(shape):.60}, expected {expected.shape}, "
            "-1 for any size from 1 up"
        )
    if shape[0] > most:
        raise BadRequestError(f"images: found {shape[0]}, expected at most {most}", 413)
    return shape[0]


def read_images(tensor: RequestInput, bundle: Bundle, limits: Limits) -> np.ndarray:
    """What the bundle's network takes, from an input that :func:`count_images` has let pass.

    Raises:
        BadRequestError: the data is not what name, datatype and shape say, or exceeds a limit.
    """
    data = getattr(tensor.data, "root", tensor.data)
    if isinstance(data, (str, bytes, dict)) or not hasattr(data, "__len__"):
        raise BadRequestError(f"input {tensor.name}: found no list as data, expected one")
    if tensor.name == ENCODED:
        return bundle.prepare(_decode_all(tensor, data, bundle, limits))
    values = _numbers(tensor, data)
    if tensor.name == IMAGES:
        if not np.isfinite(values).all():
            raise BadRequestError(f"input {IMAGES}: found Inf or NaN, expected numbers")
        return values
    _check_size(tensor.shape[2], tensor.shape[1], bundle.transform, limits)
    pictures = values[..., 0] if bundle.channels == 1 else values
    return bundle.prepare([Image.fromarray(picture) for picture in pictures])


def write_outputs(wanted: Wanted, found: np.ndarray, bundle: Bundle) -> list[ResponseOutput]:
    """The outputs that are wanted, for (N, classes) float32 of the bundle.

    Raises:
        BadRequestError: the network overflowed, which finite images of absurd size can do.
    """
    if not np.isfinite(found).all():
        raise BadRequestError("logits: found Inf or NaN, expected images normalised as documented")
    probabilities = softmax(found) if bundle.gives == "logits" else found
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : wanted.top_k]
    tensors = {
        LOGITS: found,
        PROBABILITIES: probabilities,
        LABELS: np.array(bundle.classes, dtype=object)[best],
        SCORES: np.take_along_axis(probabilities, best, axis=1),
    }
    return [
        ResponseOutput(
            name=name,
            datatype="BYTES" if name == LABELS else "FP32",
            shape=list(tensors[name].shape),
            data=tensors[name].ravel().tolist(),
        )
        for name in wanted.names
    ]


def _numbers(tensor: RequestInput, data: Sequence[Any]) -> np.ndarray:
    """An array of the tensor's shape, from flat or nested lists."""
    code = _CODES[tensor.datatype]
    try:
        while len(data) and isinstance(data[0], list):
            data = list(chain.from_iterable(data))
        flat = np.frombuffer(array(code, data), code)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequestError(
            f"input {tensor.name}: found data that is no {tensor.datatype} ({error!s:.80})"
        ) from None
    if len(flat) != math.prod(tensor.shape):
        raise BadRequestError(
            f"input {tensor.name}: found {len(flat)} numbers, expected {math.prod(tensor.shape)} "
            f"for shape {tensor.shape}"
        )
    return flat.reshape(tensor.shape)


def _decode_all(
    tensor: RequestInput, data: Sequence[Any], bundle: Bundle, limits: Limits
) -> list[Image.Image]:
    if len(data) != tensor.shape[0]:
        raise BadRequestError(
            f"input {ENCODED}: found {len(data)} elements, expected {tensor.shape[0]} for shape "
            f"{tensor.shape}"
        )
    is_base64 = tensor.parameters is not None and tensor.parameters.content_type == "base64"
    images = []
    for index, element in enumerate(data):
        if isinstance(element, str) or is_base64:  # JSON holds no bytes
            element = _from_base64(element, index)
        if not isinstance(element, bytes):
            raise BadRequestError(f"image {index}: found no bytes, expected a JPEG or PNG file")
        images.append(_decode(element, index, bundle, limits))
    return images


def _from_base64(element: Any, index: int) -> bytes:
    """The file in base64, of either alphabet, with padding or without, in lines, as a data URI."""
    try:
        text = element.encode("ascii") if isinstance(element, str) else bytes(memoryview(element))
        if uri := _DATA_URI.match(text):
            text = urllib.parse.unquote_to_bytes(text[uri.end() :])
        text = b"".join(text.split()).translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise BadRequestError(
            f"image {index}: found no base64, expected a file in base64"
        ) from None


def _decode(content: bytes, index: int, bundle: Bundle, limits: Limits) -> Image.Image:
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        _check_size(*image.size, bundle.transform, limits)
        image.load()
        wanted = MODES[bundle.channels]
        return image if image.mode == wanted else convert(image, bundle.channels)
    except Image.UnidentifiedImageError:
        raise BadRequestError(f"image {index}: found no JPEG or PNG, expected one") from None
    except Image.DecompressionBombError:
        raise BadRequestError(
            f"image {index}: found too many pixels, expected at most {limits.pixels:,}", 413
        ) from None
    # Pillow's decoders answer damaged data with any of these.
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadRequestError(f"image {index}: cannot be read ({reason:.120})") from None


def _check_size(width: int, height: int, transform: EvalTransform, limits: Limits) -> None:
    """Refuse an image that is large, or will be."""
    resized = resized_pixels(width, height, transform)
    for pixels, how in ((width * height, ""), (resized, ", resized,")):
        if pixels > limits.pixels:
            raise BadRequestError(
                f"image of {width} x {height}: found {pixels:,} pixels{how} "
                f"expected at most {limits.pixels:,}",
                413,
            )


def _either(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}"
