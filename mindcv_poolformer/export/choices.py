"""What the graphs of a bundle may be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

from ..models.parts.layout import Layout
from ..runtime.errors import UserError
from .key import read_key_file


@dataclass(frozen=True)
class Choices:
    """What the graphs of a bundle are to be.

    Args:
        precision: of weights and arithmetic; the output is float32 in all. ONNX graphs of fp16
            store weights in float16 and compute in float32. int8 is of the ONNX graph alone, and
            the MINDIRs are fp32.
        deploy: write the deploy form, see :func:`to_deploy`.
        batch_sizes: the only ones the bundle takes, a MINDIR for each; empty for any.
        takes: float32 images, normalised, (N, C, H, W); or uint8 pixels (N, H, W, C).
        gives: logits or probabilities.
        beside: ONNX or AIR, a graph in that format beside the MINDIRs; None for none. Only an
            Ascend device can write AIR, and it is not proven.
        flash_attention: attention in fp16 as the operator of Ascend's training cards; the graph
            loads nowhere else then.
        layout: of the maps within the graphs, None for that of the device that writes them:
            NCHW on Ascend, with MindSpore's own operators, and NHWC on the CPU.
        key_file: holds the key to encrypt the MINDIRs with; None to leave them readable.
    """

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    deploy: bool = True
    batch_sizes: tuple[int, ...] = ()
    takes: Literal["float32", "uint8"] = "float32"
    gives: Literal["logits", "probabilities"] = "logits"
    beside: Literal["ONNX", "AIR"] | None = None
    flash_attention: bool = False
    layout: Layout | None = None
    key_file: str | None = None

    def check(self) -> None:
        """Refuse choices that exclude each other, or that cannot be met here.

        Raises:
            UserError: names them.
        """
        if self.key_file:
            read_key_file(self.key_file)  # before the work instead of after it
            if self.beside:
                raise UserError(
                    f"enc_key_file: found one with file_format {self.beside}, expected MINDIR: "
                    "the other formats are not encrypted"
                )
        if self.precision == "int8" and self.beside != "ONNX":
            raise UserError(
                f"precision: found int8 with file_format {self.beside or 'MINDIR'}, expected ONNX: "
                "that graph is what is quantised"
            )
        if self.beside == "ONNX":
            if not self.deploy:
                raise UserError(
                    "deploy: found false with file_format ONNX, expected true: "
                    "the ONNX graph is made of the deploy form's weights"
                )
            if lacking := missing_for_onnx():
                raise UserError(
                    f"file_format: found ONNX without the package {lacking}, expected it: "
                    f"pip install {lacking}"
                )

    def for_detector(self) -> Choices:
        """Give what a detector's bundle is: graphs that take one picture each.

        Raises:
            UserError: they are to be what these cannot be.
        """
        self._refuse_int8("detection")
        for flag, found, expected, reason in (
            ("output", self.gives, "logits", "its graph gives objects in any case"),
            ("input", self.takes, "float32", "pictures are filled up once they are normalised"),
            ("export_batch_size", self.batch_sizes or (1,), (1,), "its graph takes one picture"),
            ("file_format", self.beside or "ONNX", "ONNX", "its graph has not been tried so"),
        ):
            if found != expected:
                shown = found if isinstance(found, str) else " ".join(map(str, found))
                wanted = expected if isinstance(expected, str) else "1"
                raise UserError(
                    f"{flag}: found {shown} with a detection model, expected {wanted}: {reason}"
                )
        return replace(self, batch_sizes=(1,))

    def check_for_segmenter(self) -> None:
        """Refuse what a segmenter's bundle cannot be.

        Raises:
            UserError: names it.
        """
        self._refuse_int8("segmentation")
        if self.gives == "probabilities":
            raise UserError(
                "output: found probabilities with a segmentation model, expected logits: they are "
                "resized before the classes are told"
            )

    def _refuse_int8(self, task: str) -> None:
        if self.precision == "int8":
            raise UserError(
                f"precision: found int8 with a {task} model, expected fp32 or fp16: what INT8 "
                "costs is proven of classifiers alone"
            )


def missing_for_onnx() -> str:
    """Name a package without which an ONNX graph cannot be written, or not proven; "" for none."""
    return next((name for name in ("onnx", "onnxruntime") if find_spec(name) is None), "")
