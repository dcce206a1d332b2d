"""Does fine-tuning beat training from scratch? Real runs of train.py, on a folder of small images.

python benchmarks/finetune.py DIR

DIR holds train/<class>/* and val/<class>/*. A backbone is trained on the first half of the classes;
then the other half is learnt in equally many steps from there, from the demo's handwritten digits,
and from scratch. Runs that are complete are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPE = ["--config", str(ROOT / "configs" / "poolformer_s12_finetune.yaml")]
# What 32 pixels bear, and short runs; validation after the last epoch alone.
SMALL = (
    "--image_resize 32 --scale 0.5 1.0 --auto_augment null --re_prob 0 --crop_pct 1.0 "
    "--batch_size 32 --lr_base_size 32 --warmup_epochs 1 --ckpt_save_policy null "
    "--python_multiprocessing false"
).split()
RUNS = (  # flags, and where the weights come from
    ("--lr_base 2e-4 --layer_decay 0.9", "scratch"),
    ("--lr_base 2e-4 --layer_decay 0.9", "backbone"),
    ("--lr_base 1e-3 --layer_decay 1.0", "scratch"),
    ("--lr_base 1e-3 --layer_decay 1.0", "backbone"),
    ("--lr_base 1e-3 --freeze_backbone true", "backbone"),
    ("--lr_base 1e-3 --layer_decay 1.0", "digits"),
)


def split(images: Path, work: Path) -> tuple[Path, Path]:
    """Links to the first and to the second half of the classes, each laid out as ``images``."""
    classes = sorted(entry.name for entry in (images / "train").iterdir() if entry.is_dir())
    halves = work / "first_half", work / "second_half"
    middle = len(classes) // 2
    for half, names in zip(halves, (classes[:middle], classes[middle:]), strict=True):
        for part in ("train", "val"):
            (half / part).mkdir(parents=True, exist_ok=True)
            for name in names:
                link = half / part / name
                if not link.is_symlink():
                    link.symlink_to((images / part / name).resolve())
    return halves


def train(folder: Path, *flags: str | Path) -> float:
    """Train to the end, in a run folder; give the top-1 after the last epoch, in percent."""
    words = [sys.executable, ROOT / "train.py", *flags, "--ckpt_save_dir", folder]
    print(*words, file=sys.stderr)
    subprocess.run(list(map(str, words)), check=True, stdout=sys.stderr)
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["top1"] for row in rows if row["kind"] == "val"][-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder with train/ and val/")
    parser.add_argument("--work", type=Path, default=Path("runs/finetune_benchmark"))
    parser.add_argument("--epochs", type=int, default=8, help="of each run compared")
    parser.add_argument("--pretrain_epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43])
    given = parser.parse_args()

    first, second = split(given.images, given.work)
    starts = {name: given.work / name / "last.ckpt" for name in ("backbone", "digits")}
    learning = ["--epoch_size", str(given.pretrain_epochs), "--lr_base", "2e-3"]
    learning += ["--layer_decay", "1.0", "--data_dir", str(first)]
    top1 = train(starts["backbone"].parent, *RECIPE, *SMALL, *learning)
    print(f"backbone: {top1:.1f} % on the first half of the classes\n")
    train(starts["digits"].parent, "--data_dir", given.work / "digits_images")

    fixed = [*RECIPE, *SMALL, "--data_dir", str(second), "--epoch_size", str(given.epochs)]
    fixed += ["--val_interval", str(given.epochs)]
    print(f"| flags | start | {' | '.join(f'seed {seed}' for seed in given.seeds)} |")
    print("|---|---|" + "---|" * len(given.seeds))
    for number, (flags, start) in enumerate(RUNS):
        weights = ["--ckpt_path", starts[start]] if start in starts else []
        scores = [
            train(
                given.work / f"run{number}_seed{seed}",
                *fixed,
                *flags.split(),
                *weights,
                "--seed",
                str(seed),
            )
            for seed in given.seeds
        ]
        print(f"| `{flags}` | {start} | {' | '.join(f'{s:.1f} %' for s in scores)} |", flush=True)


if __name__ == "__main__":
    main()
