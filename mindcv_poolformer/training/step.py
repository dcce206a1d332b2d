"""The training step, compiled as one graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.amp import DynamicLossScaler, StaticLossScaler

from ..config import Recipe
from ..runtime.amp import gradients_finite
from .optimizer import OPTIMIZERS, AdamW, Lamb, global_norm

# Gives a network with its loss, at an AMP level: the columns of a batch to a float32 scalar.
WithLoss: TypeAlias = Callable[[nn.Cell, str], nn.Cell]


def _average(decay: float, average: Parameter, weight: Parameter) -> Tensor:
    return ops.assign(average, average * decay + weight * (1.0 - decay))


def _clear(total: Parameter) -> Tensor:
    return ops.assign(total, ops.zeros_like(total))


class Labelled(nn.Cell):
    """A network with the loss of what it tells of images.

    Args:
        network: images (N, C, H, W) and optional draws to logits.
        loss: of logits and targets, a float32 scalar.
    """

    def __init__(self, network: nn.Cell, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss

    def construct(self, images: Tensor, targets: Tensor, draws: Tensor | None = None) -> Tensor:
        """Give the loss of a batch.

        Args:
            images: (N, C, H, W) float32.
            targets: as the loss takes them.
            draws: what the network drops, as it takes it; drawn anew for each step.
        """
        return self.loss(self.network(images, draws), targets)


@dataclass(frozen=True)
class Outcome:
    """What a call of the step tells.

    Args:
        loss: averaged over the batches of all ranks.
        bad_updates: those that overflowed since the last good one.
        loss_scale: for the next call.
        asked_to_stop: whether any rank had been asked to before the call; alike on all ranks.
    """

    loss: float
    bad_updates: int
    loss_scale: float
    asked_to_stop: bool

    @classmethod
    def read(cls, told: Tensor) -> Outcome:
        """From what the call has given, (4,) float32; waits for the device."""
        loss, bad_updates, loss_scale, stop = told.asnumpy().tolist()
        return cls(loss, int(bad_updates), loss_scale, stop > 0)


class TrainStep(nn.Cell):
    """Forward, loss, backward, all-reduce, unscale, overflow check, clip, update, EMA.

    The gradients of ``accumulation_steps`` calls, or of those left in an epoch, are averaged before
    one update. The norm is clipped after the all-reduce, so all ranks clip alike. Where a gradient
    of any rank is not finite the update is skipped, the moments and the EMA with it, and a dynamic
    loss scale halves.

    Args:
        network: with its loss, see :data:`WithLoss`.
        optimizer: its parameters are those trained.
        schedule: learning rate of each call, shape (calls,).
        loss_scaler: fixed or dynamic.
        accumulation_steps: calls per update.
        epoch_steps: calls per epoch, whose last one always updates; None for those of the schedule.
        skip_overflow: skip the updates that overflow; false applies them.
        clip_norm: bound on the global gradient norm, None for no bound.
        ema_decay: decay of the moving average of the weights, None for none.
        world_size: number of ranks whose gradients are averaged.

    A call gives what :meth:`Outcome.read` reads, then or after further calls.
    ``global_step`` counts the calls, ``skipped_updates`` the updates that overflowed, and
    ``bad_updates`` those of them since the last good one.
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: AdamW | Lamb,
        schedule: Tensor,
        loss_scaler: StaticLossScaler | DynamicLossScaler,
        *,
        accumulation_steps: int = 1,
        epoch_steps: int | None = None,
        skip_overflow: bool = True,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        world_size: int = 1,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.schedule = schedule
        self.loss_scaler = loss_scaler
        self.accumulation_steps = accumulation_steps
        self.epoch_steps = epoch_steps or len(schedule)
        self.skip_overflow = skip_overflow
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.world_size = world_size
        self.weights = optimizer.parameters
        self.network_weights = tuple(network.get_parameters())
        unscaled = isinstance(loss_scaler, StaticLossScaler) and loss_scaler.scale_value == 1.0
        self.rescales = not unscaled or accumulation_steps > 1 or clip_norm is not None
        self.global_step = Parameter(Tensor(0, ms.int32), "global_step", requires_grad=False)
        self.skipped_updates = Parameter(
            Tensor(0, ms.int32), "skipped_updates", requires_grad=False
        )
        self.bad_updates = Parameter(Tensor(0, ms.int32), "bad_updates", requires_grad=False)
        self.stop = Parameter(Tensor(0, ms.float32), "stop", requires_grad=False)
        if ema_decay is not None:
            self.ema = self.weights.clone(prefix="ema", init="same")
        if accumulation_steps > 1:
            self.grad_sum = self.weights.clone(prefix="grad_sum", init="zeros")
        if world_size > 1:
            self.grad_reducer = nn.DistributedGradReducer(self.weights, True, world_size)
            self.all_reduce = ops.AllReduce()
        self.hyper_map = ops.HyperMap()
        self.backward = ops.value_and_grad(
            self.scaled_loss, grad_position=None, weights=self.weights, has_aux=True
        )

    def between_updates(self, calls: int) -> bool:
        """Whether after so many calls in all no gradients wait for the next one."""
        return calls % self.epoch_steps % self.accumulation_steps == 0

    def ask_to_stop(self) -> None:
        """Let all ranks know, with the next call, that this one has been asked to stop."""
        ops.assign(self.stop, Tensor(1, ms.float32))

    def scaled_loss(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Give the loss times the loss scale, to differentiate, and the loss itself."""
        loss = self.network(*batch)
        return self.loss_scaler.scale(loss), loss

    def construct(self, *batch: Tensor) -> Tensor:
        """Take a batch: its columns, as the network with its loss takes them."""
        (_, loss), grads = self.backward(*batch)
        if self.world_size > 1:
            # PyNative mode stacks no Parameter, but what is computed from one.
            means = self.all_reduce(ops.stack((loss, self.stop + 0.0))) / self.world_size
            loss = means[0]
            ops.assign(self.stop, means[1])
        lr = self.schedule[self.global_step]
        if self.accumulation_steps == 1:
            self.update(grads, lr, 1.0)
        else:
            self.hyper_map(ops.assign_add, self.grad_sum, grads)
            done = self.global_step % self.epoch_steps + 1
            count = (done - 1) % self.accumulation_steps + 1
            if count == self.accumulation_steps or done == self.epoch_steps:
                self.update(self.grad_sum, lr, count.astype(ms.float32))
                self.hyper_map(_clear, self.grad_sum)
        ops.assign_add(self.global_step, 1)
        bad_updates = self.bad_updates.astype(ms.float32)
        return ops.stack((loss, bad_updates, self.loss_scaler.scale_value + 0.0, self.stop + 0.0))

    def update(self, grads: tuple[Tensor, ...], lr: Tensor, count: float | Tensor) -> bool:
        """Change the weights, unless the gradients overflowed; adjust the loss scale.

        Args:
            grads: the sum over ``count`` calls.
            lr: learning rate.
            count: number of calls.
        """
        if self.world_size > 1:
            grads = self.grad_reducer(grads)
        factor = 1.0 / (self.loss_scaler.scale_value * count)
        norm = global_norm(grads) * factor
        finite = gradients_finite(grads, norm)
        if self.world_size > 1:
            finite = self.all_reduce(finite.astype(ms.float32)) == self.world_size
        bad = 1 - finite.astype(ms.int32)
        ops.assign_add(self.skipped_updates, bad)
        ops.assign(self.bad_updates, (self.bad_updates + 1) * bad)
        self.loss_scaler.adjust(finite)
        if self.clip_norm is not None:
            factor = factor * ops.minimum(self.clip_norm / (norm + 1e-6), 1.0)
        if not self.skip_overflow:
            self.apply(grads, factor, lr)
        elif finite:
            self.apply(grads, factor, lr)
        return True

    def apply(self, grads: tuple[Tensor, ...], factor: Tensor, lr: Tensor) -> bool:
        """One optimizer step with ``grads * factor``, then the moving average."""
        if self.rescales:
            grads = self.hyper_map(ops.partial(ops.mul, factor), grads)
        self.optimizer(grads, lr)
        if self.ema_decay is not None:
            self.hyper_map(ops.partial(_average, self.ema_decay), self.ema, self.weights)
        return True


# Dynamic loss scaling: halve on overflow, double after 2,000 good updates (MindCV's window).
_SCALE_FACTOR = 2
_SCALE_WINDOW = 2000


def build_step(
    recipe: Recipe,
    network: nn.Cell,
    with_loss: WithLoss,
    learning_rates: np.ndarray,
    epoch_steps: int,
    world_size: int,
) -> TrainStep:
    """Give the step that a recipe asks for.

    Args:
        recipe: its system and optimizer sections count.
        network: in training mode; changed to the recipe's AMP level.
        with_loss: puts the loss on it, see :data:`WithLoss`.
        learning_rates: of each step of the run, shape (steps,).
        epoch_steps: steps of an epoch.
        world_size: number of ranks.
    """
    system, settings = recipe.system, recipe.optimizer
    if settings.freeze_backbone:
        for parameter in network.get_parameters():
            parameter.requires_grad &= network.in_head(parameter.name)
    parameters = network.trainable_params()
    depths = [network.layer_of(parameter.name) for parameter in parameters]
    optimizer = OPTIMIZERS[settings.opt](
        parameters,
        weight_decay=settings.weight_decay,
        exempt_1d=settings.filter_bias_and_bn,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        lr_scales=[settings.layer_decay ** (max(depths) - depth) for depth in depths],
    )
    if system.loss_scale_type == "dynamic":
        scaler = DynamicLossScaler(system.loss_scale, _SCALE_FACTOR, _SCALE_WINDOW)
    else:
        scaler = StaticLossScaler(system.loss_scale)
    step = TrainStep(
        with_loss(network, system.amp_level),
        optimizer,
        Tensor(learning_rates),
        scaler,
        accumulation_steps=settings.gradient_accumulation_steps,
        epoch_steps=epoch_steps,
        skip_overflow=system.drop_overflow_update,
        clip_norm=settings.clip_value if settings.clip_grad else None,
        ema_decay=settings.ema_decay if settings.ema else None,
        world_size=world_size,
    )
    return step.set_train()
