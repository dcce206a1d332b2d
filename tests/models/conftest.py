from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _fused(graph_kernels: None) -> None:
    """The Cells are the subject here: their graphs are fused as users' are."""
