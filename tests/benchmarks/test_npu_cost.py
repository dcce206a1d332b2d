from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import npu_cost
from benchmarks.ascend import FACTS, MINDCV
from benchmarks.macs import macs, matrix_macs, parameters
from benchmarks.operators import Operator, deploy_parameters, operators
from mindcv_poolformer.models import VARIANTS, PoolFormer
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.runtime.errors import UserError

# Table 1 of arXiv 2111.11418 with fvcore's MACs at 224 px.
SPEC = {
    "poolformer_s12": (1.82, 11_915_176),
    "poolformer_s24": (3.41, 21_388_968),
    "poolformer_s36": (5.00, 30_862_760),
    "poolformer_m36": (8.80, 56_172_520),
    "poolformer_m48": (11.59, 73_473_448),
}
TINY = (1,), (2,), 7  # depths, dims, image size: one block on a 2 x 2 map of 2 channels, 8 elements


@pytest.mark.parametrize("name", SPEC)
def test_macs_and_parameters_are_the_published_ones(name: str) -> None:
    variant = VARIANTS[name]
    gmacs, count = SPEC[name]
    assert round(macs(variant.depths, variant.dims, 224) / 1e9, 2) == gmacs
    assert parameters(variant.depths, variant.dims) == count


def test_macs_of_another_size_are_those_of_hugging_face_layers() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.PoolFormerConfig(
        depths=[1, 2, 1, 1], hidden_sizes=[8, 12, 20, 32], num_channels=4, num_labels=11
    )
    with torch.device("meta"):
        model = transformers.PoolFormerForImageClassification(config).eval()
        images = torch.empty(1, 4, 203, 203)  # odd, so that strides round
    matrix, normed = [], []

    def count(layer: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(layer, torch.nn.GroupNorm):
            normed.append(output.numel())
        else:
            matrix.append(output.numel() * layer.weight[0].numel())

    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.GroupNorm)):
            layer.register_forward_hook(count)
    model(images)
    shape = config.depths, config.hidden_sizes
    assert len(matrix) == 4 + 2 * 5 + 1
    assert matrix_macs(*shape, 203, 11, 4) == sum(matrix)
    assert macs(*shape, 203, 11, 4) == sum(matrix) + 5 * sum(normed)
    assert parameters(*shape, 11, 4) == sum(weight.numel() for weight in model.parameters())


def test_macs_refuse_an_image_that_the_stem_cannot_take() -> None:
    with pytest.raises(ValueError, match="image_size: found 2, expected at least 3"):
        macs((1,), (2,), 2)


@pytest.mark.parametrize(
    ("form", "moved", "weights", "work"),
    [
        # stem: 49 pixels in, 8 out; block: 39 or 27 maps of 8; norm 3 x 8, or 8 where it is the
        # mean that is normalised; mean 8 + 2, head 2 + 3
        ("plain", 57 + 39 * 8 + 24 + 10 + 5, 98 + 32 + 6, 4 * 98 + 4 * 32 + 6),
        ("deploy", 57 + 27 * 8 + 8 + 10 + 5, 98 + 32 + 6, 4 * 98 + 4 * 32 + 6),
        # and the gradients, of the images excepted: 57 + 8, 74 maps, head 5 + 5, mean 10, norm 40
        ("train", 408 + 65 + 74 * 8 + 60, 2 * 98 + 3 * 32 + 3 * 6, 2 * 4 * 98 + 3 * (4 * 32 + 6)),
    ],
)
def test_a_tiny_network_counted_by_hand(form: str, moved: int, weights: int, work: int) -> None:
    found = operators(*TINY, form, num_classes=3, in_channels=1)
    assert sum(op.moved for op in found) == moved
    assert sum(op.weights for op in found) == weights
    assert sum(op.macs for op in found) == work


@pytest.mark.parametrize("depths", [(1, 1, 1, 1), (2, 1, 3, 1)])
def test_parameters_of_the_deploy_form_are_those_it_has(depths: tuple[int, ...]) -> None:
    dims = (8, 12, 20, 36)
    network = to_deploy(PoolFormer(depths, dims))
    counted = deploy_parameters(depths, dims)
    assert counted == sum(parameter.size for parameter in network.get_parameters())


def test_roofline_takes_the_longer_of_arithmetic_and_bytes_of_each_operator() -> None:
    work = [Operator("dense", moved=10, weights=100, macs=500), Operator("add", moved=30)]
    cost = npu_cost.roofline(work, 2, element=2, peak=100.0, bandwidth=10.0, further_bytes=40)
    # dense: 2000 FLOP, 20 s; 240 B, 24 s. add: 120 B, 12 s. beside them 40 B, 4 s
    assert cost.milliseconds == pytest.approx(40e3)
    assert cost.images_per_second == pytest.approx(2 / 40)
    assert cost.intensity == pytest.approx(2000 / 400)
    assert cost.megabytes == pytest.approx(200e-6)
    assert cost.cube == pytest.approx(20 / 40)
    faster = npu_cost.roofline(work, 2, element=2, peak=50.0, bandwidth=10.0)
    assert faster.milliseconds == pytest.approx(40e3 + 12e3)  # now the arithmetic: 40 s


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_ring_bytes_are_those_of_a_ring(devices: int) -> None:
    parts = [[rank * 10 + part for part in range(devices)] for rank in range(devices)]
    expected = [sum(column) for column in zip(*parts, strict=True)]
    sent = 0
    for step in range(2 * (devices - 1)):  # first the sums go round, then the results
        moving = [(rank - step) % devices for rank in range(devices)]
        values = [parts[rank][moving[rank]] for rank in range(devices)]
        for rank in range(devices):
            to, part = (rank + 1) % devices, moving[rank]
            parts[to][part] = values[rank] + (parts[to][part] if step < devices - 1 else 0)
        sent += 1
    assert all(rank == expected for rank in parts)
    assert npu_cost.ring_bytes(devices, 8 * devices) == 8 * sent


def test_facts_agree_with_each_other() -> None:
    # 32 cores of 16 x 16 x 16 MACs at 1 GHz (Hot Chips 31)
    assert FACTS["peak"].value == pytest.approx(32 * 4096 * 2 * 1e9, rel=0.03)
    assert FACTS["hccs"].value * 8 == 240e9
    assert FACTS["pcie"].value / 1e9 == pytest.approx(31.5, abs=0.05)
    assert FACTS["jpeg"].value == pytest.approx(115_400, abs=50)
    for theirs in MINDCV:
        rate = 8 * 128 / theirs.step_ms * 1e3
        assert rate == pytest.approx(theirs.images_per_second, rel=0.003)


def test_the_report_says_first_that_it_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cost.json"
    flags = ["--json", str(file), "--batch_size", "64", "--devices", "4", "--hbm", "1.6e12"]
    monkeypatch.setattr("sys.argv", ["npu_cost.py", *flags])
    npu_cost.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("MODEL, NOT A MEASUREMENT")
    assert not any("MindCV" in line for line in lines)  # it was another batch
    told = json.loads(file.read_text())
    assert told["kind"] == lines[0]
    assert [model["variant"] for model in told["models"]] == list(SPEC)
    s12 = told["models"][0]
    assert s12["allreduce_bytes"] == 1.5 * 4 * 11_915_176
    costs = s12["cost"]
    assert math.isclose(costs["plain fp32"]["megabytes"], 2 * costs["plain fp16"]["megabytes"])
    assert costs["deploy fp16"]["megabytes"] < costs["plain fp16"]["megabytes"]
    assert costs["deploy fp16"]["gflop"] == costs["plain fp16"]["gflop"]


def test_mindcv_is_quoted_for_the_same_work_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["npu_cost.py", "--variant", "poolformer_s12"])
    npu_cost.main()
    out = capsys.readouterr().out
    assert "MindCV's measurements:\n- 8 x Ascend 910: 220.13 ms/step, 4651.8 img/s" in out
    assert "poolformer_m48" not in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image_size", "2"], "image_size: found 2, expected at least 3"),
        (["--variant", "poolformer_s13"], "found 'poolformer_s13'"),
    ],
)
def test_mistakes_are_named(
    flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["npu_cost.py", *flags])
    with pytest.raises(UserError, match=message):
        npu_cost.main()
