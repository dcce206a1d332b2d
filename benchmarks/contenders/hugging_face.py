"""Hugging Face's PoolFormer on PyTorch."""

from __future__ import annotations

import argparse
import os
import shutil

import torch
from transformers import PoolFormerForImageClassification

from benchmarks.contenders.serve import (
    LEARNING_RATE,
    WEIGHT_DECAY,
    Call,
    Unavailable,
    Workload,
    images,
    serve,
    targets,
)


def inference(given: argparse.Namespace) -> Workload:
    """Forward in eager mode, as from_pretrained gives the model."""
    return _forward(load(given).eval())


def compiled(given: argparse.Namespace) -> Workload:
    """Forward through torch.compile in its default mode."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise Unavailable(f"torch.compile: found no {compiler}, expected a C++ compiler")
    return _forward(torch.compile(load(given).eval()))


def _forward(model: torch.nn.Module) -> Workload:
    def prepare(batch: int, size: int) -> Call:
        pixels = torch.from_numpy(images(batch, size))

        def call() -> object:
            with torch.inference_mode():
                return model(pixels).logits.numpy()

        return call

    return Workload(prepare)


def training(given: argparse.Namespace) -> Workload:
    """Forward, loss, backward, and PyTorch's AdamW."""
    model = load(given).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
    )

    def prepare(batch: int, size: int) -> Call:
        pixels, soft = torch.from_numpy(images(batch, size)), torch.from_numpy(targets(batch))

        def call() -> float:
            loss = torch.nn.functional.cross_entropy(model(pixels).logits, soft)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return call

    return Workload(prepare)


def load(given: argparse.Namespace) -> torch.nn.Module:
    return PoolFormerForImageClassification.from_pretrained(given.weights)


if __name__ == "__main__":
    serve({"inference": inference, "compiled": compiled, "training": training})
