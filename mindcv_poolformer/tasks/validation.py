"""What validate.py can be asked for, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import PositiveInt

from ..config import PathText


@dataclass(frozen=True)
class ValidationOptions:
    """validation: beside the recipe

    Args:
        deploy: validate the deploy form, which export.py writes.
        compare_amp_level: validate the plain form at this level too, and tell for how many images
            both predict the same; null for no comparison.
        result_file: write the results to this file, as JSON; empty for none.
        report: write a report to this folder: confusion matrix, accuracy of each class, the most
            confident mistakes, calibration, and with compare_amp_level the images on which both
            disagree, as tables, pictures and a page; empty for none.
        overwrite: replace an existing report.
        bundle: validate what export.py wrote to this folder instead of a checkpoint; images are
            prepared as the bundle tells. Empty for a checkpoint.
        runtime: what runs the bundle: onnx is ONNX Runtime, on the CPU alone; auto takes that where
            it can run the bundle, and mindspore elsewhere.
        image_size: one of the bundle's, null for its first.
        dec_key_file: file with the key of an encrypted bundle.
    """

    deploy: bool = False
    compare_amp_level: Literal["O0", "O2", "O3", "auto"] | None = None
    result_file: PathText = ""
    report: PathText = ""
    overwrite: bool = False
    bundle: PathText = ""
    runtime: Literal["auto", "onnx", "mindspore"] = "auto"
    image_size: PositiveInt | None = None
    dec_key_file: PathText = ""
