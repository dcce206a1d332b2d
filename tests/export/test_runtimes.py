"""What runs a bundle where several could: the choice, and what is said where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindcv_poolformer.export import runtimes
from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.description import read_description
from mindcv_poolformer.export.runtimes import chosen
from mindcv_poolformer.runtime.errors import UserError


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Packages that are not installed, as far as the choice can see."""
    missing: set[str] = set()
    installed = runtimes.is_installed
    monkeypatch.setattr(
        runtimes, "is_installed", lambda name: name not in missing and installed(name)
    )
    return missing


def test_a_cpu_runs_the_onnx_graph_where_there_is_one(onnx_folder: Path, folder: Path) -> None:
    both, mindir = read_description(onnx_folder), read_description(folder)
    assert chosen(both, "auto") == "onnx"
    assert chosen(both, "mindspore") == "mindspore"
    assert chosen(mindir, "auto") == "mindspore"
    assert (load_bundle(onnx_folder).runtime, load_bundle(folder).runtime) == ("onnx", "mindspore")


def test_ascend_runs_mindspore(onnx_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = read_description(onnx_folder)
    assert chosen(both, "auto", "Ascend") == "mindspore"
    with monkeypatch.context() as patch:
        patch.setattr(runtimes, "_device", lambda: "Ascend")
        assert chosen(both, "auto") == "mindspore"
        assert chosen(both, "onnx") == "onnx"  # on the CPU beside it: so export proves the graph
    with pytest.raises(UserError, match="^runtime: found onnx with device_target Ascend, expected"):
        chosen(both, "onnx", "Ascend")


def test_a_runtime_that_there_is_none_of(onnx_folder: Path) -> None:
    said = "runtime: found 'tensorrt', expected one of auto, onnx, mindspore"
    with pytest.raises(UserError, match=said):
        load_bundle(onnx_folder, runtime="tensorrt")


def test_what_is_not_installed_is_not_taken(
    onnx_folder: Path, folder: Path, without: set[str]
) -> None:
    both, mindir = read_description(onnx_folder), read_description(folder)
    without.add("onnxruntime")
    assert chosen(both, "auto") == "mindspore"
    with pytest.raises(UserError, match="found onnx with no package onnxruntime, expected it: pip"):
        chosen(both, "onnx")
    without.add("mindspore")
    with pytest.raises(UserError) as caught:
        chosen(mindir, "auto")
    assert str(caught.value) == (
        f"runtime: found onnx with no model.onnx in {folder}, expected one: export.py "
        "--file_format ONNX writes it, of the deploy form and not encrypted; and mindspore with no "
        "package mindspore, expected it: pip install -r requirements.txt"
    )


def test_onnx_runtime_tells_nobody_and_leaves_no_file(tmp_path: Path) -> None:
    import_it = [sys.executable, "-c", "import mindcv_poolformer.export.onnx.run"]
    usual = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(import_it, env={**usual, "TMPDIR": str(tmp_path)}, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
