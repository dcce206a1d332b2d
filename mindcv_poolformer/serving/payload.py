"""The Open Inference Protocol's tensors, read and written whatever a bundle is for."""

from __future__ import annotations

import base64
import binascii
import math
import re
import urllib.parse
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
from mlserver.errors import MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    ResponseOutput,
    TensorData,
)
from PIL import Image

from ..data.preprocess import DAMAGED, convert
from ..export.picture_files import as_png
from ..runtime.counted import counted
from ..runtime.image_modes import MODES

PIXELS, ENCODED = "pixels", "encoded"
OBJECTS = "objects"
FORMATS = ("JPEG", "PNG")
CODES = {"FP32": "f", "UINT8": "B"}  # of the module array
_ID = re.compile(r"([!-~]([ -~]{0,126}[!-~])?)?")
_DATA_URI = re.compile(rb"\s*data:[^,]{0,200};base64,", re.IGNORECASE)


class BadRequestError(MLServerError):
    """A request that cannot be answered: names the thing, what was found and what was expected."""


@dataclass(frozen=True)
class Wanted:
    """What a request asks for.

    Args:
        names: of outputs, none for what is usual.
        top_k: so many classes, or objects; None for all.
        threshold: scores that objects exceed, None for the usual.
    """

    names: tuple[str, ...]
    top_k: int | None
    threshold: float | None = None


@dataclass(frozen=True)
class Pictures:
    """Reads the pictures of requests.

    Args:
        channels: that each is converted to: 1 grey, 3 RGB, 4 RGBA.
        most_pixels: of a picture, as it comes and as it is resized.
        resized_pixels: gives the pixels that one of a width and a height will have, resized.
    """

    channels: int
    most_pixels: int
    resized_pixels: Callable[[int, int], int]

    @property
    def tensors(self) -> list[MetadataTensor]:
        """The inputs that pictures come in, of any size."""
        return [
            MetadataTensor(name=PIXELS, datatype="UINT8", shape=[-1, -1, -1, self.channels]),
            MetadataTensor(name=ENCODED, datatype="BYTES", shape=[-1]),
        ]

    def read(self, tensor: RequestInput) -> Iterator[Image.Image]:
        """Each picture in turn, of an input that :func:`count_images` has let pass.

        Raises:
            BadRequestError: the data is not what name, datatype and shape say, or exceeds a limit.
        """
        if tensor.name == ENCODED:
            yield from self._decode_all(tensor)
            return
        values = read_numbers(tensor)
        self._check_size(tensor.shape[2], tensor.shape[1])
        for picture in values[..., 0] if self.channels == 1 else values:
            yield Image.fromarray(picture)

    def _decode_all(self, tensor: RequestInput) -> Iterator[Image.Image]:
        data = _listed(tensor)
        if len(data) != tensor.shape[0]:
            raise BadRequestError(
                f"input {ENCODED}: found {counted(len(data), 'element')}, expected "
                f"{tensor.shape[0]} for shape {tensor.shape}"
            )
        is_base64 = tensor.parameters is not None and tensor.parameters.content_type == "base64"
        for index, element in enumerate(data):
            if isinstance(element, str) or is_base64:  # JSON holds no bytes
                element = _from_base64(element, index)
            if not isinstance(element, bytes):
                raise BadRequestError(f"image {index}: found no bytes, expected a JPEG or PNG file")
            yield self._decode(element, index)

    def _decode(self, content: bytes, index: int) -> Image.Image:
        try:
            image = Image.open(BytesIO(content), formats=FORMATS)
            self._check_size(*image.size)
            image.load()
            wanted = MODES[self.channels]
            return image if image.mode == wanted else convert(image, self.channels)
        except Image.UnidentifiedImageError:
            raise BadRequestError(f"image {index}: found no JPEG or PNG, expected one") from None
        except Image.DecompressionBombError:
            raise BadRequestError(
                f"image {index}: found too many pixels, expected at most {self.most_pixels:,}", 413
            ) from None
        except DAMAGED as error:
            reason = " ".join(str(error).split())
            raise BadRequestError(f"image {index}: cannot be read ({reason:.120})") from None

    def _check_size(self, width: int, height: int) -> None:
        """Refuse an image that is large, or will be."""
        resized = self.resized_pixels(width, height)
        for pixels, how in ((width * height, ""), (resized, ", resized,")):
            if pixels > self.most_pixels:
                raise BadRequestError(
                    f"image of {width} x {height}: found {pixels:,} pixels{how} "
                    f"expected at most {self.most_pixels:,}",
                    413,
                )


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
    """The outputs that are named, and the parameters ``top_k`` and ``threshold``.

    Raises:
        BadRequestError: an output is unknown, ``top_k`` no count, or ``threshold`` no fraction or
            for a bundle that finds no objects.
    """
    parameters = request.parameters.model_dump(exclude_none=False) if request.parameters else {}
    top_k = parameters.get("top_k")
    if "top_k" in parameters and (type(top_k) is not int or top_k < 1):
        raise BadRequestError(f"parameter top_k: found {top_k!r:.40}, expected a whole number >= 1")
    names = [output.name for output in request.outputs or []]
    known = [tensor.name for tensor in outputs]
    for name in names:
        if name not in known:
            raise BadRequestError(f"output {name!r:.60}: found no such, expected {_either(known)}")
    if "threshold" in parameters and OBJECTS not in known:
        raise BadRequestError("parameter threshold: found it, expected it with a detector alone")
    return Wanted(tuple(dict.fromkeys(names)), top_k, _threshold(parameters))


def _threshold(parameters: Mapping[str, Any]) -> float | None:
    """A number or its text: of a float over gRPC MLServer leaves but the name."""
    if "threshold" not in parameters:
        return None
    found = parameters["threshold"]
    try:
        value = float(found) if type(found) in (int, float, str) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= 1:
        raise BadRequestError(
            f"parameter threshold: found {found!r:.40}, expected a number from 0 to 1, "
            "over gRPC as text"
        )
    return value


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


def read_numbers(tensor: RequestInput) -> np.ndarray:
    """An array of the tensor's shape and datatype, from flat or nested lists, or a flat array.

    Raises:
        BadRequestError: the data is no such thing.
    """
    data, code = _listed(tensor), CODES[tensor.datatype]
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
            f"input {tensor.name}: found {counted(len(flat), 'number')}, expected "
            f"{math.prod(tensor.shape)} for shape {tensor.shape}"
        )
    return flat.reshape(tensor.shape)


def in_base64(image: Image.Image) -> str:
    """A PNG of an image as text: REST has no bytes."""
    return base64.b64encode(as_png(image)).decode("ascii")


def texts(
    rows: Sequence[Mapping[str, str]], names: Sequence[str], pngs: Collection[str]
) -> list[ResponseOutput]:
    """The outputs of some names, of a row for each picture; ``pngs`` of :func:`in_base64`."""
    return [
        ResponseOutput(
            name=name,
            datatype="BYTES",
            shape=[len(rows)],
            parameters=Parameters(content_type="base64") if name in pngs else None,
            data=[row[name] for row in rows],
        )
        for name in names
    ]


def encode_texts(response: InferenceResponse) -> None:
    """Make bytes of an answer's texts: MLServer makes text of bytes for JSON, but not the reverse.

    Typed contents of gRPC want bytes; an answer from MLServer's cache has texts.
    """
    for output in response.outputs:
        if output.datatype == "BYTES":
            data = getattr(output.data, "root", output.data)
            output.data = TensorData(root=[_encoded(text) for text in data])


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")


def _listed(tensor: RequestInput) -> Sequence[Any]:
    data = getattr(tensor.data, "root", tensor.data)
    if isinstance(data, (str, bytes, dict)) or not hasattr(data, "__len__"):
        raise BadRequestError(f"input {tensor.name}: found no list as data, expected one")
    return data


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


def _either(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}"
