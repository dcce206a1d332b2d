from __future__ import annotations

import re
from pathlib import Path

import pytest

from mindcv_poolformer.models import VARIANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_model_table_is_the_table_of_variants(name: str) -> None:
    variant = VARIANTS[name]
    row = (
        f"| {name} | {variant.parameters:,} | {variant.gmacs:.2f} G | "
        f"{variant.published_top1} % | {variant.drop_path_rate} | {variant.crop_pct:.2f} |"
    )
    assert row in README


def test_every_file_named_is_there() -> None:
    for pattern in re.findall(r"`(poolformer_\S+\.yaml)`", README):
        names = [pattern]
        if match := re.search(r"\{(.+)\}", pattern):
            names = [pattern.replace(match[0], part) for part in match[1].split(",")]
        for name in names:
            assert (ROOT / "configs" / name).is_file()
    for picture in re.findall(r"!\[.*?\]\((.+?)\)", README):
        assert (ROOT / picture).is_file()
