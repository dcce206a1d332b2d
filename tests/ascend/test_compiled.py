"""The graphs that Ascend would get, compiled by MindSpore's front end on the CPU.

Nothing here has run on an NPU: the front end makes the graph for a device, and a device's kernels
come after it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PRIMITIVES = yaml.safe_load(Path(__file__).with_name("primitives.yaml").read_text())
A2, FIRST_910 = "Ascend910B2", "Ascend910A"

pytestmark = pytest.mark.long


Compile = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def compiled() -> Iterator[Compile]:
    """``compiled(model, what, device, *keys)`` gives what compile_for.py tells of such a graph.

    Of one with a block in the first and in the last stage, unless it is to be ``whole``.
    """
    words = [sys.executable, str(ROOT / "tests/ascend/compile_for.py")]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            words, cwd=ROOT, text=True, bufsize=1, stdin=-1, stdout=-1, stderr=said
        ) as process,
    ):

        @cache
        def compile_graph(*words: str, whole: bool = False) -> dict[str, Any]:
            depth = () if whole else ("shallow",)
            print(*words, *depth, file=process.stdin, flush=True)
            answer = process.stdout.readline()
            said.seek(0)
            assert answer, said.read()[-3000:]
            return json.loads(answer)

        yield compile_graph
        process.stdin.close()


GRAPHS = [
    ("poolformer_s12", "train", A2),
    ("poolformer_s12", "train", FIRST_910),
    ("poolformer_s12", "train2", A2),
    ("poolformer_s12", "validate", A2),
    ("poolformer_s12", "export", A2),
    ("caformer_s18", "train", A2),
    ("caformer_s18", "validate", A2),
    ("caformer_s18", "validate", FIRST_910),
    ("caformer_s18", "export", A2),
    ("randformer_s12", "train", A2),
    ("metaformer_ppaa_s12_224", "train", A2),
    ("metaformer_ppff_s12_224", "validate", FIRST_910),
    ("semantic_fpn_poolformer_s12_ade20k", "train", A2),
    ("semantic_fpn_poolformer_s12_ade20k", "train2", A2),
    ("semantic_fpn_poolformer_s12_ade20k", "export", FIRST_910),
    ("retinanet_poolformer_s12_coco", "train", A2),
    ("retinanet_poolformer_s12_coco", "validate", A2),
    ("mask_rcnn_poolformer_s12_coco", "train", A2),
    ("mask_rcnn_poolformer_s12_coco", "validate", A2),
]


@pytest.mark.parametrize(("model", "what", "device"), GRAPHS)
def test_every_operator_is_known_to_the_device(
    compiled: Compile, model: str, what: str, device: str
) -> None:
    graph = compiled(model, what, device)
    assert graph["dynamic"] == []
    column = "910" if device == FIRST_910 else "A2"
    unknown = []
    for (primitive, *dtypes), _ in graph["primitives"]:
        entry = PRIMITIVES.get(primitive, {})
        known = entry.get("dtypes", [])
        if " ".join(dtypes) not in known or not entry.get(column):
            unknown.append(f"{primitive} {' '.join(dtypes)}")
    assert unknown == []


@pytest.mark.parametrize(
    ("whole", "operators", "gigabytes", "kept"),
    [(False, 330, 10, 1), pytest.param(True, 1200, 40, 4, marks=pytest.mark.rare)],
)
def test_a_step_moves_what_its_maps_need(
    compiled: Compile, whole: bool, operators: int, gigabytes: int, kept: int
) -> None:
    graph = compiled("poolformer_s12", "train", A2, whole=whole)
    assert graph["operators"] <= operators
    assert graph["bytes"] <= gigabytes * 1e9
    assert graph["kept"] <= kept * 2**30


def test_o3_has_no_wide_map_in_float32(compiled: Compile) -> None:
    graph = compiled("poolformer_s12", "train", A2)
    widths = {(4 * channels, 224 // stride) for channels, stride in [(64, 4), (512, 32)]}
    wide = [
        (dtype, *shape)
        for (dtype, *shape), _ in graph["maps"]
        if (shape[1], shape[2]) in widths and shape[0] == 128
    ]
    assert {tuple(shape[1:3]) for _, *shape in wide} == widths
    assert {dtype for dtype, *_ in wide} == {"Float16"}


@pytest.mark.parametrize(
    ("what", "device", "flash", "there"),
    [
        ("validate", A2, None, True),
        ("validate", A2, "false", False),
        ("validate", FIRST_910, None, False),
        ("export", A2, None, False),
    ],
)
def test_attention_is_one_operator_where_cann_documents_it(
    compiled: Compile, what: str, device: str, flash: str | None, there: bool
) -> None:
    keys = () if flash is None else (f"flash_attention={flash}",)
    graph = compiled("caformer_s18", what, device, *keys)
    found = {primitive for (primitive, *_), _ in graph["primitives"]}
    assert ("FlashAttentionScore" in found) is there


def test_an_exported_graph_has_no_operator_of_one_device_alone(compiled: Compile) -> None:
    graph = compiled("poolformer_s12", "export", A2)
    found = {name[0] for name, _ in graph["primitives"]}
    assert "GeluExt" not in found
    assert "Erf" in found


def test_recomputing_keeps_less_for_the_backward_pass(compiled: Compile) -> None:
    plain = compiled("poolformer_s12", "train", A2)
    recomputed = compiled("poolformer_s12", "train", A2, "recompute=true")
    assert recomputed["kept"] < plain["kept"] / 2
    assert recomputed["operators"] > plain["operators"]
