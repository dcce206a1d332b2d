"""The sections of a recipe that concern training: loss, schedule, optimizer, checkpointing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)

from .bounds import (
    FractionAboveZero,
    FractionBelowOne,
    OptimizerName,
    PathText,
)


@dataclass(frozen=True)
class LossConfig:
    """loss: what training minimises

    Args:
        loss: CE is cross entropy.
        label_smoothing: share of the target spread over all classes; training only.
    """

    loss: Literal["CE"] = "CE"
    label_smoothing: FractionBelowOne = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """schedule: the learning rate over the epochs

    Args:
        scheduler: shape after the warm-up; both cosine names mean the same.
        epoch_size: epochs of the run.
        epoch_steps: steps that count as an epoch, for a schedule by iterations; null for one pass
            over the training data.
        lr: peak learning rate; give this or lr_base.
        lr_base: peak learning rate for lr_base_size images a step, scaled to the global batch.
        lr_base_size: images that lr_base is meant for.
        min_lr: learning rate at the end of the decay.
        warmup_lr: learning rate at the first step.
        warmup_epochs: epochs from warmup_lr up to the peak.
        warmup_steps: steps from warmup_lr up to the peak, in place of warmup_epochs; null for those
            epochs.
        decay_epochs: epochs from the peak (or, without warmup_prefix, from the start) to min_lr,
            null for all the epochs left.
        decay_rate: power of polynomial_decay; factor of multi_step_decay at each milestone; no
            effect on the others.
        multi_step_decay_milestones: epochs after which multi_step_decay multiplies the learning
            rate by decay_rate, counted from the run's start; no effect on the others.
        warmup_prefix: true starts the decay after the warm-up, false at epoch 0 with the warm-up
            in place of its head.
        lr_epoch_stair: hold the learning rate within an epoch instead of moving it every step.
    """

    scheduler: Literal[
        "cosine_decay", "warmup_cosine_decay", "polynomial_decay", "multi_step_decay", "constant"
    ] = "cosine_decay"
    epoch_size: PositiveInt = 90
    epoch_steps: PositiveInt | None = None
    lr: PositiveFloat | None = None
    lr_base: PositiveFloat | None = None
    lr_base_size: PositiveInt = 1024
    min_lr: NonNegativeFloat = 1e-6
    warmup_lr: NonNegativeFloat = 0.0
    warmup_epochs: NonNegativeInt = 3
    warmup_steps: NonNegativeInt | None = None
    decay_epochs: PositiveInt | None = None
    decay_rate: float = 0.9
    multi_step_decay_milestones: tuple[PositiveInt, ...] = (30, 60, 90)
    warmup_prefix: bool = True
    lr_epoch_stair: bool = False


@dataclass(frozen=True)
class OptimizerConfig:
    """optimizer: how gradients change the weights

    Args:
        opt: adamw or lamb, in any letter case.
        weight_decay: decoupled decay, per step times the learning rate; lamb scales it with the
            rest of the update.
        layer_decay: factor on the learning rate of each layer below the head, deepest least.
        freeze_backbone: train the classifier alone; with the other tasks neck and head.
        filter_bias_and_bn: no decay on one-dimensional parameters (norms, biases, layer scales).
        momentum: no effect with either; MindCV's recipes carry it.
        use_nesterov: no effect with either; MindCV's recipes carry it.
        beta1: decay rate of the gradient's running mean.
        beta2: decay rate of the squared gradient's running mean.
        eps: added to the denominator of the update.
        clip_grad: scale gradients down to a global norm of clip_value.
        clip_value: the largest global norm of the gradients.
        gradient_accumulation_steps: batches whose mean gradient makes one update.
        ema: keep a moving average of the weights.
        ema_decay: share of the old average kept at each update.
    """

    opt: OptimizerName = "adamw"
    weight_decay: NonNegativeFloat = 0.05
    layer_decay: FractionAboveZero = 1.0
    freeze_backbone: bool = False
    filter_bias_and_bn: bool = True
    momentum: FractionBelowOne = 0.9
    use_nesterov: bool = False
    beta1: FractionBelowOne = 0.9
    beta2: FractionBelowOne = 0.999
    eps: PositiveFloat = 1e-8
    clip_grad: bool = False
    clip_value: PositiveFloat = 15.0
    gradient_accumulation_steps: PositiveInt = 1
    ema: bool = False
    ema_decay: OpenUnitInterval = 0.9999


@dataclass(frozen=True)
class CheckpointingConfig:
    """checkpointing: what the run writes, when it validates

    Args:
        ckpt_save_dir: the run folder.
        resume: auto continues the run that the folder holds, false starts anew, a path continues
            from that checkpoint, or the run that began with it if the folder holds that.
        resume_force: let the number of ranks and the size of the batches differ from those of the
            run that is resumed; it goes on, but no longer bitwise as it would have.
        ckpt_save_interval: epochs between two checkpoints; the best by validation are saved in
            between, too.
        ckpt_save_steps: save after this many steps too, to resume within an epoch; null for at
            epochs' ends alone.
        ckpt_save_policy: keep the best by top-1, mIoU or AP (top_k), the newest (latest_k), or null
            for none but the last and the best.
        keep_checkpoint_max: checkpoints that the policy keeps.
        val_while_train: validate during training.
        val_interval: epochs between two validations.
    """

    ckpt_save_dir: PathText = "./ckpt"
    resume: bool | PathText = "auto"
    resume_force: bool = False
    ckpt_save_interval: PositiveInt = 1
    ckpt_save_steps: PositiveInt | None = None
    ckpt_save_policy: Literal["top_k", "latest_k"] | None = "latest_k"
    keep_checkpoint_max: PositiveInt = 10
    val_while_train: bool = False
    val_interval: PositiveInt = 1
