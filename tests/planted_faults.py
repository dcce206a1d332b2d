"""Do the tests notice? Plants faults of one line, one at a time, and tells which are caught.

python tests/planted_faults.py --output faults.jsonl

To run by hand: a quarter of an hour to an hour. Faults are planted in a copy of the tracked files,
never in the checkout. A fault is caught where a test fails with it that passes without.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = "mindcv_poolformer"
FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
FAILED, PASSED, NONE = 1, 0, 5  # exit codes of pytest; none where a module skips itself


@dataclass(frozen=True)
class Fault:
    """A mistake that a developer could make.

    Args:
        file: of the scripts, or of the package where it begins with "/".
        old: part of a line, once in the file.
        new: what stands in its place.
        tests: arguments of pytest for those that should notice; without -m the long ones are left
            out.
        hangs: the tests may hang with it, so that running out of time counts as caught.
    """

    file: str
    old: str
    new: str
    tests: str
    hangs: bool = False

    @property
    def path(self) -> str:
        """Of the file, within the repository."""
        return f"{PACKAGE}{self.file}" if self.file.startswith("/") else self.file

    def __str__(self) -> str:
        return f"{self.path}: {self.old} -> {self.new}"


KERNELS = "tests/models/parts"
DENSE = "tests/models/dense"
POOLFORMER = "tests/models/test_poolformer.py"
HYBRID = "tests/models/test_hybrid.py"
METAFORMER = "tests/models/test_metaformer.py"
DEPLOY = "tests/models/test_deploy.py"
STEP = "tests/training/test_step.py"
REPORT = "tests/commands/test_validate_report.py"

FAULTS = (
    # What Ascend would get
    Fault(
        "/models/parts/activations.py",
        "gelu(x)",
        "gelu(x.astype(ms.float32)).astype(x.dtype)",
        "tests/ascend/test_compiled.py -m long -k wide_map",
    ),
    Fault(
        "/tasks/classification.py",
        "            (batch, recipe.model.in_channels, edge, edge),",
        "            (None, recipe.model.in_channels, edge, edge),",
        "tests/ascend/test_compiled.py -m long -k 'poolformer_s12-train-Ascend910B2'",
    ),
    # models/dense
    Fault(
        "/models/parts/batch_norm.py",
        "unbiased = variance * (count / max(count - 1, 1))",
        "unbiased = variance",
        f"{KERNELS} -k batch_norm",
    ),
    Fault(
        "/models/parts/convolutions.py",
        "weight = move_channels_last(weight)",
        "weight = weight.transpose(0, 2, 3, 1)",
        "tests/models/parts/test_kernels.py -k four_channels",
    ),
    Fault(
        "/models/parts/layout.py",
        "if x.dtype == ms.float16 and channels_last():",
        "if False:",
        "tests/models/parts/test_dense_kernels.py -k float16",
    ),
    Fault(
        "/models/parts/convolutions.py",
        "x[:, i : i + height, j : j + width]",
        "x[:, j : j + height, i : i + width]",
        f"{KERNELS} -k 3x3",
    ),
    Fault(
        "/models/dense/losses.py",
        "/ labels.size",
        "/ (labels != 255).sum()",
        f"{DENSE} -k loss -m ''",
    ),
    Fault(
        "/models/dense/semantic_fpn.py",
        "resize_channels_first(wide, original_size)",
        "resize_channels_first(logits, original_size)",
        f"{DENSE} -k maps_and_labels",
    ),
    Fault(
        "/models/dense/roi_align.py",
        "MOST // max(numbers)",
        "MOST // min(numbers)",
        f"{DENSE}/test_detection_parts.py -k roi_align",
    ),
    Fault(
        "/models/dense/roi_align.py",
        "range(0, count, at_once)",
        "range(0, count, at_once + 1)",
        f"{DENSE}/test_detection_parts.py -k roi_align",
    ),
    # models/parts
    Fault("/models/parts/pooling.py", "near / near.sum(1, keepdims=True)", "near / 3", KERNELS),
    Fault(
        "/models/parts/pooling.py",
        "ops.matmul(_band(x.shape[1]).T.astype",
        "ops.matmul(_band(x.shape[1]).astype",
        KERNELS,
    ),
    Fault("/models/parts/norms.py", "math.prod(x.shape[1:])", "math.prod(x.shape[2:])", KERNELS),
    Fault(
        "/models/parts/norms.py",
        "channels, eps=1e-5)",
        "channels, eps=1e-3)",
        f"{POOLFORMER} -k official",
    ),
    Fault(
        "/models/parts/norms.py",
        "variance = (centred * centred).sum(axis, keepdims=True) * part",
        "variance = (wide * wide).sum(axis, keepdims=True) * part",
        f"{METAFORMER} -k channel_norm",
    ),
    Fault(
        "/models/parts/activations.py",
        "slope = _normal(wide) + wide * density",
        "slope = _normal(wide)",
        f"{KERNELS} -k gelu -m ''",
    ),
    Fault(
        "/models/parts/activations.py",
        "squared_relu(x.astype(ms.float32)) + bias)",
        "squared_relu(x.astype(ms.float32)))",
        f"{METAFORMER} -k official",
    ),
    Fault(
        "/models/parts/convolutions.py",
        "count = (length + 2 * padding - size)",
        "count = (length + padding - size)",
        KERNELS,
    ),
    Fault(
        "/models/parts/convolutions.py",
        "diagonals = column[:, None] - column == offset",
        "diagonals = column - column[:, None] == offset",
        f"{METAFORMER} -k depthwise",
    ),
    Fault(
        "/models/parts/mixers.py",
        "drawn / drawn.sum(1, keepdims=True)",
        "drawn / drawn.sum(0, keepdims=True)",
        f"{METAFORMER} -k random_mixing",
    ),
    Fault(
        "/models/parts/mixers.py",
        "Attend(HEAD_CHANNELS**-0.5)",
        "Attend(channels**-0.5)",
        f"{METAFORMER} -k attention",
    ),
    Fault(
        "/models/parts/layers.py",
        "ops.floor(ops.rand(x.shape[0]) + self.keep) / self.keep",
        "ops.floor(ops.rand(x.shape[0]) + self.keep)",
        f"{POOLFORMER} -k drop_path",
    ),
    Fault(
        "/models/parts/layers.py",
        "self.layer_scale_2), second)",
        "self.layer_scale_2), first)",
        f"{POOLFORMER} -k drop_path",
    ),
    # models
    Fault(
        "/models/classifier.py",
        "drop_path_rate * i / (sum(depths) - 1)",
        "drop_path_rate * i / sum(depths)",
        f"{POOLFORMER} -k drop_path",
    ),
    Fault(
        "/models/classifier.py",
        "self.classes, self.for_people = (), False",
        "self.for_people = False",
        f"{POOLFORMER} tests/models/test_outputs.py -k 'reset or names'",
    ),
    Fault(
        "/models/poolformer.py",
        "self.depths[: (place + 1) // 2]",
        "self.depths[: place // 2]",
        f"{POOLFORMER} -k layers_count",
    ),
    Fault(
        "/models/hybrid.py",
        "self.eps = 1e-5",
        "self.eps = 1e-3",
        f"{HYBRID} -k 'layer_norm or official'",
    ),
    Fault(
        "/models/metaformer.py",
        "scales_residuals=stage >= 2",
        "scales_residuals=stage > 2",
        f"{METAFORMER} -k parameters",
    ),
    Fault(
        "/models/outputs.py",
        "numbers, ignore_index=IGNORED)",
        "ops.maximum(numbers, 0))",
        "tests/models/test_outputs.py -k left_out",
    ),
    Fault(
        "/models/cost.py",
        "prod(cell.kernel_size) * cell.in_channels // cell.group",
        "prod(cell.kernel_size) * cell.in_channels",
        "tests/models/test_cost.py -m ''",
    ),
    # models/deploy
    Fault("/models/deploy/folding.py", "scale * bias_2", "bias_2", DEPLOY),
    Fault("/models/deploy/poolformer.py", "weight @ beta + bias", "bias", DEPLOY),
    Fault(
        "/models/deploy/hybrid.py",
        "(layer_scale * beta)",
        "beta",
        f"{HYBRID} -k deploy",
    ),
    Fault(
        "/models/deploy/metaformer.py",
        "bias * weight_2.sum(1)",
        "scale * bias * weight_2.sum(1)",
        f"{METAFORMER} -k deploy",
    ),
    # weights
    Fault(
        "/weights/names.py",
        '{"layer_scale_1": "layer_scale1.scale", "layer_scale_2": "layer_scale2.scale"}',
        '{"layer_scale_1": "layer_scale2.scale", "layer_scale_2": "layer_scale1.scale"}',
        "tests/weights/test_names.py tests/weights/test_recognise.py",
    ),
    Fault(
        "/weights/names.py",
        "max(numbers, default=-1) + 1",
        "max(numbers, default=-1)",
        "tests/weights/test_names.py",
    ),
    Fault(
        "/weights/huggingface.py",
        'found["image_mean"]',
        'found["image_std"]',
        "tests/weights/test_huggingface.py -m '' -k 'their_processor or files_of_others'",
    ),
    Fault(
        "/weights/load.py",
        "np.float32(old / in_channels)",
        "np.float32(in_channels / old)",
        "tests/weights/test_load.py -k stem",
    ),
    Fault(
        "/weights/download.py",
        "resume_size=file.tell()",
        "resume_size=0",
        "tests/weights/test_pretrained.py -k 'line or resumed'",
    ),
    Fault(
        "/weights/download.py",
        "if found != about.etag:",
        "if not found:",
        "tests/weights/test_pretrained.py -k checksum",
    ),
    Fault(
        "/weights/model_weights.py",
        "axis=0, dtype=np.float64)",
        "dtype=np.float64)",
        "tests/weights/test_recognise.py -k average",
    ),
    Fault(
        "/weights/read.py",
        "for name in STATE_DICTS if",
        "for name in STATE_DICTS[::-1] if",
        "tests/weights/test_read.py -k average",
    ),
    Fault(
        "/models/parts/batch_norm.py",
        "return self.all_reduce(total) if self.world_size > 1 else total",
        "return total",
        "tests/commands/test_segmentation_scripts.py -m long -k two_ranks_follow",
    ),
    Fault(
        "/data/bilinear.py",
        "mixed += 2",
        "mixed += 1",
        "tests/data/test_scene_transforms.py -k numpy",
    ),
    Fault(
        "/data/segmentation/palette.py",
        "numbers >> (3 * place + channel) & 1",
        "numbers >> (3 * place + 2 - channel) & 1",
        "tests/data/test_digit_scenes.py -k palettes",
    ),
    Fault(
        "/training/schedule.py",
        "share = (1.0 - progress) ** schedule.decay_rate",
        "share = 1.0 - progress**schedule.decay_rate",
        "tests/training/test_schedule.py -k polynomial",
    ),
    Fault(
        "/report/scenes.py",
        "scene = self.world.rank + number * self.world.size",
        "scene = number",
        "tests/commands/test_segmentation_scripts.py -m long -k validate_as_one",
    ),
    Fault(
        "/tasks/segmentation.py",
        "start_step=first_step,",
        "start_step=0,",
        "tests/commands/test_segmentation_scripts.py -m long -k killed",
    ),
    Fault(
        "/weights/unwrap.py",
        "return rest in expected if dot",
        "return True if dot",
        "tests/weights/test_unwrap.py -k two_networks",
    ),
    Fault(
        "/weights/labels.py",
        "return names",
        "return tuple(found)",
        "tests/weights/test_labels.py",
    ),
    Fault(
        "/weights/labels.py",
        "if times[_plain(folder)] == 1}",
        "if False}",
        "tests/weights/test_labels.py",
    ),
    Fault(
        "/weights/names.py",
        '{"moving_mean": "running_mean", "moving_variance": "running_var"}',
        '{"moving_mean": "running_var", "moving_variance": "running_mean"}',
        "tests/weights/test_segmenter_weights.py -k leaves",
    ),
    Fault(
        "/weights/load.py",
        "weights.preprocessing if weights.kind == kind else None",
        "weights.preprocessing",
        "tests/weights/test_segmenter_weights.py -k starts_from",
    ),
    # export
    Fault(
        "/export/run_mindir.py",
        "return found.asnumpy().copy()",
        "return found.asnumpy()",
        "tests/export/test_bundle.py -k stay",
    ),
    Fault(
        "/export/golden.py",
        "return self.difference <= self.tolerance",
        "return True",
        "tests/export/test_golden.py",
    ),
    Fault(
        "/export/golden.py", "if not off <= 1e-5:", "if off > 1e5:", "tests/export/test_golden.py"
    ),
    Fault(
        "/export/bundle.py",
        "self.network(batch)[: size - missing]",
        "self.network(batch)",
        "tests/export/test_bundle.py",
    ),
    Fault(
        "/export/bundle.py",
        "np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))",
        "np.exp(logits.astype(np.float64))",
        "tests/export/test_bundle.py -k huge",
    ),
    Fault(
        "/export/description.py",
        "if found != checksum:",
        "if size is None and found != checksum:",
        "tests/export/test_bundle.py -k damaged",
    ),
    Fault(
        "/export/key.py",
        "file.read(LENGTHS[-1] + 1)",
        "file.read(LENGTHS[-1])",
        "tests/export/test_key.py -k wrong_key_file",
    ),
    Fault(
        "/export/proof.py",
        "            if not result.passes:",
        "            if result.difference < 0:",
        "tests/export/test_mindir.py -k 'proof or proven'",
    ),
    Fault(
        "/export/runtimes.py",
        '("onnx", "mindspore") if runtime == "auto"',
        '("mindspore", "onnx") if runtime == "auto"',
        "tests/export/test_runtimes.py",
    ),
    Fault(
        "/export/runtimes.py",
        'if runtime == "onnx" and device != "CPU":',
        "if False:",
        "tests/export/test_runtimes.py",
    ),
    # detectors' bundles
    Fault(
        "/models/deploy/fpn.py",
        "whole=index == kept",
        "whole=False",
        "tests/models/test_deploy_detector.py",
    ),
    Fault(
        "/data/detection/fitting.py",
        "factor = min(self.image_size",
        "factor = max(self.image_size",
        "tests/data/test_detection_transforms.py",
    ),
    Fault(
        "/export/golden_objects.py",
        "off.append(every_score - surest)",
        "off.append(surest - surest)",
        "tests/export/test_golden_objects.py",
    ),
    Fault(
        "/export/golden_objects.py",
        "(apart < close)",
        "False",
        "tests/export/test_golden_objects.py",
    ),
    Fault(
        "/export/onnx/boxes.py",
        "graph.integers(1, 0, 1, 0)",
        "graph.integers(0, 1, 0, 1)",
        "tests/export/test_onnx_detector.py -k odd_sizes",
    ),
    Fault(
        "/export/detector.py",
        "boxes / one.scale, *others",
        "boxes, *others",
        "tests/export/test_detector_bundle.py",
    ),
    Fault(
        "/export/onnx/mask_rcnn.py",
        "sampling_ratio=0",
        "sampling_ratio=2",
        "tests/export/test_onnx_detector.py -k masks_at_odd_sizes",
    ),
    Fault(
        "/export/onnx/mask_rcnn.py",
        "deltas, OF_PROPOSALS)",
        "deltas)",
        "tests/export/test_onnx_detector.py -k masks_at_odd_sizes",
    ),
    Fault(
        "/data/detection/objects.py",
        "np.concatenate(([False], mask.T.ravel()))",
        "np.concatenate(([False], mask.ravel()))",
        "tests/test_detection.py -k run_lengths",
    ),
    Fault(
        "/data/detection/drawing.py",
        "np.minimum(boxes[i], last)",
        "boxes[i]",
        "tests/test_detection.py -k overlay",
    ),
    # export/onnx
    Fault(
        "/export/onnx/builder.py",
        "count_include_pad=0",
        "count_include_pad=1",
        "tests/export/test_onnx.py",
    ),
    Fault(
        "/export/onnx/builder.py",
        'self.node("Sub", x, self.constant(transform.mean))',
        'self.node("Sub", x, self.constant(transform.std))',
        "tests/export/test_onnx.py -k pixels",
    ),
    Fault(
        "/export/onnx/builder.py",
        "values.dtype.str, values.shape, hashlib",
        "values.dtype.str, hashlib",
        "tests/export/test_onnx.py -k once",
    ),
    Fault(
        "/export/onnx/metaformer.py",
        "SAMPLE if block.standardize.over_sample else CHANNELS",
        "CHANNELS",
        "tests/export/test_metaformer_bundle.py -k onnx",
    ),
    Fault(
        "/export/onnx/quantise.py",
        "reduce_range=True",
        "reduce_range=False",
        "tests/export/test_int8.py -k convolutions",
    ),
    Fault(
        "/export/onnx/quantise.py",
        "(fixed or len(batch), *",
        "(len(batch), *",
        "tests/export/test_int8.py -k pixels",
    ),
    Fault(
        "/export/int8.py",
        'top1["fp32"] - top1["int8"]',
        'top1["int8"] - top1["fp32"]',
        "tests/export/test_int8.py -k black",
    ),
    Fault(
        "/export/description.py",
        '("mindspore", "int8")',
        '("onnx", "int8")',
        "tests/export/test_int8.py -k each_runtime",
    ),
    # training
    Fault(
        "/training/step.py",
        "average * decay + weight * (1.0 - decay)",
        "average * (1.0 - decay) + weight * decay",
        f"{STEP} -k ema",
    ),
    Fault(
        "/training/step.py",
        "grads = self.grad_reducer(grads)",
        "grads = grads + ()",
        "tests/commands -m long -k mpirun_follows",
    ),
    Fault(
        "/training/step.py",
        "1.0 / (self.loss_scaler.scale_value * count)",
        "1.0 / self.loss_scaler.scale_value",
        f"{STEP} -k accumulated",
    ),
    Fault(
        "/training/step.py",
        "ops.minimum(self.clip_norm / (norm + 1e-6), 1.0)",
        "self.clip_norm / (norm + 1e-6)",
        f"{STEP} -k 'below_the_bound'",
    ),
    Fault(
        "/training/step.py",
        "done = self.global_step % self.epoch_steps + 1",
        "done = self.global_step + 1",
        f"{STEP} -k 'last_step or stand_still'",
    ),
    Fault(
        "/training/step.py",
        "settings.layer_decay ** (max(depths) - depth)",
        "settings.layer_decay ** depth",
        f"{STEP} -k fine_tuning",
    ),
    Fault(
        "/training/optimizer.py",
        "eps = self.eps * ops.sqrt(1.0 - power2)",
        "eps = self.eps",
        "tests/training/test_optimizer.py -k paper",
    ),
    Fault(
        "/training/optimizer.py",
        "exempt_1d and p.ndim <= 1",
        "exempt_1d and p.ndim < 1",
        "tests/training/test_optimizer.py -k groups",
    ),
    Fault(
        "/training/optimizer.py",
        "wanted / norm, 1.0)",
        "norm / wanted, 1.0)",
        "tests/training/test_optimizer.py -k lamb_is",
    ),
    Fault(
        "/training/schedule.py",
        "np.clip((epochs - start) / length",
        "np.clip(epochs / length",
        "tests/training/test_schedule.py",
    ),
    Fault(
        "/training/checkpoint.py",
        "[*optimizer.exp_avg, *optimizer.exp_avg_sq, optimizer.step]",
        "[*optimizer.exp_avg, optimizer.step]",
        "tests/training/test_checkpoint.py",
    ),
    Fault(
        "/training/checkpoint.py",
        "score >= self.best_score",
        "score > self.best_score",
        "tests/training/test_checkpoint.py",
    ),
    Fault(
        "/training/resume.py",
        "_IMAGES: digest.hexdigest()[:16]",
        '_IMAGES: ""',
        "tests/training/test_resume.py",
    ),
    Fault(
        "/training/resume.py",
        "damaged.append(str(error))",
        "raise error",
        "tests/training/test_resume.py",
    ),
    Fault(
        "/training/records.py",
        'for row in rows if row["epoch"] <= epoch]',
        'for row in rows if row["epoch"] < epoch]',
        "tests/training/test_records.py",
    ),
    Fault(
        "/training/overflow.py",
        "bad >= min(",
        "bad > min(",
        "tests/training/test_overflow.py",
    ),
    Fault(
        "/training/checkpoint.py",
        '"top_k": score is not None',
        '"top_k": due',
        "tests/training/test_run_folder.py",
    ),
    Fault(
        "/training/run_folder.py",
        "(due or score is not None) and",
        "due and",
        "tests/training/test_run_folder.py",
    ),
    Fault(
        "/training/run_folder.py",
        "progress.step / progress.epoch_steps if own else 0",
        "progress.step / progress.epoch_steps",
        "tests/training/test_run_folder.py",
    ),
    Fault(
        "/training/resume.py",
        "own=not elsewhere)",
        "own=True)",
        "tests/training/test_resume.py",
    ),
    Fault(
        "/training/progress.py",
        "[] if self.at_epoch_end else self._epoch_losses",
        "self._epoch_losses",
        "tests/training/test_progress.py",
    ),
    Fault(
        "/training/schedule.py",
        "if schedule.min_lr > peak_lr:",
        "if False:",
        "tests/training/test_schedule.py",
    ),
    # evaluation
    Fault(
        "/evaluation/classification.py",
        "real = labels.asnumpy() >= 0",
        "real = labels.asnumpy() >= -1",
        "tests/evaluation",
    ),
    Fault(
        "/evaluation/classification.py",
        "(ranks < 5).sum()",
        "(ranks <= 5).sum()",
        "tests/evaluation",
    ),
    Fault(
        "/evaluation/classification.py",
        "((logits == own) & before)",
        "((logits == own) & ~before)",
        "tests/evaluation",
    ),
    # data
    Fault(
        "/data/preprocess.py",
        "for values in (mean, std))",
        "for values in (std, mean))",
        "tests/data/test_preprocess.py",
    ),
    Fault(
        "/data/preprocess.py",
        "left = (width - self.image_size) // 2",
        "left = (width - self.image_size + 1) // 2",
        "tests/data/test_preprocess.py",
    ),
    Fault(
        "/data/mix.py",
        "Mix(1 - (bottom - top) * (right - left) / (height * width), box)",
        "Mix(keep, box)",
        "tests/data/test_mix.py",
    ),
    Fault(
        "/data/augment.py",
        "return sign * 30 * strength",
        "return 30 * strength",
        "tests/data/test_augment.py",
    ),
    Fault(
        "/data/order.py",
        "np.resize(order, shape)[:, self.shard.rank]",
        "np.resize(order, shape)[:, 0]",
        "tests/data/test_loader.py",
    ),
    Fault(
        "/data/loader.py",
        "slots[shard.rank :: shard.size]",
        "slots[:: shard.size]",
        "tests/data/test_loader.py",
    ),
    Fault(
        "/data/loader.py",
        "return (kept / keep).astype",
        "return (kept * keep).astype",
        f"tests/data/test_loader.py {POOLFORMER} -k drop_path",
    ),
    Fault(
        "/data/corrupt.py",
        "if path not in self._repaired}",
        "if path}",
        "tests/data/test_corrupt.py",
    ),
    # scenes
    Fault(
        "/data/segmentation/scenes.py",
        "*range(IGNORED - 1), IGNORED]",
        "*range(IGNORED)]",
        "tests/data/test_scenes.py",
    ),
    Fault(
        "/data/segmentation/scenes.py",
        'if mode in ("L", "P") else None',
        'if mode in ("L", "P", "RGB") else None',
        "tests/data/test_scenes.py",
    ),
    Fault(
        "/data/segmentation/transforms.py",
        "step = 1 / (target / source)",
        "step = (source - 1) / (target - 1)",
        "tests/data/test_scene_transforms.py",
    ),
    Fault(
        "/data/segmentation/transforms.py",
        "counts.max() / counts.sum() < most",
        "counts.max() / label.size < most",
        "tests/data/test_scene_transforms.py",
    ),
    Fault(
        "/data/preprocess.py",
        "image[:, height:] = 0",
        "image[:, height + 1 :] = 0",
        "tests/data/test_scene_transforms.py",
    ),
    Fault(
        "/data/segmentation/transforms.py",
        "return cut[:, ::-1] if draw.flip else cut",
        "return cut",
        "tests/data/test_scene_transforms.py",
    ),
    Fault(
        "/data/segmentation/photometric.py",
        "return (1 - a * b.astype(np.float64))",
        "return (1 - a * b)",
        "tests/data/test_scene_transforms.py",
    ),
    Fault(
        "/data/segmentation/loader.py",
        "draws.generator(draws.IMAGE, self.seed, self.rank, epoch, scene)",
        "draws.generator(draws.IMAGE, self.seed, self.rank, scene)",
        "tests/data/test_scene_loader.py",
    ),
    Fault(
        "/data/segmentation/loader.py",
        "range(shard.rank, len(scenes), shard.size)",
        "range(0, len(scenes), shard.size)",
        "tests/data/test_scene_loader.py",
    ),
    Fault(
        "/evaluation/miou.py",
        "classes * rows + columns",
        "classes * columns + rows",
        "tests/evaluation/test_miou.py",
    ),
    Fault(
        "/evaluation/miou.py",
        "np.full(len(wholes), np.nan)",
        "np.zeros(len(wholes))",
        "tests/evaluation/test_miou.py",
    ),
    # config
    Fault(
        "/config/parse.py",
        "values |= checked",
        "values = checked | values",
        "tests/config/test_parse.py",
    ),
    Fault(
        "/config/bounds.py",
        'restricted_number_type("int >= 32", int, (">=", 32))',
        'restricted_number_type("int >= 32", int, (">=", 16))',
        "tests/config/test_parse.py",
    ),
    Fault(
        "/config/recipe.py",
        "if steps and steps % batches:",
        "if steps and batches % steps:",
        "tests/config/test_parse.py",
    ),
    Fault(
        "train.py",
        "done = train(recipe, world)",
        "done = train(recipe, world) or sys.exit(EXIT_CODE)",
        "tests/commands/test_interrupted_runs.py -m long -k 'interrupted and told'",
    ),
    # runtime
    Fault(
        "/runtime/files.py",
        "for folder in (path, *path.parents)",
        "for folder in (path,)",
        "tests/runtime/test_lock.py -k not_left",
    ),
    Fault(
        "/runtime/scheduler.py",
        "return 0",
        "return 1",
        "tests/runtime/test_launch.py -m long -k one_rank",
    ),
    Fault(
        "/runtime/cores.py",
        "math.ceil(min(count, _quota(_CGROUPS)))",
        "count",
        "tests/runtime/test_cores.py",
    ),
    Fault(
        "/runtime/cores.py",
        "if not _given():",
        "if not os.environ.get(THREADS):",
        "tests/runtime/test_cores.py",
    ),
    Fault(
        "/runtime/arrival.py",
        "if name != self._name:",
        "if True:",
        "tests/runtime/test_arrival.py",
    ),
    Fault(
        "/runtime/kernel_compiler/kernel_build_server_akg.py",
        "os.setpgid(0, 0)",
        "",
        "tests/runtime/test_cpu.py -m long -k signals",
    ),
    Fault(
        "/runtime/interrupts.py",
        "signal.siginterrupt(number, False)",
        "pass",
        "tests/runtime/test_cpu.py -m long -k signals",
    ),
    Fault(
        "/runtime/files.py",
        "        _flush(written)",
        "        written.exists()",
        "tests/runtime/test_files.py",
    ),
    Fault(
        "/runtime/files.py",
        "        written.replace(path)",
        "        shutil.copyfile(written, path)",
        "tests/runtime/test_files.py",
    ),
    Fault(
        "/runtime/files.py",
        "        old.rename(target)",
        "        old.exists()",
        "tests/runtime/test_files.py",
    ),
    Fault(
        "/runtime/checkpoint_file.py",
        "    _check_crc(Path(path))",
        "    Path(path).exists()",
        "tests/training/test_resume.py tests/training/test_checkpoint.py",
    ),
    Fault(
        "/runtime/errors.py",
        "_end(2, _line(",
        "_end(1, _line(",
        "tests/config/test_parse.py tests/runtime/test_errors.py -k 'process or error'",
    ),
    Fault(
        "/runtime/errors.py",
        '_end(interrupts.INTERRUPTED, "interrupted',
        '_end(0, "interrupted',
        "tests/runtime/test_launch.py -k alone_interrupted",
    ),
    Fault("/runtime/lock.py", "fcntl.LOCK_EX |", "fcntl.LOCK_SH |", "tests/runtime/test_lock.py"),
    Fault(
        "/runtime/cpu.py",
        "for name, value in defaults().items() if not os.environ.get(name)}",
        "for name, value in defaults().items()}",
        "tests/runtime/test_cpu.py -m ''",
    ),
    Fault(
        "/runtime/interrupts.py",
        "            signal.signal(number, handler)",
        "            signal.getsignal(number)",
        "tests/runtime/test_interrupts.py",
    ),
    # report
    Fault(
        "/report/findings.py",
        "Confusion(cells // count, cells % count, images)",
        "Confusion(cells % count, cells // count, images)",
        f"{REPORT} -k scikit",
    ),
    Fault(
        "/report/findings.py",
        "one.images * abs(one.accuracy - one.confidence)",
        "one.images * (one.accuracy - one.confidence)",
        f"{REPORT} -k calibra",
    ),
    Fault(
        "/report/tables.py", "correct / predicted if", "correct / images if", f"{REPORT} -k scikit"
    ),
    # explaining
    Fault(
        "/explaining/gradcam.py",
        "Tensor(chosen)).asnumpy().copy()",
        "Tensor(chosen)).asnumpy()",
        "tests/explaining/test_gradcam.py -k stay",
    ),
    Fault(
        "/explaining/gradcam.py",
        "begin = 0.5 - 1.5 / stride",
        "begin = 0.0",
        "tests/explaining/test_gradcam.py -k heat",
    ),
    Fault(
        "/explaining/gradcam.py",
        "ops.relu((weights * activations).sum(1))",
        "ops.abs((weights * activations).sum(1))",
        "tests/explaining/test_gradcam.py -m '' -k 'formula or not_there'",
    ),
    Fault(
        "/explaining/overlay.py",
        "drawn = (1 - FADED) * pixels + FADED * 255",
        "drawn = FADED * pixels + (1 - FADED) * 255",
        "tests/explaining/test_overlay.py",
    ),
    # page
    Fault("/page/image.py", "upright = turn_upright(image)", "upright = image", "tests/page"),
    Fault(
        "/page/image.py",
        "if max(width * height, resized) > MOST_PIXELS:",
        "if width * height > MOST_PIXELS:",
        "tests/page",
    ),
    Fault(
        "/page/model.py",
        "if times[name] > 1 else name",
        "if times[name] > 2 else name",
        "tests/page",
    ),
    Fault(
        "/page/segments.py",
        '.style.setProperty("--opacity", value)',
        '.style.setProperty("--opaque", value)',
        "tests/page/test_segments_page.py -m long",  # in .venv-page alone
    ),
    Fault(
        "/page/objects.py",
        "Number(object.dataset.score) > value",
        "Number(object.dataset.score) > 0.3",
        "tests/page/test_objects_page.py -m long -k predict",  # in .venv-page alone
    ),
    Fault(
        "/page/objects.py",
        "top / height, right / width",
        "top / width, right / width",
        "tests/page/test_objects_page.py -m long -k masks",  # in .venv-page alone
    ),
    # serving
    Fault(
        "/serving/classifier.py",
        "np.argsort(-probabilities, axis=1",
        "np.argsort(probabilities, axis=1",
        "tests/serving/test_serving_answers.py -k 'labels or over_grpc'",
    ),
    Fault(
        "/serving/segmenter.py",
        "graph_for((picture.height, picture.width))",
        "graph_for((picture.width, picture.height))",
        "tests/serving/test_serving_segments.py -m long -k over_grpc",
    ),
    Fault(
        "/serving/detector.py",
        "bundle.detection(found, picture.size[::-1], threshold, wanted.top_k)",
        "bundle.detection(found, picture.size[::-1], threshold)",
        "tests/serving/test_serving_objects.py -k how_many",
    ),
    Fault(
        "/serving/payload.py",
        "model_dump(exclude_none=False)",
        "model_dump()",
        "tests/serving/test_serving_objects.py -k lost_over_grpc",
    ),
    Fault(
        "/data/fitting.py",
        "if max(height, width) > LONGEST_EDGE:",
        "if max(height, width) > LONGEST_EDGE + 1:",
        "tests/data/test_scene_transforms.py -k too_long",
    ),
    Fault(
        "/serving/batching.py",
        "start += len(one.images)",
        "start += 1",
        "tests/serving/test_serving_batching.py",
        hangs=True,
    ),
    Fault(
        "/serving/batching.py",
        "if self._under_way + count > self._most:",
        "if self._under_way > self._most:",
        "tests/serving/test_serving_batching.py",
        hangs=True,
    ),
    Fault(
        "/serving/batching.py",
        "if len(rows) != len(images):",
        "if False:",
        "tests/serving/test_serving_batching.py -k no_rows",
    ),
    Fault(
        "/serving/batching.py",
        "self._steps, self._running = self._steps - 1, self._running - 1",
        "self._running -= 1",
        "tests/serving/test_serving_batching.py -k side_by_side",
        hangs=True,
    ),
    Fault(
        "/serving/batching.py",
        "and requests + self._running >= beside.count",
        "and requests >= beside.count",
        "tests/serving/test_serving_batching.py -k one_request_has_all",
    ),
    Fault(
        "/serving/batching.py",
        "-(-requests // beside.count)",
        "requests",
        "tests/serving/test_serving_batching.py -k one_request_has_all",
    ),
    Fault(
        "/serving/batching.py",
        "and len(self._queue[0].images) <= beside.size",
        "",
        "tests/serving/test_serving_batching.py -k large_request_has_all",
    ),
    Fault(
        "/runtime/device_thread.py",
        "@cache",
        "# not cached",
        "tests/serving/test_serving_batching.py -k side_by_side",
    ),
    Fault(
        "/serving/classifier.py",
        "max(1, self.run_size // cores)",
        "self.run_size",
        "tests/serving/test_serving_inside.py",
    ),
    Fault(
        "/serving/server.py",
        "!= math.prod(tensor.shape) * numbers.itemsize:",
        "% numbers.itemsize:",
        "tests/serving/test_serving_inside.py",
    ),
    Fault(
        "/serving/server.py",
        "None if keyed else _taken_out(request)",
        "_taken_out(request)",
        "tests/serving/test_serving_inside.py",
    ),
    Fault(
        "/serving/server.py",
        "max(ready, key=cmp_to_key(_is_newer))",
        "ready[-1]",
        "tests/serving/test_serving_inside.py",
    ),
    Fault(
        "/serving/server.py",
        "if sig is None:",
        "if False:",
        "tests/serving/test_serving_life.py -k one_of_two",
    ),
    Fault(
        "/serving/settings.py",
        "and one.version != other.version",
        "",
        "tests/serving/test_serving_inside.py",
    ),
    Fault(
        "/serving/runtime.py",
        "min(options.max_images, options.max_queue)",
        "options.max_images",
        "tests/serving/test_serving_life.py -k full_queue",
    ),
    Fault(
        "/serving/edge.py",
        "if seen > self._most_bytes:",
        "if seen > 2**40:",
        "tests/serving/test_serving_answers.py -k long_bodies",
    ),
    # scripts
    Fault(
        "predict.py",
        "math.ceil(images / math.ceil(images / batch_size))",
        "min(images, batch_size)",
        "tests/commands/test_predict_cli.py -k run_size",
    ),
    Fault(
        "train.py",
        "sys.exit(EXIT_CODE)",
        "sys.exit(0)",
        "tests/commands/test_interrupted_runs.py -m long -k asked_to_stop",
    ),
    Fault(
        "train.py",
        "evaluator.take(evaluated_weights(step)).evaluate()",
        "evaluator.evaluate()",
        "tests/commands/test_train_script.py -m long -k 'best_checkpoint or metrics'",
    ),
    Fault(
        "/tasks/validating_images.py",
        "if len(images.classes) != len(classes):",
        "if len(images.classes) < len(classes):",
        "tests/commands/test_validate_bundle.py -m long -k order_tells",
    ),
    Fault(
        "/export/classifiers.py",
        "np.lexsort((images.labels, turn))",
        "np.lexsort((turn, images.labels))",
        "tests/export -k spread -m ''",
    ),
    Fault(
        "explain.py",
        "place if len(explainers) > 1 else 0",
        "0",
        "tests/commands/test_explain.py -k side_by_side -m ''",
    ),
)


def main() -> None:
    # A shell's background job ignores Ctrl-C, and so would the programs that the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = parse_arguments()
    chosen = [fault for fault in FAULTS if arguments.only in str(fault)]
    complaints = list(misplaced(chosen))
    if complaints or not chosen:
        sys.exit("\n".join(complaints) or f"--only: found no fault with {arguments.only!r}")
    if arguments.check:
        print(f"{len(chosen)} faults, each in its place")
        return
    known = read(arguments.output)
    with tempfile.TemporaryDirectory(prefix="planted_") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(arguments.jobs):
            copies.put(copy_of_checkout(Path(folder, str(number))))

        def plant(fault: Fault) -> None:
            copy = copies.get()
            found = planted(fault, copy, arguments.timeout)
            copies.put(copy)
            known[str(fault)] = found
            with arguments.output.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(f"{found['outcome']:8}{found['seconds']:6.0f} s  {fault}", flush=True)

        with ThreadPoolExecutor(arguments.jobs) as threads:
            list(threads.map(plant, [fault for fault in chosen if str(fault) not in known]))
        results = [known[str(fault)] for fault in chosen]
        tests = sorted({one["test"] for one in results if one["test"]})
        copy = copies.get()
        failing = set(failing_without_faults(tests, copy, arguments.timeout))
    show(chosen, results, failing)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="see whether each has its place alone")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose line holds it")
    parser.add_argument("--jobs", type=int, default=1, help="faults at once")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for a fault's tests")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("planted_faults.jsonl"),
        help="takes a line for each fault; those that it has are not run again",
    )
    return parser.parse_args()


def misplaced(faults: Sequence[Fault]) -> Iterator[str]:
    """One line for each fault whose old text is not there once, or spans lines."""
    for fault in faults:
        path = ROOT / fault.path
        count = path.read_text().count(fault.old) if path.is_file() else 0
        if count != 1 or "\n" in fault.old + fault.new:
            yield f"{fault}: found {count} times, expected once, and one line"


def read(output: Path) -> dict[str, dict[str, Any]]:
    """What an earlier run has found, by fault."""
    if not output.exists():
        return {}
    rows = map(json.loads, output.read_text().splitlines())
    return {row["fault"]: row for row in rows}


def copy_of_checkout(folder: Path) -> Path:
    """Copy what git tracks, and see that it is the copy that gets tested."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    code = f"import importlib.util as u; print(u.find_spec('{PACKAGE}').origin)"
    command = [sys.executable, "-c", code]
    told = subprocess.run(
        command, cwd=folder, env=environment(folder), check=True, capture_output=True, text=True
    )
    if not Path(told.stdout.strip()).is_relative_to(folder):
        sys.exit(f"{PACKAGE}: found {told.stdout.strip()}, expected the copy in {folder}")
    return folder


def environment(copy: Path) -> dict[str, str]:
    """Has the copy's package found before an installed one, and no bytecode of it kept.

    A fault may be as long as what it replaces, and be planted within the second that bytecode is
    told from.
    """
    return {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def planted(fault: Fault, copy: Path, timeout: float) -> dict[str, Any]:
    """Run a fault's tests with it."""
    path = copy / fault.path
    whole = path.read_text()
    path.write_text(whole.replace(fault.old, fault.new))
    started = time.monotonic()
    try:
        words = shlex.split(fault.tests)
        code, failed = run_pytest(
            words if "-m" in words else [*words, "-m", "not long"], copy, timeout
        )
    finally:
        path.write_text(whole)
    if code is None:
        outcome = "caught" if fault.hangs else "timeout"
    else:
        outcome = {FAILED: "caught", PASSED: "missed", NONE: "missed"}.get(code, "error")
    return {
        "fault": str(fault),
        "outcome": outcome,
        "test": failed[0] if failed else "",
        "seconds": round(time.monotonic() - started, 1),
    }


def run_pytest(words: Sequence[str], copy: Path, timeout: float) -> tuple[int | None, list[str]]:
    """Give pytest's exit code, None if it ran out of time, and the tests that failed.

    All that its tests have started ends with it.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *words]
    if "--maxfail=0" not in words:
        command.append("-x")
    process = subprocess.Popen(
        command,
        cwd=copy,
        env=environment(copy),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        code, said = None, ""
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have ended
        process.wait()
    failed = [found[1] for found in FIRST_FAILURE.finditer(said)]
    if code not in (FAILED, PASSED, NONE, None):
        if failed:
            code = FAILED  # a module of tests that cannot even be imported
        else:
            print(f"pytest {shlex.join(words)}: ended with {code}\n{said[-2000:]}")
    return code, failed


def failing_without_faults(tests: list[str], copy: Path, timeout: float) -> list[str]:
    """Of the tests that have caught something, those that fail in any case.

    All in one process; what fails there, beside strangers, has another try alone.
    """
    if not tests:
        return []
    code, failed = run_pytest([*tests, "--maxfail=0"], copy, timeout * max(1, len(tests) / 4))
    if code is None:
        sys.exit("the tests without a fault: found no end of them, give a larger --timeout")
    return [test for test in failed if run_pytest([test], copy, timeout)[0] != PASSED]


def show(faults: Sequence[Fault], results: Sequence[dict[str, Any]], failing: set[str]) -> None:
    """Print the table; exit with 1 if a fault was missed."""
    caught = 0
    for fault, found in zip(faults, results, strict=True):
        outcome = found["outcome"]
        if found["test"] in failing:
            outcome = "unsure"
        caught += outcome == "caught"
        told = found["test"] or fault.tests
        print(f"{outcome:8}{found['seconds']:6.0f} s  {fault}\n{'':18}{told}")
    for test in sorted(failing):
        print(f"fails without a fault: {test}")
    print(f"{len(faults)} faults, {caught} caught")
    if caught < len(faults):
        sys.exit(1)


if __name__ == "__main__":
    main()
