"""A MetaFormer as it serves: scales of norms and activations folded into the layers behind them."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ..metaformer import Downsampling, MetaFormer, MetaFormerBlock, MlpHead
from ..parts.activations import squared_relu
from ..parts.convolutions import DepthwiseConv
from ..parts.layout import lay_for_device, move_channels_last, on_channels_last
from ..parts.mixers import Attend, Attention, ChannelsLastPooling, SepConv
from ..parts.norms import NORM_EPS, SampleNorm, center, standardize, standardize_channels
from .folding import copy_of, embed_like, fill, values_of


class DeployedMetaFormer(nn.Cell):
    """What to_deploy makes of a MetaFormer: images (N, C, H, W) to logits (N, classes).

    Let n(x) = g z be a norm, z the standardised map, and s relu(y)^2 + b a StarReLU.

    1. W n(x) = (W g) z: before a linear layer or a strided convolution a norm has no scale.
    2. Identity, pooling and random mixing commute with g, which comes last, once.
    3. pool(z) - z = (pool(x) - x) / deviation: pooling needs no mean.
    4. W2 (s r + b) = (s W2) r + b W2 1: a StarReLU in an MLP is relu(y)^2 and a bias behind W2.
       Before the depthwise convolution it stays: where that meets the border, b counts less.
    5. The head's norms go into the linear layers behind them, and attention's scale into q.

    Of a model with ``features_only`` there are the maps of :meth:`stage_maps` alone.
    """

    def __init__(self, model: MetaFormer) -> None:
        super().__init__()
        self.downsample_layers = nn.CellList(
            [DeployedDownsampling(part) for part in model.downsample_layers]
        )
        self.stages = nn.CellList(
            [
                nn.CellList([DeployedMetaFormerBlock(block) for block in part])
                for part in model.stages
            ]
        )
        if not model.features_only:
            gamma, beta = values_of(model.norm.gamma, model.norm.beta)
            if isinstance(model.head, MlpHead):
                self.head = DeployedMlpHead(model.head, gamma, beta)
            else:
                weight, bias = values_of(model.head.weight, model.head.bias)
                self.head = Linear(weight * gamma, weight @ beta + bias)
            self.num_classes = model.num_classes
        self.set_train(False)

    def construct(self, x: Tensor) -> Tensor:
        x = self._stages(x)[-1]
        pooled = x.astype(ms.float32).mean((1, 2))
        return self.head(standardize(pooled, NORM_EPS).astype(x.dtype))

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Give the map after each stage as the device likes it."""
        return [lay_for_device(x) for x in self._stages(x)]

    def _stages(self, x: Tensor) -> list[Tensor]:
        x = move_channels_last(x)
        maps = []
        for downsampling, stage in zip(self.downsample_layers, self.stages):
            x = downsampling(x)
            for block in stage:
                x = block(x)
            maps.append(x)
        return maps


class Linear(nn.Cell):
    """x W^T + b for x (..., I), of a weight (O, I), which is kept as (I, O)."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.ascontiguousarray(weight.T, np.float32)))
        self.has_bias = bias is not None
        if bias is not None:
            self.bias = Parameter(Tensor(bias.astype(np.float32)))
        self.product = ops.MatMul()

    def construct(self, x: Tensor) -> Tensor:
        inputs, outputs = self.weight.shape
        y = self.product(x.reshape(-1, inputs), self.weight.astype(x.dtype))
        if self.has_bias:
            y = y + self.bias.astype(x.dtype)
        return y.reshape(*x.shape[:-1], outputs)


class DeployedDownsampling(nn.Cell):
    """A strided convolution; the stem keeps the norm behind it."""

    def __init__(self, part: Downsampling) -> None:
        super().__init__()
        (weight,) = values_of(part.conv.weight)
        self.is_stem = part.is_stem
        if self.is_stem:
            self.gamma = Parameter(part.post_norm.gamma.value())
        else:
            (gamma,) = values_of(part.pre_norm.gamma)
            weight = weight * gamma[:, None, None]
        self.embed = embed_like(part.conv, weight)

    def construct(self, x: Tensor) -> Tensor:
        if self.is_stem:
            return standardize_channels(on_channels_last(self.embed, x), self.gamma)
        return on_channels_last(self.embed, standardize_channels(x))


class DeployedMlpHead(nn.Cell):
    """An MLP head, and before it a norm, without their scales and shifts."""

    def __init__(self, head: MlpHead, gamma: np.ndarray, beta: np.ndarray) -> None:
        super().__init__()
        weight_1, bias_1 = values_of(head.fc1.weight, head.fc1.bias)
        weight_2, bias_2 = values_of(head.fc2.weight, head.fc2.bias)
        inner_gamma, inner_beta = values_of(head.norm.gamma, head.norm.beta)
        self.fc1 = Linear(weight_1 * gamma, weight_1 @ beta + bias_1)
        self.fc2 = Linear(weight_2 * inner_gamma, weight_2 @ inner_beta + bias_2)
        self.eps = head.norm.epsilon

    def construct(self, x: Tensor) -> Tensor:
        hidden = squared_relu(self.fc1(x))
        return self.fc2(standardize(hidden, self.eps).astype(x.dtype))


class DeployedMetaFormerBlock(nn.Cell):
    """A block whose token mixer comes with its norm; see :class:`DeployedMetaFormer`."""

    def __init__(self, block: MetaFormerBlock) -> None:
        super().__init__()
        gamma_1, gamma_2 = values_of(block.norm1.gamma, block.norm2.gamma)
        self.mixer = _deployed_mixer(block.token_mixer, block.norm1, gamma_1)
        self.res_scale1, self.res_scale2 = copy_of(block.res_scale1), copy_of(block.res_scale2)
        self.standardize = _standardize(block.norm2)
        mlp = block.mlp
        weight_1, weight_2 = values_of(mlp.fc1.weight, mlp.fc2.weight)
        scale, bias = values_of(mlp.act.scale, mlp.act.bias)
        self.fc1 = Linear(weight_1 * gamma_2)
        self.fc2 = Linear(weight_2 * scale, bias * weight_2.sum(1))

    def construct(self, x: Tensor) -> Tensor:
        x = self.res_scale1(x) + self.mixer(x)
        y = self.fc2(squared_relu(self.fc1(self.standardize(x))))
        return self.res_scale2(x) + y


class DeployedPlaces(nn.Cell):
    """Identity or random mixing, and the norm before it, whose scale comes last."""

    def __init__(self, mixer: nn.Cell, norm: nn.Cell, gamma: np.ndarray) -> None:
        super().__init__()
        self.standardize, self.mixer = _standardize(norm), copy_of(mixer)
        self.scale = Parameter(Tensor(gamma.astype(np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        return self.mixer(self.standardize(x)) * self.scale.astype(x.dtype)


class DeployedPooling(nn.Cell):
    """Pooling, and the norm of each sample before it."""

    def __init__(self, gamma: np.ndarray) -> None:
        super().__init__()
        self.token_mixer = ChannelsLastPooling()
        self.scale = Parameter(Tensor(gamma.astype(np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        _, rstd = center(x, NORM_EPS)
        return (self.scale * rstd * self.token_mixer(x)).astype(x.dtype)


class DeployedSepConv(nn.Cell):
    """A separable convolution, and the norm before it."""

    def __init__(self, mixer: SepConv, norm: nn.Cell, gamma: np.ndarray) -> None:
        super().__init__()
        weight_1, weight_2 = values_of(mixer.pwconv1.weight, mixer.pwconv2.weight)
        self.standardize = _standardize(norm)
        self.pwconv1 = Linear(weight_1 * gamma)
        self.act1 = copy_of(mixer.act1)
        self.dwconv = DepthwiseConv(mixer.dwconv.in_channels, mixer.dwconv.kernel_size[0])
        fill(self.dwconv.weight, mixer.dwconv.weight.asnumpy())
        self.pwconv2 = Linear(weight_2)

    def construct(self, x: Tensor) -> Tensor:
        return self.pwconv2(self.dwconv(self.act1(self.pwconv1(self.standardize(x)))))


class DeployedAttention(nn.Cell):
    """Self-attention, and the norm before it."""

    def __init__(self, mixer: Attention, norm: nn.Cell, gamma: np.ndarray) -> None:
        super().__init__()
        qkv, proj = values_of(mixer.qkv.weight, mixer.proj.weight)
        scales = np.repeat([mixer.attend.scale, 1, 1], len(qkv) // 3)
        self.standardize = _standardize(norm)
        self.qkv = Linear(qkv * gamma * scales[:, None])
        self.attend = Attend(1.0)
        self.proj = Linear(proj)

    def construct(self, x: Tensor) -> Tensor:
        return self.proj(self.attend(self.qkv(self.standardize(x))))


class _Standardize(nn.Cell):
    """A norm without its scale."""

    def __init__(self, over_sample: bool) -> None:
        super().__init__()
        self.over_sample = over_sample

    def construct(self, x: Tensor) -> Tensor:
        if self.over_sample:
            return standardize(x, NORM_EPS).astype(x.dtype)
        return standardize_channels(x)


def _standardize(norm: nn.Cell) -> _Standardize:
    return _Standardize(isinstance(norm, SampleNorm))


def _deployed_mixer(mixer: nn.Cell, norm: nn.Cell, gamma: np.ndarray) -> nn.Cell:
    if isinstance(mixer, ChannelsLastPooling) and isinstance(norm, SampleNorm):
        return DeployedPooling(gamma)
    if isinstance(mixer, SepConv):
        return DeployedSepConv(mixer, norm, gamma)
    if isinstance(mixer, Attention):
        return DeployedAttention(mixer, norm, gamma)
    return DeployedPlaces(mixer, norm, gamma)
