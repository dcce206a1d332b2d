"""A RetinaNet's deploy form as nodes of an ONNX graph, which takes one image."""

from __future__ import annotations

import math

from ...models.dense.anchors import boxes_around_origin
from ...models.dense.box_coding import LARGEST_STRETCH
from ...models.dense.retinanet import RetinaNetHead, Selection
from ...models.deploy.retinanet import DeployedRetinaNet
from .builder import Builder
from .fpn import add_pyramid


def add_retinanet(graph: Builder, images: str, shapes: str, model: DeployedRetinaNet) -> list[str]:
    """As :meth:`RetinaNet.detect`: boxes (1, D, 4), scores (1, D), labels (1, D) and count (1,).

    Labels and count are int32; shapes (1, 2) are too.
    """
    selection = model.selection
    levels = add_pyramid(graph, images, model.backbone, model.neck)
    found = [
        _candidates(graph, x, stride, model.bbox_head, selection)
        for x, stride in zip(levels, selection.anchors.strides, strict=True)
    ]
    boxes, scores, labels = (
        graph.node("Concat", *each, axis=0) for each in zip(*found, strict=True)
    )
    ends = graph.node("Gather", graph.node("Squeeze", shapes), graph.integers(1, 0, 1, 0))
    ends = graph.node("Cast", ends, to=graph.onnx.TensorProto.FLOAT)
    boxes = graph.node("Min", graph.node("Relu", boxes), ends)
    return _best(graph, boxes, scores, labels, selection)


def _candidates(
    graph: Builder, x: str, stride: int, head: RetinaNetHead, selection: Selection
) -> tuple[str, str, str]:
    """Boxes (n, 4), scores (n,) and labels (n,) int64 of a level, as Selection.candidates."""
    of_classes = of_boxes = x
    for conv in head.cls_convs:
        of_classes = graph.node("Relu", graph.conv(of_classes, conv.conv))
    for conv in head.reg_convs:
        of_boxes = graph.node("Relu", graph.conv(of_boxes, conv.conv))
    logits, deltas = (
        graph.node("Reshape", graph.node("Transpose", y, perm=[0, 2, 3, 1]), graph.integers(*shape))
        for y, shape in (
            (graph.conv(of_classes, head.retina_cls), (-1,)),
            (graph.conv(of_boxes, head.retina_reg), (-1, 4)),
        )
    )
    best, pair = graph.top(logits, selection.most_candidates)
    which, label = _divided(graph, pair, graph.integers(selection.num_classes))
    place, kind = _divided(graph, which, graph.integers(selection.anchors.per_place))
    width = graph.node("Shape", x, start=3)
    corner = _divided(graph, place, width)[::-1]  # x, y
    column = graph.integers(1)
    corners = graph.node(
        "Concat", *[graph.node("Unsqueeze", edge, column) for edge in corner * 2], axis=1
    )
    corners = graph.node("Cast", corners, to=graph.onnx.TensorProto.FLOAT)
    around = boxes_around_origin(stride, selection.anchors.ratios, selection.anchors.scales)
    # Not as a constant matrix: it would be stored in float16 with the weights.
    table = graph.node("Reshape", graph.constant(around.ravel()), graph.integers(-1, 4))
    corners = graph.node("Mul", corners, graph.constant(stride))
    anchors = graph.node("Add", corners, graph.node("Gather", table, kind))
    boxes = _decoded(graph, anchors, graph.node("Gather", deltas, which))
    return boxes, graph.node("Sigmoid", best), label


def _divided(graph: Builder, x: str, divisor: str) -> tuple[str, str]:
    """Quotient and remainder of integers that are not negative."""
    return graph.node("Div", x, divisor), graph.node("Mod", x, divisor)


def _decoded(graph: Builder, anchors: str, deltas: str) -> str:
    """As :func:`decode`, (n, 4)."""
    begin, end = graph.columns(anchors, 0, 2), graph.columns(anchors, 2, 4)
    half = graph.constant(0.5)
    centre = graph.node("Mul", graph.node("Add", begin, end), half)
    size = graph.node("Sub", end, begin)
    ends = [graph.constant(sign * math.log(LARGEST_STRETCH)) for sign in (-1, 1)]
    stretch = graph.node("Exp", graph.node("Clip", graph.columns(deltas, 2, 4), *ends))
    centre = graph.node("Add", centre, graph.node("Mul", size, graph.columns(deltas, 0, 2)))
    halves = graph.node("Mul", half, graph.node("Mul", size, stretch))
    return graph.node(
        "Concat", graph.node("Sub", centre, halves), graph.node("Add", centre, halves), axis=1
    )


def _best(graph: Builder, boxes: str, scores: str, labels: str, selection: Selection) -> list[str]:
    """As :func:`best_by_label`, of one image."""
    proto, threshold = graph.onnx.TensorProto, graph.constant(selection.score_threshold)
    counts = graph.node("Cast", graph.node("Greater", scores, threshold), to=proto.FLOAT)
    column, row = graph.integers(1), graph.integers(0)
    reach = graph.node("Mul", boxes, graph.node("Unsqueeze", counts, column))
    reach = graph.node("Add", graph.node("ReduceMax", reach, keepdims=0), graph.constant(1.0))
    offset = graph.node("Mul", graph.node("Cast", labels, to=proto.FLOAT), reach)
    apart = graph.node("Add", boxes, graph.node("Unsqueeze", offset, column))
    stays = graph.node(
        "NonMaxSuppression",
        graph.node("Unsqueeze", apart, row),
        graph.node("Unsqueeze", scores, graph.integers(0, 1)),
        graph.integers(selection.detections),
        graph.constant([selection.iou_threshold]),
        graph.constant([selection.score_threshold]),
    )  # (n, 3): image, class, and the box's place
    stays = graph.node("Reshape", graph.columns(stays, 2, 3), graph.integers(-1))
    count = graph.node("Shape", stays)
    missing = graph.node("Sub", graph.integers(selection.detections), count)
    found = []
    for x, shape in ((boxes, (1, -1, 4)), (scores, (1, -1)), (labels, (1, -1))):
        values = graph.node("Reshape", graph.node("Gather", x, stays), graph.integers(-1))
        zeros = graph.node("Mul", missing, graph.integers(4 if x == boxes else 1))
        pads = graph.node("Concat", graph.integers(0), zeros, axis=0)
        found.append(graph.node("Reshape", graph.node("Pad", values, pads), graph.integers(*shape)))
    return [
        *found[:2],
        graph.node("Cast", found[2], to=proto.INT32),
        graph.node("Cast", count, to=proto.INT32),
    ]
