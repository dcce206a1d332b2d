"""Published figures of the Ascend 910, of what surrounds it, and of MindCV on it, with sources."""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A published figure, and where it stands."""

    value: float
    unit: str
    what: str
    source: str


FACTS = {
    "peak": Fact(
        256e12,
        "FLOP/s",
        "matrix unit, float16, per NPU",
        "Huawei, announced 2019-08-23 (Pure AI, 2019-09-03); Linley Newsletter, 2019-10-08; "
        "float16 and int8 alone: AnandTech, Hot Chips 31 live blog, 2019-08-19",
    ),
    "hbm": Fact(
        1.2e12,
        "B/s",
        "HBM, per NPU",
        "NOT VERIFIED: only retold (kingy.ai on the Ascend 910D: '4 stacks, ~1.2 TB/s')",
    ),
    "hccs": Fact(
        30e9,
        "B/s",
        "one of three HCCS ports, 240 Gbit/s",
        "Huawei's figures for the 910, as listed by Vengineer (vengineer.hatenablog.com, "
        "2019-09-06); per direction is an assumption",
    ),
    "pcie": Fact(
        16 * 16e9 * 128 / 130 / 8,
        "B/s",
        "PCIe 4.0 x16, per direction",
        "PCIe 4.0 x16: Vengineer, as above; 16 GT/s, 128b/130b: PCI Express 4.0",
    ),
    "roce": Fact(12.5e9, "B/s", "one RoCE port, 100 Gbit/s", "Vengineer, as above (two ports)"),
    "jpeg": Fact(
        147_897_477_120 / 1_281_167,
        "B",
        "mean ImageNet-1K training JPEG, with tar headers",
        "size of ILSVRC2012_img_train.tar over its images: CompVis/taming-transformers, "
        "taming/data/imagenet.py",
    ),
}
LINKS = {"hccs": "HCCS port", "pcie": "PCIe", "roce": "RoCE port"}


class Published(NamedTuple):
    """Somebody else's measurement of poolformer_s12, 8 x 128 images of 224 px."""

    hardware: str
    step_ms: float
    images_per_second: float
    source: str


MINDCV = (
    Published(
        "8 x Ascend 910",
        220.13,
        4651.80,
        "mindspore-lab/mindcv, configs/poolformer/README.md at 04d3293: MindSpore 2.3.1, graph",
    ),
    Published(
        "8 x Ascend 910*",
        211.81,
        4834.52,
        "mindspore-lab/mindcv, configs/poolformer/README.md at 04d3293: MindSpore 2.3.1, graph",
    ),
)
