from __future__ import annotations

import numpy as np
import pytest

from mindcv_poolformer.data.order import epoch_order, steps_per_epoch
from mindcv_poolformer.runtime.errors import UserError


def test_steps_per_epoch():
    assert steps_per_epoch(10, 4, 1, True) == 2
    assert steps_per_epoch(10, 4, 1, False) == 3
    assert steps_per_epoch(1_281_167, 128, 8, True) == 1251
    assert steps_per_epoch(3, 4, 2, False) == 1
    with pytest.raises(UserError, match="10 images, expected at least 12.*batch_size 3 on 4"):
        steps_per_epoch(10, 3, 4, True)


def test_epoch_order():
    assert epoch_order(5, 3, 1, shuffle=False).tolist() == [0, 1, 2, 3, 4]
    first = epoch_order(100, 0, 1, shuffle=True)
    assert sorted(first) == list(range(100))
    np.testing.assert_array_equal(first, epoch_order(100, 0, 1, shuffle=True))
    for epoch, seed in ((1, 1), (0, 2)):
        assert (first != epoch_order(100, epoch, seed, shuffle=True)).any()
