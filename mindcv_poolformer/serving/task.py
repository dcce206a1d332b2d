"""What the runtime asks of a bundle, whatever it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from mlserver.types import MetadataTensor, RequestInput, ResponseOutput

from ..export.runtimes import Taken
from .batching import Batcher, SideBySide
from .payload import Wanted


class ServedBundle(Protocol):
    """A bundle at work.

    Attributes:
        precision: fp32, fp16 or int8, as that of a :class:`Bundle`.
        runtime: that it runs in.
        inputs: of which a request has one.
        outputs: of which a request names those it wants.
        run_size: images in one run.
        side_by_side: what a Batcher runs instead where enough requests wait, if there is such.
        shapes: what is to be compiled before the bundle is ready, one :meth:`warm_up` each.
    """

    precision: str
    runtime: Taken
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]
    run_size: int
    side_by_side: SideBySide | None
    shapes: Sequence[Any]

    def warm_up(self, shape: Any) -> None:
        """Compile for one of ``shapes``; called in the thread of DEVICE."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run the network, which takes ``images``: what a Batcher runs."""

    async def answer(
        self, tensor: RequestInput, wanted: Wanted, batcher: Batcher
    ) -> list[ResponseOutput]:
        """Answer to an input whose name, datatype and shape are right.

        Raises:
            BadRequestError: its data is not.
        """
