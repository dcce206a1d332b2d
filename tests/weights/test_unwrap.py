"""Checkpoints of training as other people's programs leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindcv.optim import create_optimizer
from mindcv.utils import create_trainer
from mindspore import Tensor

from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import read_weights
from mindcv_poolformer.weights.__main__ import main

Values = dict[str, np.ndarray]


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="these checkpoints are PyTorch's")


def trainer(**settings: Any) -> tuple[Any, Values]:
    """MindCV's own step of a network with four classes, and the network's values."""
    network = mindcv.create_model("poolformer_s12", num_classes=4)
    values = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    optimizer = settings.pop("opt", "adamw")
    model = create_trainer(
        network,
        create_loss("CE"),
        create_optimizer(network.trainable_params(), opt=optimizer, lr=1e-3),
        {"acc"},
        amp_level="O0",
        amp_cast_list=None,
        loss_scale_type="fixed",
        loss_scale=1.0,
        drop_overflow_update=False,
        ema_decay=0.9999,
        clip_grad=False,
        clip_value=15.0,
        **settings,
    )
    return model.train_network, values


def assert_same(found: Values, expected: Values, factor: int = 1) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], factor * value)


@pytest.mark.long
@pytest.mark.parametrize(
    ("opt", "steps", "left"),
    [
        ("adamw", 1, ("adam_m.* (132)", "adam_v.* (132)", "global_step")),
        ("momentum", 2, ("moments.* (132)", "grad_accumulation.* (132)", "accumulation_step")),
    ],
)
def test_what_mindcv_saves_of_a_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    opt: str,
    steps: int,
    left: tuple[str, ...],
) -> None:
    step, values = trainer(opt=opt, ema=True, gradient_accumulation_steps=steps)
    for average in step.ema_weight:
        average.set_data(Tensor(-average.asnumpy()))
    ms.save_checkpoint(step, str(tmp_path / "step.ckpt"))
    weights = read_weights(tmp_path / "step.ckpt")
    assert_same(weights.values, values)
    assert (weights.model, weights.num_classes) == ("poolformer_s12", 4)
    for name in ("ema.* (132)", *left):
        assert name in weights.note
    assert "extract_ema would take the average" in str(weights)
    monkeypatch.setattr(
        "sys.argv", f"_ extract_ema {tmp_path}/step.ckpt {tmp_path}/ema.ckpt".split()
    )
    main()
    assert "132 moving averages" in capsys.readouterr().out
    assert_same(read_weights(tmp_path / "ema.ckpt").values, values, -1)
    moments = [{"name": f"moments.{k}", "data": Tensor(v)} for k, v in values.items()]
    ms.save_checkpoint(moments, str(tmp_path / "optim.ckpt"))
    with pytest.raises(UserError, match="optim.ckpt: found parameters named moments.head.bias"):
        read_weights(tmp_path / "optim.ckpt")


def network_of(torch: Any, state: Values) -> Any:
    """A module with the parameters of a state dict."""
    network = torch.nn.Module()
    for name, value in state.items():
        *path, leaf = name.split(".")
        module = network
        for word in path:
            if not hasattr(module, word):
                module.add_module(word, torch.nn.Module())
            module = getattr(module, word)
        module.register_parameter(leaf, torch.nn.Parameter(torch.tensor(value)))
    return network


@pytest.mark.long
def test_what_wraps_a_network(tmp_path: Path, torch: Any, official_s12: Values) -> None:
    path = tmp_path / "x.pth"
    network = network_of(torch, official_s12)
    torch.save(network.state_dict(), path)
    plain = read_weights(path)
    assert plain.note == ""
    holder = torch.nn.Module()  # as a LightningModule holds its network
    holder.model = network
    holder.criterion = torch.nn.Linear(2, 2)
    other = torch.nn.Module()  # with words that nobody knows
    other.vision = torch.nn.ModuleDict({"former": network})
    for module, note in [
        (torch.nn.DataParallel(network), "without module."),
        (torch.compile(torch.nn.DataParallel(network)), "without _orig_mod.module."),
        (torch.optim.swa_utils.AveragedModel(network), "without module.; left out: n_averaged"),
        (holder, "without model.; left out: criterion.* (2)"),
        (other, "without vision.former."),
    ]:
        torch.save({"state_dict": module.state_dict()}, path)
        weights = read_weights(path)
        assert_same(weights.values, plain.values)
        assert weights.note == f"taken is state_dict; the names are taken {note}"


def test_two_networks_in_one_file(tmp_path: Path, torch: Any, official_s12: Values) -> None:
    state = {k: torch.tensor(v) for k, v in official_s12.items()}
    both = {f"model.{k}": v for k, v in state.items()} | {
        f"net.{k}": 0 * v for k, v in state.items()
    }
    torch.save(both, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"x.pth: found a network under net.\* and one under model.\*"
    ):
        read_weights(tmp_path / "x.pth")
    both = (
        state
        | {f"ema.{k}": 0 * v for k, v in state.items()}
        | {"decoder.extra": state["head.bias"]}
    )
    torch.save(both, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match="1 parameter does not fit the model: decoder.extra is not in"
    ):
        read_weights(tmp_path / "x.pth")


def test_mmpretrain(tmp_path: Path, torch: Any, official_s12: Values) -> None:
    theirs = {"norm": "backbone.norm6", "head": "head.fc"}
    state = {}
    for name, value in official_s12.items():
        word, _, rest = name.partition(".")
        state[f"{theirs.get(word, f'backbone.{word}')}.{rest}"] = torch.tensor(value)
    torch.save({"meta": {"epoch": 3}, "state_dict": state}, tmp_path / "epoch_3.pth")
    torch.save({k: torch.tensor(v) for k, v in official_s12.items()}, tmp_path / "x.pth")
    weights = read_weights(tmp_path / "epoch_3.pth")
    assert (weights.origin, weights.note) == ("MMPretrain", "taken is state_dict; left out: meta")
    assert_same(weights.values, read_weights(tmp_path / "x.pth").values)


def test_integers_are_no_weights(tmp_path: Path, torch: Any, official_s12: Values) -> None:
    state = {k: torch.tensor(v) for k, v in official_s12.items()}
    state["head.bias"] = state["head.bias"].to(torch.int8)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match="x.pth: found head.bias in int8, expected floats"):
        read_weights(tmp_path / "x.pth")
