"""What runs a bundle's graphs: MindSpore, or on a CPU ONNX Runtime, which wants no MindSpore."""

from __future__ import annotations

from importlib import import_module
from typing import Literal

from ..runtime import interrupts
from ..runtime.arrival import has_arrived
from ..runtime.cpu import has_ascend
from ..runtime.environment import is_installed
from ..runtime.errors import UserError
from .description import ENDINGS, Description

Taken = Literal["onnx", "mindspore"]
Runtime = Literal["auto", "onnx", "mindspore"]
RUNTIMES: tuple[Runtime, ...] = ("auto", "onnx", "mindspore")
PACKAGES = {"onnx": "onnxruntime", "mindspore": "mindspore"}
INSTALL = {"onnx": "pip install onnxruntime", "mindspore": "pip install -r requirements.txt"}
NAMES = {"onnx": "ONNX Runtime", "mindspore": "MindSpore"}


def chosen(description: Description, runtime: Runtime, device_target: str | None = None) -> Taken:
    """Settle what "auto" means: ONNX Runtime where it can run the bundle, and MindSpore elsewhere.

    On a CPU it is quicker and wants a third of the memory.

    Args:
        description: of the bundle.
        runtime: that is asked for.
        device_target: CPU or Ascend; None for the device that MindSpore is set to, or is to be
            once it is imported. Beside that one ONNX Runtime runs on the CPU, if asked for.

    Raises:
        UserError: it cannot run the bundle here, or for "auto" none can; there is no such runtime.
    """
    if runtime not in RUNTIMES:
        raise UserError(f"runtime: found {runtime!r}, expected one of {', '.join(RUNTIMES)}")
    device = device_target or (_device() if runtime == "auto" else "CPU")
    asked: tuple[Taken, ...] = ("onnx", "mindspore") if runtime == "auto" else (runtime,)
    reasons: list[str] = []
    for one in asked:
        if not (reason := _obstacle(description, one, device)):
            return one
        reasons.append(f"{one} with {reason}")
    raise UserError(f"runtime: found {'; and '.join(reasons)}")


def set_up(runtime: Taken, device_target: Literal["CPU", "Ascend"]) -> None:
    """Set MindSpore to a device, where it is what runs.

    Raises:
        UserError: there is no such device here.
    """
    if runtime == "mindspore":
        with interrupts.importing():
            from ..runtime.device import set_up_device
            from ..runtime.launch import World
        set_up_device(device_target, 0, None, World())


def version(runtime: Taken) -> str:
    """Give the version of a runtime that is installed."""
    return import_module(PACKAGES[runtime]).__version__


def told(runtime: Taken) -> str:
    """Name a runtime and its version, such as ONNX Runtime 1.31.1."""
    return f"{NAMES[runtime]} {version(runtime)}"


_WRITTEN = "export.py --file_format ONNX writes it, of the deploy form and not encrypted"


def _obstacle(description: Description, runtime: str, device: str) -> str:
    """Why a runtime cannot run a bundle: what is found, and what is expected; empty if it can."""
    package, ending = PACKAGES[runtime], ENDINGS[runtime]
    if not any(graph.file.endswith(ending) for graph in description.graphs):
        reason = f"no model{ending} in {description.folder}, expected one"
        return reason + (f": {_WRITTEN}" if runtime == "onnx" else "")
    if runtime == "onnx" and device != "CPU":
        return f"device_target {device}, expected CPU"
    if not is_installed(package):
        return f"no package {package}, expected it: {INSTALL[runtime]}"
    return ""


def _device() -> str:
    if not has_arrived("mindspore"):
        return "Ascend" if has_ascend() and is_installed("mindspore") else "CPU"
    import mindspore as ms

    return ms.get_context("device_target")
