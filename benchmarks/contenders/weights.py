"""Write the weights that every contender takes: a seeded Hugging Face PoolFormer, or a MetaFormer.

python -m benchmarks.contenders.weights MODEL DIR

DIR becomes a Hugging Face folder, with model.ckpt for the other contenders in it. Layer scales and
norms are drawn anew: as initialised, a layer scale of 1e-5 would hide from a comparison of logits
whatever the blocks compute. Of a MetaFormer, which transformers does not have, DIR holds model.ckpt
and timm.safetensors, as this project initialises it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindcv
import mindspore as ms
import torch
from safetensors.numpy import save_file
from transformers import PoolFormerConfig, PoolFormerForImageClassification

from benchmarks.contenders.serve import NUM_CLASSES
from mindcv_poolformer.models import Variant, find_variant
from mindcv_poolformer.runtime.checkpoint_file import save_checkpoint
from mindcv_poolformer.weights import read_weights, write_weights
from mindcv_poolformer.weights.names import TIMM_METAFORMER


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()

    variant = find_variant(given.model)
    if variant.family:
        draw_metaformer(given.model, given.folder)
    else:
        draw_poolformer(variant, given.folder)


def draw_metaformer(name: str, folder: Path) -> None:
    """Write model.ckpt and timm.safetensors."""
    folder.mkdir()
    ms.set_seed(0)
    network = mindcv.create_model(name, num_classes=NUM_CLASSES)
    weights = {parameter.name: parameter for parameter in network.get_parameters()}
    save_checkpoint(folder / "model.ckpt", weights, {"model": name, "num_classes": NUM_CLASSES})
    named = {TIMM_METAFORMER.theirs(name): weight.asnumpy() for name, weight in weights.items()}
    save_file(named, folder / "timm.safetensors")


def draw_poolformer(variant: Variant, folder: Path) -> None:
    """Write a Hugging Face folder, with model.ckpt in it."""
    torch.manual_seed(0)
    config = PoolFormerConfig(
        depths=list(variant.depths), hidden_sizes=list(variant.dims), num_labels=NUM_CLASSES
    )
    model = PoolFormerForImageClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_scale" in name:
                parameter.normal_(0.3, 0.05)
            elif "norm" in name and name.endswith("weight"):
                parameter.normal_(1.0, 0.1)
            elif parameter.ndim == 1:
                parameter.normal_(0.0, 0.1)
    model.save_pretrained(folder)
    write_weights(read_weights(folder), folder / "model.ckpt", "ckpt")


if __name__ == "__main__":
    main()
