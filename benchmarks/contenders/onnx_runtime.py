"""A bundle's model.onnx in ONNX Runtime, as predict.py and the server run it, without MindSpore."""

from __future__ import annotations

import argparse

from benchmarks.contenders.serve import Call, Workload, images, serve
from mindcv_poolformer.export.bundle import load_bundle


def inference(given: argparse.Namespace) -> Workload:
    """The graph of a bundle of export.py, which lies beside the weights."""
    bundle = load_bundle(given.weights / "bundle", runtime="onnx")

    def prepare(batch: int, size: int) -> Call:
        pixels = images(batch, size)
        return lambda: bundle.network(pixels)

    return Workload(prepare)


if __name__ == "__main__":
    serve({"inference": inference})
