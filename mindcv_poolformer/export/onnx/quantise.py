"""INT8 for an ONNX graph, by ONNX Runtime's own tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

CHUNK = 32  # images in one run, of a graph that takes any number
# They are nearly all of the arithmetic. With all else that the tools can make INT8, the demo's
# logits were 14 times as far off, and the file was hardly smaller.
OPERATORS = ("Conv",)


def quantise(source: Path, target: Path, images: Sequence[np.ndarray]) -> None:
    """Write a graph whose convolutions are INT8, between QuantizeLinear and DequantizeLinear.

    Weights are INT8 by output channel, activations UINT8 in the range they have on the images.

    Args:
        source: a graph in fp32 with one input.
        target: the file to be.
        images: arrays of them, as the graph takes them; one for each image size.
    """
    # Reading bundles does without the package onnx, which these want.
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    class Calibration(CalibrationDataReader):
        def __init__(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
            self.batches = batches

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    model = onnx.load(source)
    add_pre_process_metadata(model)  # or it is advised; here it changed nothing
    end = model.graph.input[0]
    fixed = end.type.tensor_type.shape.dim[0].dim_value  # 0 where any number goes
    quantize_static(
        model,
        target,
        Calibration({end.name: batch} for batch in _batches(images, fixed)),
        op_types_to_quantize=OPERATORS,
        per_channel=True,
        reduce_range=True,  # of the weights, to 7 bits: CPUs without VNNI saturate with 8
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _batches(images: Sequence[np.ndarray], fixed: int) -> Iterator[np.ndarray]:
    """In runs of a fixed number, the last one filled up with the same again, or of any."""
    for array in images:
        for start in range(0, len(array), fixed or CHUNK):
            batch = array[start : start + (fixed or CHUNK)]
            yield np.resize(batch, (fixed or len(batch), *batch.shape[1:]))
