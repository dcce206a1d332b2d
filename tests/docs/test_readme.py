from __future__ import annotations

import re
from itertools import groupby, product
from pathlib import Path

import pytest

from mindcv_poolformer.models import POOLFORMERS, VARIANTS
from mindcv_poolformer.models.variants import FAMILIES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", POOLFORMERS)
def test_the_model_table_is_the_table_of_variants(name: str) -> None:
    variant = VARIANTS[name]
    row = (
        f"| {name} | {variant.parameters:,} | {variant.gmacs:.2f} G | "
        f"{variant.published_top1} % | {variant.drop_path_rate} | {variant.crop_pct:.2f} |"
    )
    assert row in README


@pytest.mark.parametrize("family", [f for f, parts in FAMILIES.items() if not parts.hybrid])
def test_the_families_are_those_of_the_table(family: str) -> None:
    cells = []
    for name, variant in VARIANTS.items():
        if variant.family == family and name.count("_") == 1:
            larger = VARIANTS.get(f"{name}_384")
            at_384 = f" ({larger.published_top1})" if larger else ""
            cells.append(f"{name.partition('_')[2]} {variant.published_top1}{at_384}")
    assert f"| {family} | {mixers_of(family)} | {', '.join(cells)} |" in README


@pytest.mark.parametrize(
    "name", [n for n, v in VARIANTS.items() if v.family and not v.is_metaformer]
)
def test_the_hybrids_are_those_of_the_table(name: str) -> None:
    variant = VARIANTS[name]
    row = (
        f"| {name} | {mixers_of(variant.family)} | {variant.parameters:,} | "
        f"{variant.gmacs:.1f} G | {variant.published_top1} % |"
    )
    assert row in README


def mixers_of(family: str) -> str:
    mixers = groupby(FAMILIES[family].token_mixers)
    return ", ".join(f"{mixer} x {len([*same])}" for mixer, same in mixers)


def test_every_file_named_is_there() -> None:
    for pattern in re.findall(r"^\| `(\S+_\S+\.yaml)`", README, re.MULTILINE):
        parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
        for names in product(*parts):
            assert (ROOT / "configs" / "".join(names)).is_file()
    for picture in re.findall(r"!\[.*?\]\((.+?)\)", README):
        assert (ROOT / picture).is_file()
