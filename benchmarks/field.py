"""Who takes part: the contenders by name, and the weights that they share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindcv_poolformer.runtime.errors import UserError

from .rounds import ROOT, Contender, Contest, say

TOLERANCE = 1e-4  # of logits and losses, in fp32
# Whose outputs are compared with whose.
REFERENCES = {
    "onnx": "hf",
    "deploy": "hf",
    "evaluation": "hf",
    "hf_compiled": "hf",
    "mindcv": "hf",
    "training": "hf_training",
    "mindcv_training": "hf_training",
}
SLOW = 3  # stock MindCV takes part in one of so many rounds


def contenders(
    model: str, folder: Path, photographs: Path, caches: Path, workers: int
) -> dict[str, Contender]:
    """Give all contenders by name.

    Args:
        model: name of the variant.
        folder: the weights are in its subfolder of the model's name.
        photographs: folder with train/<class>/<image>.
        caches: folder for what torch.compile and MindSpore keep.
        workers: data workers of each input pipeline.
    """

    def contender(label: str, *command: str, **settings: object) -> Contender:
        module, job = command
        words = (f"{__package__}.contenders.{module}", job, "--model", model)
        words += ("--weights", str(folder / model), "--photographs", str(photographs))
        return Contender(label, (*words, "--workers", str(workers)), **settings)

    inductor = {"TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor")}
    kernels = {"MS_COMPILER_CACHE_PATH": str(caches / "kernels")}
    return {
        "deploy": contender("deploy form", "ours", "deploy"),
        "deploy_unfused": contender(
            "deploy form, not fused",
            "ours",
            "deploy",
            environment={"MINDCV_POOLFORMER_GRAPH_KERNELS": "0"},
        ),
        "evaluation": contender("plain forward", "ours", "evaluation"),
        "training": contender("training step", "ours", "training"),
        "training_cold": contender(
            "training step, kernels compiled anew", "ours", "training", environment=kernels
        ),
        "training_warm": contender(
            "training step, kernels found again", "ours", "training", environment=kernels
        ),
        "pipeline": contender("input pipeline", "ours", "pipeline"),
        "onnx": contender("ONNX Runtime", "onnx_runtime", "inference"),
        "mindir": contender("MINDIR", "ours", "mindir"),
        "hf": contender("Hugging Face eager", "hugging_face", "inference"),
        "hf_compiled": contender("torch.compile", "hugging_face", "compiled", environment=inductor),
        "hf_training": contender("Hugging Face eager, training", "hugging_face", "training"),
        "timm": contender("timm eager", "timm_eager", "inference"),
        "mindcv": contender("stock MindCV", "stock_mindcv", "inference", every=SLOW),
        "mindcv_training": contender(
            "stock MindCV, training", "stock_mindcv", "training", every=SLOW
        ),
        "mindcv_pipeline": contender("MindCV's loader", "stock_mindcv", "pipeline"),
        "gemm_numpy": contender("NumPy", "matrices", "numpy"),
        "gemm_torch": contender("PyTorch", "matrices", "torch"),
    }


def write_weights(model: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Write folder/model: Hugging Face's files of a seeded network, and model.ckpt of the same.

    Raises:
        UserError: it failed.
    """
    say(f"drawing weights of {model}")
    module = f"{__package__}.contenders.weights"
    run_to_end(environment, "-m", module, model, str(folder / model))


def write_bundle(
    model: str, folder: Path, photographs: Path, environment: Mapping[str, str]
) -> None:
    """Write folder/model/bundle, of the weights there, unless it is there.

    Raises:
        UserError: it failed.
    """
    bundle = folder / model / "bundle"
    if bundle.exists():
        return
    say(f"exporting {model}")
    flags = {
        "config": f"configs/{model}_ascend.yaml",
        "device_target": "CPU",
        "distribute": "false",
        "ckpt_path": str(folder / model / "model.ckpt"),
        "sample_images": str(photographs),
        "export_dir": str(bundle),
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", value)]
    run_to_end(environment, "export.py", *words)


def run_to_end(environment: Mapping[str, str], *words: str) -> None:
    """Run Python with these words.

    Raises:
        UserError: it ends with another exit code than 0.
    """
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise UserError(f"{words[1]}: found exit code {done.returncode}, expected 0: {said}")


def check_agreement(
    contest: Contest,
    references: Mapping[str, str] = REFERENCES,
    tolerance: float = TOLERANCE,
) -> None:
    """Compare what the contenders gave; who differs from its reference leaves the contest."""
    for name, reference in references.items():
        found, expected = contest.outputs(name), contest.outputs(reference)
        if found is None or expected is None:
            continue
        calls = min(len(found), len(expected))
        difference = float(np.abs(found[:calls] - expected[:calls]).max())
        if not difference <= tolerance:  # also when it is NaN
            contest.drop(
                name,
                f"{contest.contenders[name].label}: found outputs up to {difference:.2g} off those "
                f"of {contest.contenders[reference].label}, expected at most {tolerance:g}",
            )
