"""The deploy form as a graph of standard operators, built of its weights.

MindSpore 2.10's own ONNX export refuses a dynamic batch, and on a CPU it would see the maps as
``models/parts/layout.py`` lays and ``convolutions.py`` multiplies them there.
"""

from __future__ import annotations

from pathlib import Path

from ...data.preprocess import EvalTransform
from ...data.segmentation.fitting import EvalTransform as SceneTransform
from ...models.deploy import Deployed
from ...models.deploy.hybrid import DeployedHybrid
from ...models.deploy.metaformer import DeployedMetaFormer
from ...models.deploy.semantic_fpn import DeployedSemanticFPN
from ..image_size import Size, map_size
from .builder import Builder
from .hybrid import add_hybrid
from .metaformer import add_metaformer
from .poolformer import add_poolformer
from .semantic_fpn import add_semantic_fpn

OPSET = 17  # of 2022, and the file format of its time: old runtimes read them too
IR_VERSION = 8


def write_onnx(
    model: Deployed,
    path: Path,
    transform: EvalTransform | SceneTransform,
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
        batch_size: the only one that the graph takes, None for any.
        image_size: height and width of its images, None for any.
        half: store the weights in float16; arithmetic is in float32.
        takes: "float32", normalised images (N, C, H, W), or "uint8", pixels (N, H, W, C).
        gives: "logits" or "probabilities".
    """
    import onnx
    from onnx import TensorProto, helper

    pixels = takes == "uint8"
    graph = Builder(half)
    x = graph.normalize("images", transform) if pixels else "images"
    logits = _add_network(graph, x, model)
    kind, settings = ("Softmax", {"axis": -1}) if gives == "probabilities" else ("Identity", {})
    graph.node(kind, logits, output=gives, **settings)
    batch, size = batch_size or "batch", image_size or ("height", "width")
    channels = len(transform.mean)
    image = [*size, channels] if pixels else [channels, *size]
    element = TensorProto.UINT8 if pixels else TensorProto.FLOAT
    answer = [batch, model.num_classes]
    if isinstance(model, DeployedSemanticFPN):
        answer += map_size(image_size) if image_size else ("map_height", "map_width")
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "poolformer",
            [helper.make_tensor_value_info("images", element, [batch, *image])],
            [helper.make_tensor_value_info(gives, TensorProto.FLOAT, answer)],
            graph.weights,
        ),
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
