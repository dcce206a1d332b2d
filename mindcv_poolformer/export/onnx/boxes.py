"""Anchors, boxes and what is left of them as nodes of an ONNX graph, of one image."""

from __future__ import annotations

import math

from ...models.dense.anchors import Anchors, boxes_around_origin
from ...models.dense.box_coding import LARGEST_STRETCH, UNIT, Deviations
from ...models.dense.mask_rcnn import TwoPasses
from ...models.dense.retinanet import Selection
from .builder import Builder


def by_anchor(graph: Builder, x: str, *shape: int) -> str:
    """Lay a map (1, C, h, w) place by place, in a shape."""
    x = graph.node("Transpose", x, perm=[0, 2, 3, 1])
    return graph.node("Reshape", x, graph.integers(*shape))


def anchors_of(graph: Builder, which: str, x: str, stride: int, anchors: Anchors) -> str:
    """Give the anchors of these numbers (n,) on a level, (n, 4).

    Args:
        graph: gets the nodes.
        which: int64, place by place.
        x: a map of the level's height and width.
        stride: of the level.
        anchors: of all levels.
    """
    place, kind = divided(graph, which, graph.integers(anchors.per_place))
    width = graph.node("Shape", x, start=3)
    corner = divided(graph, place, width)[::-1]  # x, y
    column = graph.integers(1)
    corners = graph.node(
        "Concat", *[graph.node("Unsqueeze", edge, column) for edge in corner * 2], axis=1
    )
    corners = graph.node("Cast", corners, to=graph.onnx.TensorProto.FLOAT)
    around = boxes_around_origin(stride, anchors.ratios, anchors.scales)
    # Not as a constant matrix: it would be stored in float16 with the weights.
    table = graph.node("Reshape", graph.constant(around.ravel()), graph.integers(-1, 4))
    corners = graph.node("Mul", corners, graph.constant(stride))
    return graph.node("Add", corners, graph.node("Gather", table, kind))


def divided(graph: Builder, x: str, divisor: str) -> tuple[str, str]:
    """Quotient and remainder of integers that are not negative."""
    return graph.node("Div", x, divisor), graph.node("Mod", x, divisor)


def decoded(graph: Builder, anchors: str, deltas: str, deviations: Deviations = UNIT) -> str:
    """As :func:`decode`, (n, 4)."""
    moves, growth = graph.columns(deltas, 0, 2), graph.columns(deltas, 2, 4)
    if deviations != UNIT:
        moves = graph.node("Mul", moves, graph.constant(deviations.centre))
        growth = graph.node("Mul", growth, graph.constant(deviations.size))
    begin, end = graph.columns(anchors, 0, 2), graph.columns(anchors, 2, 4)
    half = graph.constant(0.5)
    centre = graph.node("Mul", graph.node("Add", begin, end), half)
    size = graph.node("Sub", end, begin)
    ends = [graph.constant(sign * math.log(LARGEST_STRETCH)) for sign in (-1, 1)]
    stretch = graph.node("Exp", graph.node("Clip", growth, *ends))
    centre = graph.node("Add", centre, graph.node("Mul", size, moves))
    halves = graph.node("Mul", half, graph.node("Mul", size, stretch))
    return graph.node(
        "Concat", graph.node("Sub", centre, halves), graph.node("Add", centre, halves), axis=1
    )


def clipped(graph: Builder, boxes: str, shapes: str) -> str:
    """As :func:`clip`, (n, 4) by shapes (1, 2) int32."""
    ends = graph.node("Gather", graph.node("Squeeze", shapes), graph.integers(1, 0, 1, 0))
    ends = graph.node("Cast", ends, to=graph.onnx.TensorProto.FLOAT)
    return graph.node("Min", graph.node("Relu", boxes), ends)


def survivors(
    graph: Builder, boxes: str, scores: str, most: int, iou_threshold: float, score_threshold: float
) -> str:
    """Give the places, (n,) int64, of boxes that no better one suppresses, the best first.

    Args:
        graph: gets the nodes.
        boxes: (m, 4).
        scores: (m,).
        most: as many are given at most.
        iou_threshold: two of them overlap by no more.
        score_threshold: their scores exceed it.
    """
    stays = graph.node(
        "NonMaxSuppression",
        graph.node("Unsqueeze", boxes, graph.integers(0)),
        graph.node("Unsqueeze", scores, graph.integers(0, 1)),
        graph.integers(most),
        graph.constant([iou_threshold]),
        graph.constant([score_threshold]),
    )  # (n, 3): image, class, and the box's place
    return graph.node("Reshape", graph.columns(stays, 2, 3), graph.integers(-1))


def best_by_label(
    graph: Builder, boxes: str, scores: str, labels: str, selection: Selection | TwoPasses
) -> list[str]:
    """As :func:`dense.nms.best_by_label`, of one image: (1, D, 4), (1, D), (1, D) and (1,)."""
    proto, threshold = graph.onnx.TensorProto, graph.constant(selection.score_threshold)
    counts = graph.node("Cast", graph.node("Greater", scores, threshold), to=proto.FLOAT)
    column = graph.integers(1)
    reach = graph.node("Mul", boxes, graph.node("Unsqueeze", counts, column))
    reach = graph.node("Add", graph.node("ReduceMax", reach, keepdims=0), graph.constant(1.0))
    offset = graph.node("Mul", graph.node("Cast", labels, to=proto.FLOAT), reach)
    apart = graph.node("Add", boxes, graph.node("Unsqueeze", offset, column))
    most, least = selection.detections, selection.score_threshold
    stays = survivors(graph, apart, scores, most, selection.iou_threshold, least)
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
