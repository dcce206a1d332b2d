"""timm's MetaFormers on PyTorch."""

from __future__ import annotations

import argparse

import torch
from safetensors.torch import load_file

from benchmarks.contenders.serve import Call, Unavailable, Workload, images, serve


def inference(given: argparse.Namespace) -> Workload:
    """Forward in eager mode, as timm.create_model gives the model."""
    model = load(given).eval()

    def prepare(batch: int, size: int) -> Call:
        pixels = torch.from_numpy(images(batch, size))

        def call() -> object:
            with torch.inference_mode():
                return model(pixels).numpy()

        return call

    return Workload(prepare)


def load(given: argparse.Namespace) -> torch.nn.Module:
    """The model with the weights of all; a linear layer is a 1x1 convolution in some of timm's."""
    try:
        import timm
    except ImportError as error:
        raise Unavailable(f"timm: found no package that can be imported ({error})") from None
    if given.model not in timm.list_models():
        raise Unavailable(f"timm: found no {given.model} in timm {timm.__version__}")
    model = timm.create_model(given.model)
    drawn, weights = load_file(given.weights / "timm.safetensors"), model.state_dict()
    model.load_state_dict(
        {name: value.reshape(weights[name].shape) for name, value in drawn.items()}
    )
    return model


if __name__ == "__main__":
    serve({"inference": inference})
