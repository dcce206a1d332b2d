"""Write the weights that every contender takes: a seeded Hugging Face PoolFormer.

python -m benchmarks.contenders.weights MODEL DIR

DIR becomes a Hugging Face folder, with model.ckpt for the other contenders in it. Layer scales and
norms are drawn anew: as initialised, a layer scale of 1e-5 would hide from a comparison of logits
whatever the blocks compute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import PoolFormerConfig, PoolFormerForImageClassification

from benchmarks.contenders.serve import NUM_CLASSES
from mindcv_poolformer.models import find_variant
from mindcv_poolformer.weights import read_weights, write_weights


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()

    variant = find_variant(given.model)
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
    model.save_pretrained(given.folder)
    write_weights(read_weights(given.folder), given.folder / "model.ckpt", "ckpt")


if __name__ == "__main__":
    main()
