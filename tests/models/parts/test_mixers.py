"""Token mixers where the device decides what computes them."""

from __future__ import annotations

import inspect

import mindspore as ms
import pytest

from mindcv_poolformer.models.parts.ascend import has_flash_attention, trains_transformers


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
