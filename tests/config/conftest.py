from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mindcv_poolformer.config import Recipe, parse_recipe


@pytest.fixture
def parse(tmp_path: Path) -> Callable[..., Recipe]:
    """``parse(text, *flags)``: the recipe of a YAML text and flags."""

    def run(text: str | bytes, *flags: str) -> Recipe:
        file = tmp_path / "recipe.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return parse_recipe(list(flags), description="A test.", default_config=str(file))

    return run
