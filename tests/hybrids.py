"""The official hybrids' outputs, and the weights that go with them.

``fixtures/hybrid_logits.npz`` holds for each hybrid the names and shapes, filled up with zeros to
four numbers, of the parameters of sail-sg/poolformer's ``models/metaformer.py`` in PyTorch 2.13,
and its float32 logits in eval mode, with the input and the weights of ``official_logits.npz``. The
same run gave that file's logits of poolformer_s12, bit for bit. In float64 the logits are within
1.2e-6 of these.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from official import FIXTURES, official_weight

from mindcv_poolformer.weights.read import Source

HYBRID_OUTPUTS = np.load(FIXTURES / "hybrid_logits.npz")
HYBRIDS = sorted({key.partition("/")[0] for key in HYBRID_OUTPUTS.files})


def hybrid_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter, by its official name."""
    names, shapes = HYBRID_OUTPUTS[f"{variant}/names"], HYBRID_OUTPUTS[f"{variant}/shapes"]
    return {
        str(name): tuple(int(n) for n in shape if n)
        for name, shape in zip(names, shapes, strict=True)
    }


def hybrid_source(variant: str, path: str = "x.pth.tar", **metadata: str) -> Source:
    """A checkpoint of sail-sg's: the weights behind the fixtures."""
    values = {n: official_weight(n, shape) for n, shape in hybrid_shapes(variant).items()}
    return Source(Path(path), values, metadata)
