"""A Mask R-CNN's deploy form as nodes of an ONNX graph, which takes one image."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import nn

from ...models.dense.box_coding import OF_PROPOSALS
from ...models.dense.mask_rcnn import OVERLAP_OF_PROPOSALS
from ...models.dense.mask_rcnn_heads import (
    BOX_SIZE,
    MASK_EDGE,
    MASK_SIZE,
    STRIDES,
    BoxHead,
    MaskHead,
)
from ...models.dense.roi_align import FINEST
from ...models.deploy.mask_rcnn import DeployedMaskRCNN
from .boxes import anchors_of, best_by_label, by_anchor, clipped, decoded, divided, survivors
from .builder import Builder
from .fpn import add_pyramid

SURELY_NONE = -87.0  # a logit, whose sigmoid is next to nothing in float32


def add_mask_rcnn(graph: Builder, images: str, shapes: str, model: DeployedMaskRCNN) -> list[str]:
    """As :meth:`MaskRCNN.detect`: boxes (1, D, 4), scores (1, D), labels (1, D), count (1,) and
    masks (1, D, 28, 28), which are 0 beyond the count as the others are.

    Labels and count are int32; shapes (1, 2) are too.
    """
    levels = add_pyramid(graph, images, model.backbone, model.neck)
    coarsest = graph.node("MaxPool", levels[-1], kernel_shape=[1, 1], strides=[2, 2])
    proposals = _proposals(graph, [*levels, coarsest], shapes, model)
    found = best_by_label(graph, *_candidates(graph, levels, proposals, shapes, model), model)
    count = graph.node("Cast", found[3], to=graph.onnx.TensorProto.INT64)
    first, batch = graph.integers(0), graph.integers(0)
    boxes, labels = (
        graph.node("Slice", graph.node("Squeeze", x, batch), first, count)
        for x in (found[0], found[2])
    )
    masks = _masks(graph, levels, boxes, labels, model.roi_head.mask_head)
    missing = graph.node("Sub", graph.integers(model.detections), count)
    pads = graph.node("Concat", graph.integers(0, 0, 0), missing, graph.integers(0, 0), axis=0)
    masks = graph.node("Pad", masks, pads)
    shape = graph.integers(1, model.detections, MASK_EDGE, MASK_EDGE)
    return [*found, graph.node("Reshape", masks, shape)]


def _proposals(graph: Builder, levels: Sequence[str], shapes: str, model: DeployedMaskRCNN) -> str:
    """Boxes (n, 4) as :meth:`TwoPasses.propose` has them, without filling."""
    head, found = model.rpn_head, []
    for x, stride in zip(levels, model.anchors.strides, strict=True):
        x = graph.node("Relu", graph.conv(x, head.rpn_conv))
        # By logits: ONNX Runtime's sigmoid is 0 where that of float32 still tells boxes apart.
        logits = by_anchor(graph, graph.conv(x, head.rpn_cls), -1)
        logits, which = graph.top(logits, model.proposals_per_level)
        deltas = by_anchor(graph, graph.conv(x, head.rpn_reg), -1, 4)
        anchors = anchors_of(graph, which, x, stride, model.anchors)
        boxes = decoded(graph, anchors, graph.node("Gather", deltas, which))
        boxes = clipped(graph, boxes, shapes)
        logits = graph.node(
            "Where", _have_area(graph, boxes), logits, graph.constant(2 * SURELY_NONE)
        )
        most = model.proposals_per_level
        stays = survivors(graph, boxes, logits, most, OVERLAP_OF_PROPOSALS, SURELY_NONE)
        found.append((graph.node("Gather", boxes, stays), graph.node("Gather", logits, stays)))
    boxes, logits = (graph.node("Concat", *each, axis=0) for each in zip(*found, strict=True))
    _, order = graph.top(logits, model.proposals)
    return graph.node("Gather", boxes, order)


def _have_area(graph: Builder, boxes: str) -> str:
    """Whether boxes (n, 4) are wide and high: (n,) bool."""
    sizes = graph.node("Sub", graph.columns(boxes, 2, 4), graph.columns(boxes, 0, 2))
    least = graph.node("ReduceMin", sizes, axes=[1], keepdims=0)
    return graph.node("Greater", least, graph.constant(0.0))


def _candidates(
    graph: Builder, levels: Sequence[str], proposals: str, shapes: str, model: DeployedMaskRCNN
) -> tuple[str, str, str]:
    """Boxes (n, 4), scores (n,) and labels (n,) int64, as :meth:`TwoPasses.candidates`."""
    x = values_within(graph, levels, proposals, BOX_SIZE)
    logits, deltas = _look(graph, x, model.roi_head.bbox_head)
    scores = graph.columns(graph.node("Softmax", logits, axis=1), 0, model.num_classes)
    scores = graph.node("Reshape", scores, graph.integers(-1))
    scores, pair = graph.top(scores, model.most_candidates)
    which, label = divided(graph, pair, graph.integers(model.num_classes))
    deltas = graph.node("Gather", graph.node("Reshape", deltas, graph.integers(-1, 4)), pair)
    boxes = decoded(graph, graph.node("Gather", proposals, which), deltas, OF_PROPOSALS)
    return clipped(graph, boxes, shapes), scores, label


def _look(graph: Builder, x: str, head: BoxHead) -> tuple[str, str]:
    """Logits (n, classes + 1) and differences (n, 4 classes) of values (n, C, 7, 7)."""
    x = graph.node("Flatten", x)
    for layer in head.shared_fcs:
        x = graph.node("Relu", _dense(graph, x, layer))
    return _dense(graph, x, head.fc_cls), _dense(graph, x, head.fc_reg)


def _dense(graph: Builder, x: str, layer: nn.Dense) -> str:
    weight, bias = layer.weight.asnumpy(), layer.bias.asnumpy()
    return graph.node("Gemm", x, graph.constant(weight), graph.constant(bias), transB=1)


def _masks(graph: Builder, levels: Sequence[str], boxes: str, labels: str, head: MaskHead) -> str:
    """Probabilities (n, 28, 28) of the own classes of boxes (n, 4), labels (n,) int32."""
    x = values_within(graph, levels, boxes, MASK_SIZE)
    for module in head.convs:
        x = graph.node("Relu", graph.conv(x, module.conv))
    weight, bias = (graph.constant(p.asnumpy()) for p in (head.upsample.weight, head.upsample.bias))
    x = graph.node("ConvTranspose", x, weight, bias, kernel_shape=[2, 2], strides=[2, 2])
    x = graph.conv(graph.node("Relu", x), head.conv_logits)
    own = graph.node("Cast", labels, to=graph.onnx.TensorProto.INT64)
    own = graph.node("Unsqueeze", own, graph.integers(1))
    return graph.node("Sigmoid", graph.node("GatherND", x, own, batch_dims=1))


def values_within(graph: Builder, levels: Sequence[str], boxes: str, size: int) -> str:
    """As :func:`dense.mask_rcnn_heads.values_within`: (n, C, size, size) of boxes (n, 4)."""
    level = _level_of(graph, boxes, len(levels))
    numbers, values = [], []
    for index, (x, stride) in enumerate(zip(levels, STRIDES)):
        here = graph.node("NonZero", graph.node("Equal", level, graph.integers(index)))
        here = graph.node("Reshape", here, graph.integers(-1))
        first = graph.node("Mul", here, graph.integers(0))  # of the batch, which is one image
        numbers.append(here)
        values.append(
            graph.node(
                "RoiAlign",
                x,
                graph.node("Gather", boxes, here),
                first,
                output_height=size,
                output_width=size,
                sampling_ratio=0,  # as many points as a bin has cells, as the network has them
                spatial_scale=1 / stride,
                coordinate_transformation_mode="half_pixel",
            )
        )
    # In the order of the boxes again.
    order = graph.node("Concat", *numbers, axis=0)
    _, back = graph.top(order, largest=False)
    return graph.node("Gather", graph.node("Concat", *values, axis=0), back)


def _level_of(graph: Builder, boxes: str, levels: int) -> str:
    """As :func:`level_of`, (n,) int64."""
    sizes = graph.node("Sub", graph.columns(boxes, 2, 4), graph.columns(boxes, 0, 2))
    area = graph.node("Mul", graph.columns(sizes, 0, 1), graph.columns(sizes, 1, 2))
    size = graph.node("Div", graph.node("Sqrt", area), graph.constant(FINEST))
    size = graph.node("Add", size, graph.constant(1e-6))  # (n, 1)
    from_here_on = graph.constant([2.0**doublings for doublings in range(1, levels)])
    reached = graph.node("GreaterOrEqual", size, from_here_on)
    reached = graph.node("Cast", reached, to=graph.onnx.TensorProto.INT64)
    return graph.node("ReduceSum", reached, graph.integers(1), keepdims=0)
