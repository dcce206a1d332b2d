"""A RetinaNet's deploy form as nodes of an ONNX graph, which takes one image."""

from __future__ import annotations

from ...models.dense.retinanet import RetinaNetHead, Selection
from ...models.deploy.retinanet import DeployedRetinaNet
from .boxes import anchors_of, best_by_label, by_anchor, clipped, decoded, divided
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
    return best_by_label(graph, clipped(graph, boxes, shapes), scores, labels, selection)


def _candidates(
    graph: Builder, x: str, stride: int, head: RetinaNetHead, selection: Selection
) -> tuple[str, str, str]:
    """Boxes (n, 4), scores (n,) and labels (n,) int64 of a level, as Selection.candidates."""
    of_classes = of_boxes = x
    for conv in head.cls_convs:
        of_classes = graph.node("Relu", graph.conv(of_classes, conv.conv))
    for conv in head.reg_convs:
        of_boxes = graph.node("Relu", graph.conv(of_boxes, conv.conv))
    logits = by_anchor(graph, graph.conv(of_classes, head.retina_cls), -1)
    deltas = by_anchor(graph, graph.conv(of_boxes, head.retina_reg), -1, 4)
    best, pair = graph.top(logits, selection.most_candidates)
    which, label = divided(graph, pair, graph.integers(selection.num_classes))
    anchors = anchors_of(graph, which, x, stride, selection.anchors)
    boxes = decoded(graph, anchors, graph.node("Gather", deltas, which))
    return boxes, graph.node("Sigmoid", best), label
