"""From what was measured to the tables, the JSON and the chart."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from benchmarks import bench, report
from benchmarks.chart import draw_chart
from benchmarks.macs import matrix_macs
from benchmarks.rounds import Record
from benchmarks.sections import SECTIONS, Measured
from benchmarks.targets import BATCH, INPUT, PRODUCT, TARGETS, Target, measure, rate
from mindcv_poolformer.models import POOLFORMERS, VARIANTS

MACS = 1_800_000_000


def record(label: str, *rates: float, peak: int = 600_000_000) -> Record:
    """A contender with one round for each of these images/s."""
    return Record(label, 1.0, {BATCH: 2.0}, {BATCH: [[8 / r] for r in rates]}, {BATCH: peak})


def product(label: str, macs_per_second: float) -> Record:
    return Record(label, 1.0, {}, {PRODUCT: [[4096**3 / macs_per_second]]})


RECORDS = {
    "deploy": record("deploy form", 38.0, 42.0, 40.0, peak=500_000_000),
    "hf": record("Hugging Face eager", 20.0, 31.0, 25.0),
    "gemm_numpy": product("NumPy", 90e9),
    "gemm_torch": product("PyTorch", 80e9),
}


@pytest.mark.parametrize(
    ("target", "cells"),
    [
        (
            Target("speed", 1.6, "speed", "deploy", ("hf",)),
            ("1.60x", "1.60x", "pass", "40.0 (38.0–42.0) images/s", "25.0 (20.0–31.0) images/s"),
        ),
        (
            Target("less", 1.601, "speed", "deploy", ("hf",)),
            ("1.60x", "1.60x", "short", "40.0 (38.0–42.0) images/s", "25.0 (20.0–31.0) images/s"),
        ),
        (
            Target("memory", 1.0, "memory", "deploy", ("hf",)),
            ("1.00x", "1.20x", "pass", "500 MB", "600 MB"),
        ),
        (
            Target("more memory", 1.0, "memory", "hf", ("deploy",)),
            ("1.00x", "0.83x", "short", "600 MB", "500 MB"),
        ),
        (  # 40 images/s of 1.8 GMAC each are 72 GMAC/s, of 90
            Target("peak", 0.85, "peak", "deploy", ("gemm_torch", "gemm_numpy")),
            ("85 %", "80 %", "short", "72 GMAC/s", "90 GMAC/s, NumPy"),
        ),
        (
            Target("nobody", 1.0, "speed", "deploy", ("mindcv",)),
            ("1.00x", "", "not measured", "", ""),
        ),
        (
            Target("another shape", 1.0, "speed", "deploy", ("hf",), (1, 224)),
            ("1.00x", "", "not measured", "", ""),
        ),
    ],
)
def test_verdicts(target: Target, cells: tuple[str, ...]) -> None:
    assert measure(target, RECORDS, MACS).cells == (target.what, *cells)


def test_a_ratio_that_falls_short_is_not_rounded_up() -> None:
    records = {"deploy": record("a", 13.99), "hf": record("b", 10.0)}
    result = measure(Target("near", 1.4, "speed", "deploy", ("hf",)), records, MACS)
    assert result.cells[2:4] == ("1.39x", "short")


@pytest.mark.parametrize(
    ("spread", "text"),
    [
        ((0.912, 1.1, 1.234), "1.10 (0.91–1.23)"),
        ((28.04, 31.25, 40.0), "31.2 (28.0–40.0)"),
        ((391.2, 438.4, 1240.0), "438 (391–1240)"),
    ],
)
def test_three_digits(spread: tuple[float, float, float], text: str) -> None:
    assert rate(spread) == text


@pytest.mark.parametrize("name", POOLFORMERS)
def test_macs_of_convolutions_and_classifier(name: str) -> None:
    variant = VARIANTS[name]
    counted = matrix_macs(variant.depths, variant.dims, 224) / 1e9
    assert variant.gmacs * 0.99 < counted < variant.gmacs + 0.005


def test_targets_name_contenders() -> None:
    from benchmarks.field import contenders

    known = contenders("poolformer_s12", Path("a"), Path("b"), Path("c"), 2)
    for target in TARGETS:
        assert {target.ours, *target.theirs} <= known.keys()


def test_targets_table() -> None:
    ours = [target for target in TARGETS if target.ours == "deploy"]
    results = [measure(target, RECORDS, MACS) for target in ours[:2]]
    assert report.targets_table(results).splitlines()[1:] == [
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| deploy form vs Hugging Face eager | 1.40x | 1.60x | pass "
        "| 40.0 (38.0–42.0) images/s | 25.0 (20.0–31.0) images/s |",
        "| deploy form vs torch.compile | 1.00x |  | not measured |  |  |",
    ]


def test_cores_that_npus_need() -> None:
    """MindCV publishes 4834.52 images/s on 8 x Ascend 910*."""
    pipeline = Record("input pipeline", 1.0, {}, {INPUT: [[128 / 500.0]]})
    assert report.input_table({"pipeline": pipeline}, cores=2).splitlines() == [
        "| input pipeline | images/s | a core | cores for 1,000 images/s "
        "| for 8 x Ascend 910*, 4,835 images/s |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| input pipeline | 500 (500–500) | 250 | 4.0 | 19.3 |",
    ]


def test_comparison_table() -> None:
    rows = [("8 x 224", RECORDS, BATCH), ("1 x 224", RECORDS, (1, 224))]
    assert report.comparison_table("batch x px", rows, ("deploy", "hf")).splitlines() == [
        "| batch x px | deploy form, images/s | Hugging Face eager, images/s | first vs last |",
        "| --- | ---: | ---: | ---: |",
        "| 8 x 224 | 40.0 (38.0–42.0) | 25.0 (20.0–31.0) | 1.60x |",
        "| 1 x 224 |  |  |  |",
    ]


def test_startup_table() -> None:
    last = report.startup_table(RECORDS, BATCH).splitlines()[2]
    assert last == "| deploy form | 1.0 s | 2.0 s | 3.0 s |"


def test_breakdown_tables() -> None:
    calls = {
        "batch 8": {"GELU": {"ms": 12.34, "kernels": 12.0}, "other": {"ms": 30.0, "kernels": 5.0}},
        "batch 1": {"GELU": {"ms": 1.0, "kernels": 12.0}, "other": {"ms": 0.0, "kernels": 0.0}},
    }
    assert report.kernels_table(calls).splitlines() == [
        "| ms (kernels) by MindSpore's profiler | batch 8 | batch 1 |",
        "| --- | ---: | ---: |",
        "| GELU | 12.3 (12) | 1.0 (12) |",
        "| other | 30.0 (5) | 0.0 (0) |",
        "| in all | 42.3 (17) | 1.0 (12) |",
    ]
    assert report.steps_table({"decode": 1.319}).splitlines()[2] == "| decode | 1.32 ms |"


def given(folder: Path) -> SimpleNamespace:
    return bench.parse(["--quick", "--output", str(folder)])


def measured(*failures: str) -> Measured:
    results = [measure(target, RECORDS, MACS) for target in TARGETS]
    return Measured(["a table"], {"targets": RECORDS}, list(failures), ["no compiler"], results)


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    bench.show({"targets": measured("toy died")}, report.surroundings(), given(folder))
    text = (folder / "benchmark.md").read_text()
    assert text.startswith("a table\n\n") and "Not measured: no compiler." in text
    assert capsys.readouterr().out == text

    kept = json.loads((folder / "benchmark.json").read_text())
    section = kept["sections"]["targets"]
    assert section["failures"] == ["toy died"]
    rounds = section["records"]["targets"]["deploy"]["rounds"]["8x224"]
    assert rounds == RECORDS["deploy"].rounds[BATCH]
    assert [r["verdict"] for r in section["results"]].count("not measured") == 13
    assert kept["around"]["versions"]["numpy"].startswith("1.")
    with Image.open(folder / "benchmark.png") as chart:
        assert chart.format == "PNG"


def test_chart_without_anything(tmp_path: Path) -> None:
    draw_chart({}, "nothing", tmp_path / "chart.png")
    assert (tmp_path / "chart.png").is_file()


def test_command_line() -> None:
    full = bench.parse([])
    assert (full.only, full.rounds) == (list(SECTIONS), 9)
    quick = bench.parse(["--quick", "--rounds", "5"])
    assert (quick.only, quick.rounds) == (["targets"], 5)
    assert bench.parse(["--only", "startup", "scaling"]).only == ["startup", "scaling"]
