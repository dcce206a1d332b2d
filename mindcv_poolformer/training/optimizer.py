"""AdamW and LAMB with the official decay groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

_adam = ops.Adam()


def global_norm(tensors: tuple[Tensor, ...]) -> Tensor:
    """Give the L2 norm of all tensors together, as a float32 scalar."""
    return ops.sqrt(ops.addn(ops.HyperMap()(_sum_of_squares, tensors)))


def _sum_of_squares(x: Tensor) -> Tensor:
    x = x.astype(ms.float32)
    return (x * x).sum()  # MindSpore 2.10's L2Loss is slower, and off by 3e-4 on the CPU


class Moments(nn.Cell):
    """What AdamW and LAMB have in common: running means of each gradient and of its square.

    Args:
        parameters: the parameters to train; gradients come in this order.
        weight_decay: decay per unit of learning rate.
        exempt_1d: leave out of the decay what has one dimension: norms, biases and scales, as the
            official recipes (timm's ``param_groups_weight_decay``).
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        lr_scales: factor on the learning rate of each parameter, None for 1.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        weight_decay: float,
        exempt_1d: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        lr_scales: Sequence[float] | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.decays = tuple(
            0.0 if exempt_1d and p.ndim <= 1 else float(weight_decay) for p in parameters
        )
        self.lr_scales = tuple(lr_scales) if lr_scales else (1.0,) * len(self.decays)
        self.beta1, self.beta2 = betas
        self.eps = eps
        self.exp_avg = self.parameters.clone(prefix="exp_avg", init="zeros")
        self.exp_avg_sq = self.parameters.clone(prefix="exp_avg_sq", init="zeros")
        self.step = Parameter(Tensor(0, ms.int32), name="optimizer_step", requires_grad=False)
        self.hyper_map = ops.HyperMap()

    def powers(self) -> tuple[Tensor, Tensor]:
        """Count an update; give beta1 and beta2 to the power of its number, counted from 1."""
        step = ops.depend(self.step, ops.assign_add(self.step, 1)).astype(ms.float32)
        return ops.pow(self.beta1, step), ops.pow(self.beta2, step)

    def apply_to_each(self, rule: Callable, gradients: tuple[Tensor, ...]) -> bool:
        """Update each parameter by its decay, learning rate factor, moments and gradient."""
        self.hyper_map(
            rule,
            self.decays,
            self.lr_scales,
            self.parameters,
            self.exp_avg,
            self.exp_avg_sq,
            gradients,
        )
        return True


class AdamW(Moments):
    """AdamW with bias correction (arXiv 1711.05101, algorithm 2), as PyTorch's.

    One fused operator per parameter: the framework's Adam with the learning rate and epsilon of
    the step, after the weights have shrunk by ``lr * weight_decay``. MindSpore's own
    ``nn.AdamWeightDecay`` corrects no bias; ``experimental.optim.AdamW`` is a dozen unfused passes
    over the weights and keeps a third buffer. Arguments as :class:`Moments`.
    """

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> bool:
        power1, power2 = self.powers()
        eps = self.eps * ops.sqrt(1.0 - power2)
        rule = ops.partial(_adamw, lr, self.beta1, self.beta2, power1, power2, eps)
        return self.apply_to_each(rule, gradients)


class Lamb(Moments):
    """LAMB (arXiv 1904.00962, algorithm 2) as timm's, which CAFormer was trained with.

    The update of a weight, its decay included, gets the norm of the weight itself. What does not
    decay moves as under Adam. timm's bound of 1 on the norm of all gradients together is the
    training step's to keep: ``clip_grad`` and ``clip_value``. MindSpore's ``nn.Lamb``, which is
    MindCV's too, scales what does not decay like the rest, and runs on Ascend alone. Arguments as
    :class:`Moments`.
    """

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> bool:
        power1, power2 = self.powers()
        rule = ops.partial(_lamb, lr, self.beta1, self.beta2, power1, power2, self.eps)
        return self.apply_to_each(rule, gradients)


def _adamw(
    lr: Tensor,
    beta1: float,
    beta2: float,
    power1: Tensor,
    power2: Tensor,
    eps: Tensor,
    decay: float,
    lr_scale: float,
    weight: Parameter,
    exp_avg: Parameter,
    exp_avg_sq: Parameter,
    gradient: Tensor,
) -> bool:
    if lr_scale != 1.0:
        lr = lr * lr_scale
    if decay > 0.0:
        ops.assign(weight, weight * (1.0 - lr * decay))
    _adam(weight, exp_avg, exp_avg_sq, power1, power2, lr, beta1, beta2, eps, gradient)
    return True


def _lamb(
    lr: Tensor,
    beta1: float,
    beta2: float,
    power1: Tensor,
    power2: Tensor,
    eps: float,
    decay: float,
    lr_scale: float,
    weight: Parameter,
    exp_avg: Parameter,
    exp_avg_sq: Parameter,
    gradient: Tensor,
) -> bool:
    mean = exp_avg * beta1 + gradient * (1.0 - beta1)
    square = exp_avg_sq * beta2 + gradient * gradient * (1.0 - beta2)
    update = mean / (1.0 - power1) / (ops.sqrt(square / (1.0 - power2)) + eps)
    if decay > 0.0:
        update = update + weight * decay
        norm, wanted = ops.sqrt(_sum_of_squares(update)), ops.sqrt(_sum_of_squares(weight))
        update = update * ops.where(ops.logical_and(norm > 0, wanted > 0), wanted / norm, 1.0)
    moved = weight - update * (lr * lr_scale)
    ops.assign(exp_avg, mean)
    ops.assign(exp_avg_sq, square)
    ops.assign(weight, moved)
    return True


OPTIMIZERS = {"adamw": AdamW, "lamb": Lamb}  # by the recipe's opt
