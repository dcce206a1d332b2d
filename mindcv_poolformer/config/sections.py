"""The sections of a recipe: one frozen dataclass each, flat keys in MindCV's vocabulary.

The docstrings are the text of ``--help``; types, bounds and defaults stand beside the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from .bounds import (
    FloatFromOne,
    FractionAboveZero,
    FractionBelowOne,
    ImageChannels,
    ImageSize,
    PathText,
    RandAugmentPolicy,
    ZeroOrOne,
)


@dataclass(frozen=True)
class SystemConfig:
    """system: where and how the graph runs

    Args:
        mode: 0 compiles the network into a graph, 1 runs it op by op (PyNative).
        device_target: the device that computes.
        distribute: null follows the launcher, true insists on mpirun or msrun for training,
            false refuses more than one rank.
        seed: every random draw of the run derives from it and the rank.
        num_parallel_workers: data workers of each rank, at most as many as the machine has cores.
        python_multiprocessing: the workers of training are processes (true) or threads (false);
            validation's are threads.
        dataset_sink_mode: feed the device from a queue on the device; Ascend only.
        jit_level: optimisation of the compiled graph: O0 runs operator by operator, O1 fuses
            chains of elementwise ones, O2 compiles with CANN's graph engine, which MindSpore 2.9
            deprecates; null for the device's own.
        deterministic: have Ascend's kernels and collectives add in a fixed order, which costs
            speed; the CPU's do anyway.
        hf32: let an Atlas A2 train convolutions and products of float32 in HF32, 11 bits of
            mantissa instead of 24; validation and export by themselves never do.
        flash_attention: attention in fp16 as one operator of CANN (true) or as products (false);
            null where CANN documents the operator, on training cards of Atlas A2 and A3. An
            exported graph has it with true alone, and loads nowhere else then.
        recompute: compute the maps inside of blocks anew in the backward pass instead of keeping
            them: less memory for more arithmetic.
        log_interval: steps between two looks at losses and overflows, for which the device is
            waited for, and between two log lines when the output is not a terminal.
        amp_level: precision of training: O0 all fp32, O2 fp16 but for BatchNorm and LayerNorm,
            O3 all fp16, auto fp16 where MindSpore's lists hold it safe.
        val_amp_level: the same for validation, null for amp_level.
        loss_scale: factor on the loss before the backward pass; dynamic scaling starts from it.
        loss_scale_type: keep loss_scale, or adapt it to overflows (dynamic).
        drop_overflow_update: skip the update of a step whose gradients overflow.
        max_bad_updates: updates in a row whose gradients are Inf or NaN, after which the run stops.
    """

    mode: ZeroOrOne = 0
    device_target: Literal["Ascend", "CPU"] = "Ascend"
    distribute: bool | None = None
    seed: NonNegativeInt = 42
    num_parallel_workers: PositiveInt = 8
    python_multiprocessing: bool = True
    dataset_sink_mode: bool = False
    jit_level: Literal["O0", "O1", "O2"] | None = None
    deterministic: bool = False
    hf32: bool = False
    flash_attention: bool | None = None
    recompute: bool = False
    log_interval: PositiveInt = 100
    amp_level: Literal["O0", "O2", "O3", "auto"] = "O0"
    val_amp_level: Literal["O0", "O2", "O3", "auto"] | None = None
    loss_scale: FloatFromOne = 1.0
    loss_scale_type: Literal["fixed", "dynamic"] = "fixed"
    drop_overflow_update: bool = True
    max_bad_updates: PositiveInt = 25

    @property
    def eval_amp_level(self) -> str:
        """The precision of validation that val_amp_level asks for."""
        return self.val_amp_level or self.amp_level


@dataclass(frozen=True)
class DataConfig:
    """data: which images, in which batches

    Args:
        dataset: imagenet (or empty) reads any folder data_dir/split/class/image; ade20k and scenes
            read data_dir/images/split and data_dir/annotations/split, ade20k with its 150 classes,
            scenes with those of data_dir/classes.txt; coco reads data_dir/split and
            data_dir/annotations/instances_split.json; digits is scikit-learn's handwritten digits,
            written to data_dir, with task segmentation as scenes, with task detection as coco.
        dataset_download: write the digits folder when it is missing.
        data_dir: the folder that holds the splits.
        train_split: subfolder of the training images.
        val_split: subfolder of the validation images.
        shuffle: draw a new order of the training images each epoch.
        batch_size: images of one rank and one step.
        drop_remainder: true leaves the last, incomplete batch of an epoch out, false fills it up
            from the start of the epoch's order.
        on_corrupt: training image, or with task segmentation its label, that cannot be read: error
            stops, skip takes another image in its place and lists it in corrupt_images.txt of the
            run folder, up to 1 % of them; validation always stops.
    """

    dataset: Literal["imagenet", "digits", "ade20k", "scenes", "coco", ""] = "imagenet"
    dataset_download: bool = False
    data_dir: PathText = "./"
    train_split: PathText = "train"
    val_split: PathText = "val"
    shuffle: bool = True
    batch_size: PositiveInt = 128
    drop_remainder: bool = True
    on_corrupt: Literal["error", "skip"] = "error"


@dataclass(frozen=True)
class AugmentationConfig:
    """augmentation: from an image to the tensor the network sees

    Args:
        image_resize: side of the network's square input, pixels.
        scale: area of the training crop, lowest and highest fraction of the image.
        ratio: width / height of the training crop, lowest and highest.
        hflip: probability of a horizontal flip.
        vflip: probability of a vertical flip.
        interpolation: resampling of the training crop; random draws one of the two per image.
        color_jitter: strength for brightness, contrast and saturation, one for all or a list of
            three; inactive under auto_augment; null for none.
        auto_augment: RandAugment policy such as rand-m9-mstd0.5-inc1 (MindCV writes randaug-...):
            m magnitude (of 10), mstd its standard deviation, inc1 larger is stronger, n operations
            per image; null for none.
        re_prob: probability of erasing a rectangle of an image.
        re_scale: erased area, lowest and highest fraction of the image.
        re_ratio: height / width of the erased rectangle, lowest and highest.
        re_value: fill of the rectangle: pixel (or random) for Gaussian noise per pixel, or a
            number in normalised units.
        re_max_attempts: draws of a rectangle before an image is left whole.
        mixup: alpha of mixup's Beta distribution, 0 for none.
        cutmix: alpha of CutMix's Beta distribution, 0 for none.
        cutmix_prob: probability of mixing a batch at all, by mixup or CutMix.
        switch_prob: probability of CutMix, where both are on.
        mixup_mode: one draw for the whole batch.
        crop_pct: evaluation resizes the short side to image_resize / crop_pct, then crops.
        val_interpolation: resampling of the evaluation resize, null for that of the training crop
            (bicubic where that is random).
        mean: per channel, in units of 0-255.
        std: per channel, in units of 0-255.
    """

    image_resize: ImageSize = 224
    scale: tuple[FractionAboveZero, FractionAboveZero] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (0.75, 4 / 3)
    hflip: ClosedUnitInterval = 0.5
    vflip: ClosedUnitInterval = 0.0
    interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    color_jitter: (
        NonNegativeFloat | tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] | None
    ) = None
    auto_augment: RandAugmentPolicy | None = None
    re_prob: ClosedUnitInterval = 0.0
    re_scale: tuple[FractionAboveZero, FractionAboveZero] = (0.02, 1 / 3)
    re_ratio: tuple[PositiveFloat, PositiveFloat] = (0.3, 3.3)
    re_value: Literal["pixel", "random"] | float = 0.0
    re_max_attempts: PositiveInt = 10
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    cutmix_prob: ClosedUnitInterval = 1.0
    switch_prob: ClosedUnitInterval = 0.5
    mixup_mode: Literal["batch"] = "batch"
    crop_pct: FractionAboveZero = 0.875
    val_interpolation: Literal["bilinear", "bicubic"] | None = None
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[PositiveFloat, ...] = (58.395, 57.12, 57.375)

    @property
    def eval_interpolation(self) -> Literal["bilinear", "bicubic"]:
        """The resampling that val_interpolation asks for."""
        training = "bicubic" if self.interpolation == "random" else self.interpolation
        return self.val_interpolation or training


@dataclass(frozen=True)
class ModelConfig:
    """model: the network and where its weights start

    Args:
        task: what the network tells: the class of an image, or of each pixel, or where objects of
            which class are.
        model: name of a registered model, for the task.
        num_classes: outputs of the classifier, null for as many as the data has.
        in_channels: channels of the input image: grey, RGB or RGBA.
        drop_rate: dropout probability inside the MLPs.
        drop_path_rate: drop-path probability of the last block, null for the variant's own.
        head_drop_rate: dropout probability inside the MLP head of a ConvFormer or CAFormer, null
            for the variant's own.
        pretrained: start from the authors' published weights, downloaded once.
        ckpt_path: start from these weights: a file of anybody's format, a Hugging Face folder, the
            URL of either, mindcv/poolformer_s12 or mindcv/poolformer_s12-910v2; empty for none.
        cache_dir: folder of downloaded weights, empty for $MINDCV_POOLFORMER_CACHE or else
            ~/.cache/mindcv_poolformer.
    """

    task: Literal["classification", "segmentation", "detection"] = "classification"
    model: str = "poolformer_s12"
    num_classes: PositiveInt | None = None
    in_channels: ImageChannels = 3
    drop_rate: FractionBelowOne = 0.0
    drop_path_rate: FractionBelowOne | None = None
    head_drop_rate: FractionBelowOne | None = None
    pretrained: bool = False
    ckpt_path: PathText = ""
    cache_dir: PathText = ""
