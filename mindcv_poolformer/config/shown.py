"""The keys that a command's ``--help`` lists, where the command does not use the whole recipe."""

from __future__ import annotations

_WEIGHTS = ("task", "model", "num_classes", "in_channels", "pretrained", "ckpt_path", "cache_dir")
_PREPROCESSING = (
    "image_resize",
    "interpolation",
    "crop_pct",
    "val_interpolation",
    "mean",
    "std",
)
_DENSE = (
    "img_scale",
    "size_divisor",
    "neck_channels",
    "reduce_zero_label",
    "head_channels",
    "score_thr",
    "nms_iou_threshold",
    "nms_pre",
    "max_per_img",
    "rpn_max_per_img",
)
_FOLDERS = ("data_dir", "train_split", "val_split", "ckpt_save_dir")

VALIDATION = frozenset(
    {
        "mode",
        "device_target",
        "num_parallel_workers",
        "jit_level",
        "deterministic",
        "flash_attention",
        "amp_level",
        "val_amp_level",
        "dataset",
        "dataset_download",
        "batch_size",
        "val_annotations",
        "canvas",
        "val_canvas",
        *_FOLDERS,
        *_PREPROCESSING,
        *_WEIGHTS,
        *_DENSE,
    }
)
EXPORT = frozenset(
    {
        "mode",
        "device_target",
        "jit_level",
        "flash_attention",
        *_FOLDERS,
        *_PREPROCESSING,
        *_WEIGHTS,
        *_DENSE,
    }
)
