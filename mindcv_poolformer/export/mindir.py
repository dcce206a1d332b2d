"""Writing a bundle: the network as a MINDIR, its description, and the proof that both are right."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..data.preprocess import EvalTransform
from ..models.deploy import to_deploy
from ..runtime.amp import mixed_precision
from ..runtime.errors import UserError
from ..runtime.files import replaced_folder
from .bundle import DESCRIPTION, FORMAT, MINDIR, load_bundle, sha256

AIR = "model.air"
# The largest difference of a logit that passes: absolute for fp32, where the deploy form rounds
# otherwise; for fp16 a part of the range of the checkpoint's logits. fp16 measures 0.002 of the
# range on poolformer_s12 and 0.005 on poolformer_m48, layer scales at 0.3.
FP32_TOLERANCE = 1e-4
FP16_TOLERANCE = 2e-2


class UnprovenError(UserError):
    """A bundle that does not give the checkpoint's logits."""


class _Graph(nn.Cell):
    """Names the graph's input, and keeps training's further inputs out of it."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images: Tensor) -> Tensor:
        return self.network(images)


@dataclass(frozen=True, eq=False)
class Trained:
    """What is to be exported.

    Args:
        network: normalised images (N, C, H, W) to logits, in fp32.
        model: name of the model.
        checkpoint: the file that the weights came from.
        transform: from an image to the network's input.
        classes: name of each output.
    """

    network: nn.Cell
    model: str
    checkpoint: Path
    transform: EvalTransform
    classes: tuple[str, ...]


def write_bundle(
    trained: Trained,
    target: str | Path,
    samples: np.ndarray,
    *,
    precision: Literal["fp32", "fp16"] = "fp32",
    deploy: bool = True,
    batch_size: int | None = None,
    air: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the folder ``target``, which appears once it is proven, or not at all.

    The proof: read again, the bundle gives the logits of ``trained.network`` on ``samples``. An
    older bundle at ``target`` stays until then.

    Args:
        trained: fp16 without ``deploy`` converts its network in place.
        target: the bundle to be.
        samples: (N, C, H, W) float32, real images through ``trained.transform``.
        precision: of weights and arithmetic; input and logits are float32 in both.
        deploy: write the deploy form, see :func:`to_deploy`.
        batch_size: the only one the bundle takes, None for any.
        air: write model.air too; only an Ascend device can, and it is not proven.
        overwrite: replace a bundle at ``target``.

    Returns:
        the content of model.json.

    Raises:
        UserError: ``target`` exists and is not to be replaced.
        UnprovenError: the proof failed.
    """
    target = Path(target).resolve()
    _check_target(target, overwrite)
    network = trained.network.set_train(False)
    reference = network(Tensor(samples)).asnumpy()
    if deploy:
        network = to_deploy(network)
    if precision == "fp16":
        network = _in_float16(network)
    shape = [batch_size, *samples.shape[1:]]
    names = [MINDIR, AIR] if air else [MINDIR]
    with replaced_folder(target) as staging:
        _write_graphs(network, shape, staging, names)
        files = [staging / name for name in names]
        description = _describe(trained, precision, deploy, shape, files)
        _write_description(staging, description)
        description["verification"] = _prove(staging, samples, reference)
        _write_description(staging, description)
    return description


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise UserError(f"export_dir: {target} exists, expected a new folder, or --overwrite")
    ours = {DESCRIPTION, MINDIR, AIR}
    if not target.is_dir() or not {entry.name for entry in target.iterdir()} <= ours:
        raise UserError(
            f"export_dir: found {target} to be or to hold something else than a bundle, "
            "expected a bundle to overwrite"
        )


def _in_float16(network: nn.Cell) -> nn.Cell:
    """Convert ``network``; mixed precision alone would store float32 weights."""
    in_float16 = mixed_precision(network, "O3")
    for parameter in network.get_parameters():
        parameter.set_dtype(ms.float16)
    return in_float16


def _write_graphs(
    network: nn.Cell, shape: list[int | None], folder: Path, names: list[str]
) -> None:
    graph = _Graph(network).set_train(False)
    images = Tensor(shape=shape, dtype=ms.float32)
    with _working_in(folder):
        ms.export(graph, images, file_name=MINDIR, file_format="MINDIR", custom_func=_name_ends)
        if AIR in names:
            ms.export(graph, images, file_name=AIR, file_format="AIR")


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Change the working directory: ms.export refuses paths with a blank or an accent in them."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _describe(
    trained: Trained, precision: str, deploy: bool, shape: list[int | None], files: list[Path]
) -> dict[str, Any]:
    """The content of model.json before the proof."""
    batch_size, classes = shape[0], list(trained.classes)
    return {
        "format": FORMAT,
        "model": trained.model,
        "parameters": sum(parameter.size for parameter in trained.network.get_parameters()),
        "form": "deploy" if deploy else "plain",
        "precision": precision,
        "input": {"name": "images", "shape": shape, "layout": "NCHW", "dtype": "float32"},
        "output": {"name": "logits", "shape": [batch_size, len(classes)], "dtype": "float32"},
        "preprocessing": trained.transform.to_dict(),
        "classes": classes,
        "checkpoint": {"name": trained.checkpoint.name, "sha256": sha256(trained.checkpoint)},
        "files": {
            file.name: {"sha256": sha256(file), "size": file.stat().st_size} for file in files
        },
        "mindspore": ms.__version__,
        "verification": None,
    }


def _name_ends(model: Any) -> None:
    """Call the graph's input "images" and its output "logits"; MindSpore puts the pid in both.

    Args:
        model: MindSpore's protocol buffer of the MINDIR, changed in place.
    """
    graph = model.graph
    names = {graph.input[0].name: "images", graph.output[0].name: "logits"}
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(end, end) for end in ends]
    graph.input[0].name, graph.output[0].name = "images", "logits"


def _prove(folder: Path, samples: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Compare the logits of the bundle in ``folder`` on ``samples`` with ``reference``."""
    bundle = load_bundle(folder)
    logits = bundle.logits(samples)
    difference = float(np.abs(logits - reference).max())
    tolerance = FP32_TOLERANCE
    if bundle.precision == "fp16":
        tolerance = FP16_TOLERANCE * float(np.ptp(reference))
    if not difference <= tolerance:  # also when it is NaN
        raise UnprovenError(
            f"export: found logits of the MINDIR up to {difference:.3g} off the checkpoint's on "
            f"{len(samples)} images, expected at most {tolerance:.3g}; nothing is kept"
        )
    return {
        "images": len(samples),
        "max_abs_logit_difference": difference,
        "tolerance": tolerance,
        "top1_agreement": float((logits.argmax(1) == reference.argmax(1)).mean()),
    }


def _write_description(folder: Path, description: dict[str, Any]) -> None:
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
