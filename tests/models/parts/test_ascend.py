"""What is chosen by the name of an Ascend device, which is made up here."""

from __future__ import annotations

import inspect

import mindspore as ms
import pytest

from mindcv_poolformer.models.parts.ascend import (
    has_flash_attention,
    has_gelu,
    is_first_910,
    trains_transformers,
)


@pytest.mark.parametrize(
    ("device_name", "has_it"),
    [
        ("Ascend910A", False),
        ("Ascend910ProB", False),
        ("Ascend910B1", True),
        ("Ascend910B2C", True),
        ("Ascend910B3", True),
        ("Ascend910B4", False),
        ("Ascend910_9392", True),
        ("Ascend310P3", False),
        ("CPU", False),
    ],
)
def test_flash_attention_is_for_training_cards_of_a2_and_a3(device_name: str, has_it: bool) -> None:
    assert trains_transformers(device_name) is has_it


@pytest.mark.parametrize(
    ("device_name", "first"),
    [
        ("Ascend910", True),
        ("Ascend910A", True),
        ("Ascend910ProB", True),
        ("Ascend910PremiumA", True),
        ("Ascend910B2", False),
        ("Ascend910B4", False),
        ("Ascend910_9392", False),
        ("Ascend310P3", False),
    ],
)
def test_the_first_910_is_told_by_its_name(device_name: str, first: bool) -> None:
    assert is_first_910(device_name) is first


@pytest.mark.parametrize(
    ("device_name", "jit_level", "has_it"),
    [
        ("Ascend910B2", None, True),
        ("Ascend910B2", "O1", True),
        ("Ascend910B2", "O2", False),
        ("Ascend910A", None, False),
        ("Ascend910A", "O0", True),
        ("Ascend910A", "O2", False),
    ],
)
def test_gelu_is_one_operator_but_for_the_graph_engine(
    monkeypatch: pytest.MonkeyPatch, device_name: str, jit_level: str | None, has_it: bool
) -> None:
    answers = {"device_target": "Ascend", "device_id": 0}
    monkeypatch.setattr(ms, "get_context", answers.__getitem__)
    monkeypatch.setattr(ms.hal, "get_device_name", lambda device_id: device_name)
    config = {} if jit_level is None else {"jit_level": jit_level}
    monkeypatch.setattr(ms.context, "get_jit_config", lambda: config)
    assert has_gelu() is has_it


def test_a_cpu_has_neither() -> None:
    assert not has_gelu() and not has_flash_attention()


def test_the_device_is_asked_for_its_name_as_mindspore_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Only an NPU's answer is made up; the call must fit the function that is installed.
    signature = inspect.signature(ms.hal.get_device_name)
    asked = []

    def name_of(*args: object, **kwargs: object) -> str:
        asked.append(signature.bind(*args, **kwargs).arguments["device_id"])
        return "Ascend910B2"

    answers = {"device_target": "Ascend", "device_id": 3}
    monkeypatch.setattr(ms, "get_context", answers.__getitem__)
    monkeypatch.setattr(ms.hal, "get_device_name", name_of)
    assert has_flash_attention()
    assert asked == [3]
