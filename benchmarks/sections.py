"""The parts of a benchmark: each starts its contenders, measures them, and gives a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mindcv_poolformer.models import POOLFORMERS, VARIANTS
from mindcv_poolformer.runtime.cores import cores

from . import report
from .field import check_agreement, contenders, run_to_end, write_bundle, write_weights
from .macs import matrix_macs
from .rounds import ROUNDS_BESIDE, Contest, Record, say
from .targets import BATCH, INPUT, PRODUCT, SINGLE, TARGETS, Result, measure

MODEL = "poolformer_s12"
BATCHES = (1, 2, 4, 8, 16, 32)  # at 224 px
SMALLEST = (
    "identityformer_s12",
    "randformer_s12",
    "poolformerv2_s12",
    "convformer_s18",
    "caformer_s18",
)
TIMM_TOLERANCE = 1e-3  # convolution and attention magnify rounding
SIZES = (128, 160, 192, 256, 320, 384)  # at batch 8


@dataclass(frozen=True)
class Plan:
    """How much to measure, and where.

    Args:
        folder: for weights and logs.
        photographs: folder with train/<class>/<image>.
        drawn: images to draw there if none are given.
        caches: folder for what compilers keep; empty, where start-up times are to count.
        environment: of the contenders.
        rounds: of each contender in the targets.
        seconds: of each round.
        workers: of each input pipeline.
        at_once: contenders that start at the same time.
    """

    folder: Path
    photographs: Path
    drawn: int
    caches: Path
    environment: Mapping[str, str]
    rounds: int
    seconds: float
    workers: int
    at_once: int

    def contest(self, model: str) -> Contest:
        """The contenders for a variant, none of them started."""
        known = contenders(model, self.folder, self.photographs, self.caches, self.workers)
        return Contest(known, self.environment, self.folder)

    def write_bundle(self, model: str = MODEL) -> None:
        """Have a bundle of a model, whose weights are there, where the contenders look for it."""
        write_bundle(model, self.folder, self.photographs, self.environment)


@dataclass
class Measured:
    """What a section gives.

    Args:
        tables: in Markdown.
        records: of its contests, by what they are about.
        failures: a line for each contender that died.
        unavailable: a line for each that cannot run here.
        results: of the targets.
    """

    tables: list[str] = field(default_factory=list)
    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def take(self, about: str, contest: Contest) -> dict[str, Record]:
        """Keep what a contest has found so far."""
        self.records[about] = contest.records
        self.failures += contest.failures.values()
        self.unavailable += contest.unavailable.values()
        return contest.records


def targets(plan: Plan) -> Measured:
    """Everybody at batch 8, then three at batch 1."""
    plan.write_bundle()
    gemm = dict.fromkeys(("gemm_numpy", "gemm_torch"), PRODUCT)
    pipelines = dict.fromkeys(("pipeline", "mindcv_pipeline"), INPUT)
    networks = ("mindcv_training", "hf_compiled", "training", "mindcv", "deploy", "evaluation")
    shapes = dict.fromkeys((*networks, "onnx", "hf", "hf_training"), BATCH) | pipelines | gemm
    measured = Measured()
    with plan.contest(MODEL) as contest:
        contest.start(shapes, plan.at_once)
        check_agreement(contest)
        contest.race(shapes, plan.rounds, plan.seconds)
        single = dict.fromkeys(("onnx", "deploy", "hf"), SINGLE)
        contest.end(shapes.keys() - single.keys())
        contest.prepare(single)
        contest.race(single, plan.rounds, plan.seconds)
        records = measured.take("targets", contest)
    variant = VARIANTS[MODEL]
    macs = matrix_macs(variant.depths, variant.dims, BATCH[1])
    measured.results = [measure(target, records, macs) for target in TARGETS]
    measured.tables = [
        report.targets_table(measured.results),
        report.input_table(records, min(plan.workers, cores())),
        report.contenders_table(records),
    ]
    return measured


def scaling(plan: Plan) -> Measured:
    """ONNX Runtime, the deploy form and Hugging Face at other batch and image sizes.

    The bundle takes images of one size, so that ONNX Runtime has no part in the others.
    """
    plan.write_bundle()
    names = ("onnx", "deploy", "hf")
    batches = [(batch, BATCH[1]) for batch in BATCHES]
    sizes = [(BATCH[0], size) for size in SIZES]
    measured = Measured()
    with plan.contest(MODEL) as contest:
        contest.start(dict.fromkeys(names, batches[0]))
        for shape in (*batches, *sizes):
            if shape == sizes[0]:
                contest.end(["onnx"])
            say("batch {} at {} px".format(*shape))
            contest.prepare(dict.fromkeys(names, shape))
            check_agreement(contest)
            contest.race(dict.fromkeys(names, shape), ROUNDS_BESIDE, plan.seconds)
        records = measured.take("scaling", contest)
    measured.tables = [
        report.comparison_table(
            "batch x px", [("{} x {}".format(*shape), records, shape) for shape in shapes], those
        )
        for shapes, those in ((batches, names), (sizes, names[1:]))
    ]
    return measured


def variants(plan: Plan) -> Measured:
    """All five PoolFormers at batch 8."""
    names = ("onnx", "deploy", "evaluation", "hf")
    measured, rows = Measured(), []
    for model in POOLFORMERS:
        write_weights(model, plan.folder, plan.environment)
        plan.write_bundle(model)
        with plan.contest(model) as contest:
            contest.start(dict.fromkeys(names, BATCH))
            check_agreement(contest)
            contest.race(dict.fromkeys(names, BATCH), ROUNDS_BESIDE, plan.seconds)
            rows.append((model, measured.take(model, contest), BATCH))
    measured.tables = [report.comparison_table("batch 8, 224 px", rows, names)]
    return measured


def families(plan: Plan) -> Measured:
    """The smallest MetaFormer of each family at batch 8."""
    names = ("onnx", "deploy", "evaluation", "timm")
    references = dict.fromkeys(names[:-1], "timm")
    measured, rows = Measured(), []
    for model in SMALLEST:
        write_weights(model, plan.folder, plan.environment)
        plan.write_bundle(model)
        with plan.contest(model) as contest:
            contest.start(dict.fromkeys(names, BATCH))
            check_agreement(contest, references, TIMM_TOLERANCE)
            contest.race(dict.fromkeys(names, BATCH), ROUNDS_BESIDE, plan.seconds)
            rows.append((model, measured.take(model, contest), BATCH))
    measured.tables = [report.comparison_table("batch 8, 224 px", rows, names)]
    return measured


def startup(plan: Plan) -> Measured:
    """Start and first call of each, one by one; a cold start fills the warm one's cache."""
    plan.write_bundle()
    names = ("onnx", "mindir", "deploy", "evaluation", "training_cold", "training_warm")
    names += ("hf", "hf_training")
    measured = Measured()
    with plan.contest(MODEL) as contest:
        for name in names:
            contest.start({name: BATCH})
            contest.race({name: BATCH}, 1, 0.0)
            contest.end([name])
        records = measured.take("startup", contest)
    measured.tables = [report.startup_table(records, BATCH)]
    return measured


def breakdown(plan: Plan) -> Measured:
    """Where this project's time goes, and what it is without graph kernels."""
    say("taking this project's time apart")
    output = plan.folder / "breakdown.json"
    words = ["--answers", "2", "--outputs", str(output), "--model", MODEL]
    words += ["--weights", str(plan.folder / MODEL), "--photographs", str(plan.photographs)]
    module = f"{__package__}.contenders.breakdown"
    run_to_end(plan.environment, "-m", module, "breakdown", *words)
    found = json.loads(output.read_text())
    steps = found.pop("steps of an image")
    measured = Measured(tables=[report.kernels_table(found), report.steps_table(steps)])
    names = ("deploy", "deploy_unfused")
    with plan.contest(MODEL) as contest:
        contest.start(dict.fromkeys(names, BATCH))
        contest.race(dict.fromkeys(names, BATCH), ROUNDS_BESIDE, plan.seconds)
        records = measured.take("breakdown", contest)
    measured.tables.append(
        report.comparison_table("graph kernels", [(MODEL, records, BATCH)], names)
    )
    return measured


SECTIONS: dict[str, Callable[[Plan], Measured]] = {
    "targets": targets,
    "scaling": scaling,
    "variants": variants,
    "families": families,
    "startup": startup,
    "breakdown": breakdown,
}
