from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from mindcv_poolformer.training.progress import Progress
from mindcv_poolformer.training.step import Outcome

STEP = SimpleNamespace(
    loss_scaler=SimpleNamespace(scale_value=np.float32(1)), skipped_updates=np.int32(0)
)


def progress(first_step: int = 0) -> Progress:
    """Of two epochs of two steps."""
    return Progress(2, np.zeros(4), 8, first_step, show=True)


def take(run: Progress, loss: float) -> None:
    run.advance()
    run.take([Outcome(loss, 0, 1.0, asked_to_stop=False)])
    run.report(STEP)


@pytest.mark.parametrize("stopped_after", [1, 2, 3])
def test_an_epoch_has_the_mean_of_its_own_losses_wherever_the_run_was_stopped(
    capsys: pytest.CaptureFixture[str], stopped_after: int
) -> None:
    """With the checkpoint written as train.py does: before the epoch's line."""
    run, position = progress(), None
    for loss in (8.0, 6.0, 3.0, 1.0):
        take(run, loss)
        if run.step == stopped_after:
            position = json.loads(json.dumps(run.position))
        if run.at_epoch_end:
            run.end_epoch("")
        if run.step == stopped_after:
            run = progress(run.step)
            run.take_up(position)
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if ", training loss " in line]
    assert ["7.0000" in told[0], "2.0000" in told[1]] == [True, True]
