"""Compile for an Ascend device that is not there, and tell what the graphs consist of.

    python tests/ascend/compile_for.py <<< "MODEL WHAT DEVICE [shallow] [KEY=VALUE ...]"

compiles a graph for each line, and answers each with one of JSON. WHAT is train, train2 (of two
ranks), validate or export; DEVICE is Ascend910B2 or Ascend910A. Only MindSpore's front end
compiles, which takes the device that Cells and operators ask for from one function: this one
answers Ascend. The keys are of the recipe configs/MODEL_ascend.yaml; shallow leaves one block of
the first stage and one of the last, which have the operators of all.
"""

from __future__ import annotations

import os

os.environ["MINDCV_POOLFORMER_CPU_TUNING"] = "0"  # as on a host with NPUs
os.environ["GLOG_v"] = "3"

import mindcv_poolformer  # noqa: F401

# isort: split
import json
import sys
from collections import Counter
from dataclasses import replace

import mindspore as ms
from mindspore import Tensor, amp, context, nn
from mindspore.ops.primitive import constexpr

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.evaluation.detection import Detecting
from mindcv_poolformer.export.graph import ServedGraph, in_float16
from mindcv_poolformer.models.dense import entry_points
from mindcv_poolformer.models.deploy import leave_out_ascend_operators, to_deploy
from mindcv_poolformer.models.registry import register
from mindcv_poolformer.models.variants import DETECTORS, PREFIX, VARIANTS
from mindcv_poolformer.runtime.amp import mixed_precision
from mindcv_poolformer.runtime.graph_dump import GraphDump, dumped_graphs, read_dump
from mindcv_poolformer.tasks import task_of
from mindcv_poolformer.training.compiling import compile_step


def pretend(device_name: str) -> None:
    """Have MindSpore's front end compile for a device, on the CPU."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    real = context.get_context
    answers = {"device_target": "Ascend"}
    context.get_context = ms.get_context = lambda key: answers.get(key) or real(key)
    ms.hal.get_device_name = lambda device_id: device_name
    is_a2 = device_name.startswith("Ascend910B")
    amp._ascend_910a_target = constexpr(lambda: not is_a2)
    amp._ascend_910b_target = constexpr(lambda: is_a2)


def compiled(what: str, recipe: Recipe) -> GraphDump:
    task, classes = task_of(recipe), recipe.model.num_classes or 1000
    if what.startswith("train"):
        network, world_size = task.create_network(recipe, classes), 2 if what == "train2" else 1
        if recipe.model.task == "segmentation":
            network.synchronize_norms(world_size)
        inputs = task.step_inputs(recipe, network)
        return compile_step(recipe, network, task.with_loss(recipe), inputs, world_size)[1]
    with dumped_graphs(front_end_only=True) as folder:
        network: nn.Cell = task.create_network(recipe, classes).set_train(False)
        inputs = task.step_inputs(recipe, network)[:1]
        if recipe.model.task == "detection":
            network = Detecting(network, recipe.system.eval_amp_level)
            pair = (inputs[0].shape[0], 2)
            inputs += (Tensor(shape=pair, dtype=ms.int32), Tensor(shape=pair, dtype=ms.float32))
        elif what == "validate":
            network = mixed_precision(network, recipe.system.eval_amp_level).set_train(False)
        else:
            network = leave_out_ascend_operators(to_deploy(network))
            probabilities = recipe.model.task == "classification"
            network = ServedGraph(in_float16(network), None, probabilities=probabilities)
        network.compile(*inputs)
        return read_dump(max(folder.rglob("*_validate_*.ir")))


def tell(model: str, what: str, device: str, *words: str) -> str:
    """Compile a graph, and give its facts."""
    recipe_file = f"configs/{model}_ascend.yaml"
    keys = [word for word in words if word != "shallow"]
    if "shallow" in words:
        named = parse_recipe([], description="", default_config=recipe_file).model.model
        backbone = DETECTORS[named].backbone if named in DETECTORS else named.removeprefix(PREFIX)
        register(f"shallow_{backbone}", replace(VARIANTS[backbone], depths=(1, 0, 0, 1)))
        entry_points.register(f"shallow_{backbone}")
        keys.append(f"model={named.replace(backbone, f'shallow_{backbone}')}")
    flags = [word for key in keys for word in ("--" + key).split("=", 1)]
    recipe = parse_recipe(
        ["--config", recipe_file, *flags], description="", default_config=recipe_file
    )
    pretend(device)
    dump = compiled(what, recipe)
    primitives = Counter(
        (call.primitive, *dict.fromkeys(each.dtype for each in call.inputs)) for call in dump
    )
    maps = Counter(
        (each.dtype, *each.shape) for call in dump for each in call.outputs if len(each.shape) == 4
    )
    facts = {
        "operators": dump.operators,
        "bytes": dump.bytes,
        "kept": dump.kept_for_backward,
        "dynamic": sorted(dump.dynamic),
        "primitives": [[list(name), count] for name, count in sorted(primitives.items())],
        "maps": [[list(each), count] for each, count in maps.items()],
    }
    return json.dumps(facts)


def main() -> None:
    """Compile each graph in a process of its own: MindSpore reads its settings once in each."""
    for line in sys.stdin:
        if os.fork() == 0:
            print(tell(*line.split()), flush=True)
            os._exit(0)
        _, status = os.wait()
        if status:
            sys.exit(1)


if __name__ == "__main__":
    main()
