"""Validate a checkpoint or a bundle over every image once: top-1 and top-5, mIoU, or COCO's AP.

Without flags this validates the best checkpoint of the demo run.
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported
import mindcv_poolformer.runtime.requires_mindspore  # noqa: F401

# isort: split

from pathlib import Path

from mindcv_poolformer.config import Recipe, parse_recipe, shown
from mindcv_poolformer.report.outcome import Targets
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError, run, said_once
from mindcv_poolformer.runtime.launch import discover, joined
from mindcv_poolformer.tasks import task_of
from mindcv_poolformer.tasks.validation import ValidationOptions

DEMO = Path(__file__).parent / "configs" / "poolformer_s12_digits.yaml"


def main() -> None:
    with said_once():
        recipe, options = parse_recipe(
            None,
            description=__doc__,
            default_config=str(DEMO),
            options=ValidationOptions,
            shown=shown.VALIDATION,
        )
    world = discover()
    check_options(recipe, options)
    targets = Targets(options.result_file, options.report, options.overwrite)
    targets.check()
    system = recipe.system
    set_up_device(system.device_target, system.mode, system.jit_level, world, system.deterministic)
    with joined(world, system.device_target):
        task = task_of(recipe)
        validate = task.validate_bundle if options.bundle else task.validate
        validate(recipe, options, world).publish(targets, world)


def check_options(recipe: Recipe, options: ValidationOptions) -> None:
    """Refuse what excludes each other, before the work instead of after it."""
    if not options.bundle:
        level = recipe.system.eval_amp_level
        levels = {"val_amp_level": level, "compare_amp_level": options.compare_amp_level}
        task_of(recipe).check(recipe, levels)
    else:
        for key in ("deploy", "compare_amp_level"):
            if getattr(options, key):
                raise UserError(f"{key}: found it with bundle, expected it with a checkpoint alone")
        if recipe.model.ckpt_path:
            raise UserError("ckpt_path: found it with bundle, expected one of them")
    for key in ("runtime", "image_size", "dec_key_file"):
        if not options.bundle and getattr(options, key) != getattr(ValidationOptions, key):
            raise UserError(f"{key}: found it without bundle, expected one")


if __name__ == "__main__":
    run(main)
