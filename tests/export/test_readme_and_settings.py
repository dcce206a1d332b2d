"""What an operations team finds in a bundle: its README's commands run, and MLServer reads it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from mindcv_poolformer.export.readme import write_readme

ROOT = Path(__file__).parents[2]
CLASSES = 10


def blocks(folder: Path, language: str) -> list[str]:
    """The code of a language in a bundle's README."""
    text = (folder / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_settings_are_the_graphs(folder: Path) -> None:
    assert json.loads((folder / "model-settings.json").read_text()) == {
        "name": "poolformer_tiny",
        "implementation": "mindcv_poolformer.serving.runtime.PoolFormerRuntime",
        "parameters": {"uri": ".", "version": "1"},
        "max_batch_size": 16,
        "max_batch_time": 0.01,
        "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 32, 32]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}],
    }


@pytest.mark.skipif(find_spec("mlserver") is None, reason="needs the extra serving")
def test_mlserver_takes_the_settings(folder: Path) -> None:
    """In a process of its own: MLServer's messages and tritonclient's have the same names."""
    script = (
        "import sys; from mlserver.settings import ModelSettings\n"
        "found = ModelSettings.parse_file(sys.argv[1])\n"
        "print(found.name, *(tensor.shape for tensor in found.inputs))"
    )
    words = [sys.executable, "-c", script, str(folder / "model-settings.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "poolformer_tiny [-1, 3, 32, 32]\n"


@pytest.mark.long
def test_the_readmes_commands_run(folder: Path, pictures: list[Path], tmp_path: Path) -> None:
    (shell,) = blocks(folder, "shell")
    served = [line for line in shell.splitlines() if "mindcv_poolformer.serving" in line]
    assert len(served) == 1  # tests/serving runs it
    lines = [line for line in shell.splitlines() if line.startswith("python predict.py")]
    assert len(lines) == 2 and "python validate.py --bundle" in shell
    for index, line in enumerate(lines):
        line = line.replace("photo.jpg folder/", str(pictures[0]))
        words = ["bash", "-c", line.replace("python ", f"{sys.executable} ", 1)]
        environment = {**os.environ, "BUNDLE": str(folder)}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("self test at 32 px" if index == 0 else str(pictures[0]))


@pytest.mark.parametrize("size", [None, 3, 6])
def test_the_readmes_onnx_program_runs(onnx_folder: Path, tmp_path: Path, size: int | None) -> None:
    """Of any batch size, and of one that is not that of the golden images."""
    shutil.copytree(onnx_folder, tmp_path, dirs_exist_ok=True)
    if size:
        graph = onnx.load(tmp_path / "model.onnx")
        for end in (*graph.graph.input, *graph.graph.output):
            end.type.tensor_type.shape.dim[0].dim_value = size
        (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
        description = json.loads((onnx_folder / "model.json").read_text())
        description["graphs"]["model.onnx"]["batch_size"] = size
        (tmp_path / "README.md").unlink()
        write_readme(tmp_path, description)
    (program,) = blocks(tmp_path, "python")
    assert "mindspore" not in program
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) <= 1e-4


def test_a_readme_without_onnx_does_not_speak_of_it(folder: Path) -> None:
    assert blocks(folder, "python") == []
    assert "ONNX" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("onnx", [True, False])
def test_of_several_sizes_the_readme_tells_what_each_graph_takes(
    onnx_folder: Path, tmp_path: Path, onnx: bool
) -> None:
    description = json.loads((onnx_folder / "model.json").read_text())
    description["graphs"] = {
        f"model_{size}px_b{batch}.mindir": {"batch_size": batch, "image_size": size}
        for size in (32, 64)
        for batch in (1, 8)
    }
    if onnx:
        description["graphs"]["model.onnx"] = {"batch_size": None, "image_size": None}
    else:
        del description["files"]["model.onnx"]
    write_readme(tmp_path, description)
    itself = "; `model.onnx` itself takes any" if onnx else ""
    assert (
        f"Batch sizes: 1, 8{itself}. Images of 32 px, or with `--image_size` 64, each a graph of "
        f"its own{itself}.\n"
    ) in (tmp_path / "README.md").read_text()
