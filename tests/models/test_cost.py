"""The cost of the models against the published figures and a count from the shapes alone."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import pytest
from official import without_values

from benchmarks.macs import macs, parameters
from mindcv_poolformer.models import VARIANTS
from mindcv_poolformer.models.__main__ import main
from mindcv_poolformer.models.cost import Cost, parts_of


@cache
def total(name: str) -> Cost:
    variant = VARIANTS[name]
    network = without_values(name, num_classes=variant.num_classes)
    return sum((part.cost for part in parts_of(network, variant.image_size)), Cost())


@pytest.mark.parametrize("name", VARIANTS)
def test_figures_are_the_published_ones(name: str) -> None:
    variant, found = VARIANTS[name], total(name)
    assert found.parameters == variant.parameters
    if variant.num_classes == 1000:  # for ImageNet-21K the authors repeat the figure
        assert round(found.macs / 1e9, 1 if variant.family else 2) == variant.gmacs


@pytest.mark.parametrize("name", ["poolformer_s12", "poolformer_m36"])
def test_poolformers_cost_what_their_shapes_tell(name: str) -> None:
    variant, found = VARIANTS[name], total(name)
    assert found.macs == macs(variant.depths, variant.dims, 224)
    assert found.parameters == parameters(variant.depths, variant.dims)


def test_attention_counts_its_products() -> None:
    """Of a stage 4: a 3 x 3 map, 512 channels, 16 heads, three blocks."""
    found = parts_of(without_values("caformer_s18"), 70)[3]
    places, channels = 9, 512
    linear = (3 + 1 + 8) * channels * channels * places
    products = 2 * places * places * channels
    strided = 9 * 320 * channels * places
    assert found.shape == (512, 3, 3)
    assert found.cost.macs == strided + 3 * (linear + products)
    outputs = (3 + 1 + 4 + 1 + 1) * channels * places + 16 * places * places
    assert found.cost.activations == channels * places + 3 * outputs


@pytest.mark.long
def test_summary_as_a_table_and_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "mindcv_poolformer.models", "summary", "caformer_s18"]
    ended = subprocess.run(
        [*command, "--image_size", "384"], capture_output=True, text=True, timeout=120
    )
    table = ended.stdout
    assert "caformer_s18 at 384 px" in table
    assert "attention" in table and "320 x 24 x 24" in table and "13.37 G" in table
    monkeypatch.setattr("sys.argv", ["models", "summary", "randformer_s12", "--json"])
    main()
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == VARIANTS["randformer_s12"].parameters
    assert [part["mixer"] for part in found["parts"]][:3] == ["identity"] * 2 + ["random"]
    assert 0 < found["deploy_parameters"] < found["parameters"]


def test_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["models", "list", "--json"])
    main()
    assert [row["model"] for row in json.loads(capsys.readouterr().out)] == list(VARIANTS)
    monkeypatch.setattr("sys.argv", ["models", "list", "caformer"])
    main()
    assert "caformer_b36_in21k" in capsys.readouterr().out


def test_a_hybrid_costs_what_its_formulas_tell() -> None:
    """Against PoolFormer-S12, of whose stage 4 two blocks get another mixer on 49 places."""
    poolformer = total("poolformer_s12")
    spatial, attention = total("metaformer_pppf_s12_224"), total("metaformer_pppa_s12_224")
    assert spatial.parameters - poolformer.parameters == 2 * 49 * 49
    assert spatial.macs - poolformer.macs == 2 * 49 * 49 * 512
    # fvcore counts neither the norm over channels, a chain of operators, nor the embedding
    linear, products = 4 * 512 * 512 * 49, 2 * 49 * 49 * 512
    norms = 2 * (2 * 64 * 56**2 + 2 * 128 * 28**2 + 6 * 320 * 14**2 + 2 * 512 * 49) + 512 * 49
    assert attention.macs - poolformer.macs == 2 * (linear + products) - 5 * norms
    extra = 2 * (4 * 512 * 512 + 512) + 512 * 49
    assert attention.parameters - poolformer.parameters == extra
