"""Importing the package alone imports neither MindSpore nor MindCV; and misses nothing by that."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindcv_poolformer.runtime.arrival import after_import
from mindcv_poolformer.runtime.cpu import FUSION_SWITCH, SWITCH

ROOT = Path(__file__).parents[2]
SWITCHES = (SWITCH, FUSION_SWITCH, "MS_SIMULATION_LEVEL")


def run(code: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    environment = kept | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_models_come_with_mindcv_and_kernels_with_mindspore() -> None:
    code = """
import sys
import mindcv_poolformer
print([name for name in ("mindspore", "mindcv", "torch") if name in sys.modules])
import mindcv
print("poolformer_m48" in mindcv.list_models(), "caformer_s18" in mindcv.list_models())
import mindspore
print(mindspore.get_context("enable_graph_kernel"), mindcv_poolformer.weights.__name__)
"""
    assert run(code) == ["[]", "True True", "True mindcv_poolformer.weights"]


def test_a_picture_is_resized_while_another_thread_imports_mindspore() -> None:
    code = """
import threading
import mindcv_poolformer
import numpy as np
from mindcv_poolformer.data.fitting import resize_image
thread = threading.Thread(target=__import__, args=("mindspore",))
thread.start()
picture, sums = np.arange(3072, dtype=np.uint8).reshape(32, 32, 3), set()
while thread.is_alive():
    sums.add(int(resize_image(picture, (48, 40)).sum()))
thread.join()
import mindspore
sums.add(int(resize_image(picture, (48, 40)).sum()))
print(len(sums), mindspore.get_context("enable_graph_kernel"))
"""
    assert run(code) == ["1 True"]


@pytest.mark.parametrize("first", ["mindcv_poolformer.models.dense", "mindcv_poolformer.weights"])
def test_rooms_may_come_first(first: str) -> None:
    code = f"""
import {first}
from mindcv_poolformer.models import registry
import mindcv
print("poolformer_m48" in mindcv.list_models(), registry.load_pretrained is not None)
"""
    assert run(code) == ["True True"]


def test_a_module_that_has_come_is_not_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "awaited_module.py").write_text("value = 7\n")
    before = list(sys.meta_path)
    after_import("awaited_module", lambda: calls.append("came"))
    assert importlib.util.find_spec("awaited_module") and calls == []
    module = importlib.import_module("awaited_module")
    assert (module.value, calls) == (7, ["came"])
    assert sys.meta_path == before
    after_import("awaited_module", lambda: calls.append("was there"))
    assert calls == ["came", "was there"]
    monkeypatch.delitem(sys.modules, "awaited_module")
