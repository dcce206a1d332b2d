"""The recipe: its sections together, and the pairs of keys that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields

import yaml

from .dense import DenseConfig
from .detection import DetectionConfig
from .sections import AugmentationConfig, DataConfig, ModelConfig, SystemConfig
from .segmentation import SegmentationConfig
from .training import CheckpointingConfig, LossConfig, OptimizerConfig, ScheduleConfig


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, by section."""

    system: SystemConfig = field(default_factory=SystemConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    dense: DenseConfig = field(default_factory=DenseConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpointing: CheckpointingConfig = field(default_factory=CheckpointingConfig)

    def to_yaml(self) -> str:
        """The recipe as YAML with flat keys, which ``parse_recipe`` reads back to an equal one."""
        return "\n".join(
            f"# {section.name}\n"
            + yaml.safe_dump(asdict(getattr(self, section.name)), sort_keys=False)
            for section in fields(self)
        )


def contradictions(recipe: Recipe) -> Iterator[str]:
    """One line for each set of keys in ``recipe`` that cannot hold together."""
    yield from _task_contradictions(recipe)
    yield from _data_contradictions(recipe)
    yield from _schedule_contradictions(recipe.schedule)
    system, model, checkpointing = recipe.system, recipe.model, recipe.checkpointing
    if system.loss_scale_type == "dynamic" and system.amp_level == "O0":
        yield (
            "loss_scale_type: found 'dynamic' with amp_level 'O0', expected 'fixed': "
            "fp32 gradients need no loss scale"
        )
    if system.flash_attention and system.device_target != "Ascend":
        yield (
            f"flash_attention: found true with device_target {system.device_target}, expected "
            "null or false: only Ascend has the operator"
        )
    if system.hf32 and system.device_target != "Ascend":
        yield (
            f"hf32: found true with device_target {system.device_target}, expected false: "
            "only an Atlas A2 has such products"
        )
    if system.recompute and model.drop_rate:
        yield (
            f"recompute: found true with drop_rate {model.drop_rate}, expected false or drop_rate "
            "0: dropout would draw other places the second time"
        )
    if model.pretrained and model.ckpt_path:
        yield (
            f"pretrained: found true with ckpt_path {model.ckpt_path!r}, "
            "expected one source of weights"
        )
    if checkpointing.ckpt_save_policy == "top_k" and not checkpointing.val_while_train:
        yield (
            "ckpt_save_policy: found 'top_k' with val_while_train false, "
            "expected val_while_train true: validation ranks the checkpoints"
        )
    steps, batches = checkpointing.ckpt_save_steps, recipe.optimizer.gradient_accumulation_steps
    if steps and steps % batches:
        yield (
            f"ckpt_save_steps: found {steps} with gradient_accumulation_steps {batches}, "
            "expected a multiple of it: a checkpoint stands between two updates"
        )


# The keys that not every task reads, by section: which tasks do.
_CLASSIFICATION_ONLY = {
    "data": {"shuffle", "drop_remainder"},
    "augmentation": {field.name for field in fields(AugmentationConfig)} - {"hflip", "mean", "std"},
    "model": {"in_channels", "drop_rate", "drop_path_rate", "head_drop_rate"},
    "loss": {"label_smoothing"},
}
_READ_BY = [
    (("classification",), _CLASSIFICATION_ONLY),
    (("segmentation", "detection"), {"dense": {field.name for field in fields(DenseConfig)}}),
    (("segmentation",), {"segmentation": {field.name for field in fields(SegmentationConfig)}}),
    (("detection",), {"detection": {field.name for field in fields(DetectionConfig)}}),
]
_DATASETS = {
    "classification": ("imagenet", "digits"),
    "segmentation": ("ade20k", "scenes", "digits"),
    "detection": ("coco", "digits"),
}


def _task_contradictions(recipe: Recipe) -> Iterator[str]:
    """Of keys that the task does not read."""
    task, dataset = recipe.model.task, recipe.data.dataset
    for tasks, sections in _READ_BY:
        if task in tasks:
            continue
        for section, names in sections.items():
            given = getattr(recipe, section)
            for one in fields(given):
                value = getattr(given, one.name)
                if one.name in names and value != one.default:
                    yield (
                        f"{one.name}: found {value} with task {task}, expected it with task "
                        f"{' or '.join(tasks)}"
                    )
    if dataset not in _DATASETS[task]:
        yield (
            f"dataset: found {dataset!r} with task {task}, expected "
            f"{' or '.join(map(repr, _DATASETS[task]))}"
        )


def _data_contradictions(recipe: Recipe) -> Iterator[str]:
    data, augmentation, channels = recipe.data, recipe.augmentation, recipe.model.in_channels
    if data.dataset_download and data.dataset != "digits":
        yield (
            f"dataset_download: found true with dataset {data.dataset!r}, "
            "expected false: only digits can be written"
        )
    ranges = {
        name: getattr(augmentation, name) for name in ("scale", "ratio", "re_scale", "re_ratio")
    }
    for name, (low, high) in {**ranges, "ratio_range": recipe.segmentation.ratio_range}.items():
        if low > high:
            yield f"{name}: found [{low}, {high}], expected the lower bound first"
    for name in ("mixup", "cutmix"):
        alpha = getattr(augmentation, name)
        if alpha > 0 and data.batch_size % 2:
            yield (
                f"batch_size: found {data.batch_size} with {name} {alpha}, expected an even "
                "number: a batch is mixed with its mirror image"
            )
    yield from _unit_contradictions(augmentation)
    for name in ("mean", "std"):
        count = len(getattr(augmentation, name))
        if count != channels:
            yield (
                f"{name}: found {count} values with in_channels {channels}, "
                f"expected one per channel: give --{name} as a list of {channels}"
            )


def _unit_contradictions(augmentation: AugmentationConfig) -> Iterator[str]:
    """Of mean and std in timm's unit: no set of pictures has such ones in that of 0-255."""
    for name, example in (("std", 58.395), ("mean", 123.675)):
        values = getattr(augmentation, name)
        if values and max(values) < 1 and min(values) >= 0 and max(values) > 0:
            yield (
                f"{name}: found {max(values):g}, expected the unit of 0-255, such as {example}: "
                "multiply mean and std by 255"
            )
            return


def _schedule_contradictions(schedule: ScheduleConfig) -> Iterator[str]:
    peaks = {"lr": schedule.lr, "lr_base": schedule.lr_base}
    given = [name for name, value in peaks.items() if value is not None]
    if not given:
        yield "lr: found neither lr nor lr_base, expected one of them"
    if len(given) == 2:
        yield f"lr: found {schedule.lr} and lr_base {schedule.lr_base}, expected one of them"
    milestones = schedule.multi_step_decay_milestones
    if list(milestones) != sorted(set(milestones)):
        yield (
            f"multi_step_decay_milestones: found {list(milestones)}, expected epochs in ascending "
            "order, each once"
        )
    if schedule.lr_epoch_stair and schedule.warmup_steps is not None:
        yield (
            f"lr_epoch_stair: found true with warmup_steps {schedule.warmup_steps}, expected "
            "false, or warmup_epochs: within an epoch the learning rate stands still"
        )
    if schedule.scheduler == "constant":
        return
    decays_to_min = schedule.scheduler != "multi_step_decay"
    if decays_to_min and schedule.lr is not None and schedule.min_lr > schedule.lr:
        yield f"min_lr: found {schedule.min_lr} with lr {schedule.lr}, expected at most lr"
    decay = schedule.decay_epochs
    warmup = schedule.warmup_epochs if schedule.warmup_steps is None else 0
    if decay is None and warmup >= schedule.epoch_size:
        yield (
            f"epoch_size: found {schedule.epoch_size} with warmup_epochs {warmup}, "
            "expected more epochs than the warm-up's"
        )
    if not decays_to_min:
        return
    if decay is not None and schedule.warmup_prefix and warmup + decay > schedule.epoch_size:
        yield (
            f"epoch_size: found {schedule.epoch_size} with warmup_epochs {warmup} and "
            f"decay_epochs {decay}, expected at least their sum {warmup + decay}"
        )
    if decay is not None and not schedule.warmup_prefix and decay > schedule.epoch_size:
        yield (
            f"epoch_size: found {schedule.epoch_size} with decay_epochs {decay} and "
            "warmup_prefix false, expected at least decay_epochs"
        )
