"""The deploy form as a graph of standard operators, built of its weights.

MindSpore 2.10's own ONNX export refuses a dynamic batch, and on a CPU it would see the maps as
``models/parts/layout.py`` lays and ``convolutions.py`` multiplies them there.
"""

from __future__ import annotations

from pathlib import Path

from ...models.dense.mask_rcnn_heads import MASK_EDGE
from ...models.deploy import Deployed
from ...models.deploy.hybrid import DeployedHybrid
from ...models.deploy.mask_rcnn import DeployedMaskRCNN
from ...models.deploy.metaformer import DeployedMetaFormer
from ...models.deploy.retinanet import DeployedRetinaNet
from ...models.deploy.semantic_fpn import DeployedSemanticFPN
from ..description import AnyTransform
from ..ends import detector_ends, image_ends
from ..image_size import Size
from .builder import Builder
from .hybrid import add_hybrid
from .mask_rcnn import add_mask_rcnn
from .metaformer import add_metaformer
from .poolformer import add_poolformer
from .retinanet import add_retinanet
from .semantic_fpn import add_semantic_fpn

OPSET = 17  # of 2022, and the file format of its time: old runtimes read them too
IR_VERSION = 8


def write_onnx(
    model: Deployed,
    path: Path,
    transform: AnyTransform,
    *,
    batch_size: int | None = None,
    image_size: Size | None = None,
    half: bool = False,
    takes: str = "float32",
    gives: str = "logits",
) -> None:
    """Write an ONNX graph, checked by ONNX's checker; its ends are named as the MINDIR's.

    Args:
        model: the deploy form, float32.
        path: of the file.
        transform: normalises what a graph that takes uint8 gets.
        batch_size: the only one that the graph takes, None for any; a detector's takes one image.
        image_size: height and width of its images, None for any.
        half: store the weights in float16; arithmetic is in float32.
        takes: "float32", normalised images (N, C, H, W), or "uint8", pixels (N, H, W, C).
        gives: "logits" or "probabilities".
    """
    import onnx
    from onnx import TensorProto, helper

    types = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int32": TensorProto.INT32}
    graph = Builder(half)
    if isinstance(model, DeployedRetinaNet):
        detections = model.selection.detections
        inputs, outputs = detector_ends(len(transform.mean), detections, image_size)
        names = add_retinanet(graph, "images", "shapes", model)
    elif isinstance(model, DeployedMaskRCNN):
        channels = len(transform.mean)
        inputs, outputs = detector_ends(channels, model.detections, image_size, MASK_EDGE)
        names = add_mask_rcnn(graph, "images", "shapes", model)
    else:
        inputs, outputs = image_ends(
            len(transform.mean),
            model.num_classes,
            batch_size=batch_size,
            image_size=image_size,
            takes=takes,
            gives=gives,
            segments=isinstance(model, DeployedSemanticFPN),
        )
        x = graph.normalize("images", transform) if takes == "uint8" else "images"
        logits = _add_network(graph, x, model)
        probabilities = gives == "probabilities"
        names = [graph.node("Softmax", logits, axis=-1) if probabilities else logits]
    for name, end in zip(names, outputs, strict=True):
        graph.node("Identity", name, output=end.name)
    told_inputs, told_outputs = (
        [helper.make_tensor_value_info(end.name, types[end.dtype], end.shape) for end in ends]
        for ends in (inputs, outputs)
    )
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "poolformer", told_inputs, told_outputs, graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mindcv_poolformer",
    )
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def _add_network(graph: Builder, x: str, model: Deployed) -> str:
    if isinstance(model, DeployedSemanticFPN):
        return add_semantic_fpn(graph, x, model)
    if isinstance(model, DeployedMetaFormer):
        return add_metaformer(graph, x, model)
    if isinstance(model, DeployedHybrid):
        return add_hybrid(graph, x, model)
    return add_poolformer(graph, x, model)
