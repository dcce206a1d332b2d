from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.segmentation import ade20k
from mindcv_poolformer.data.segmentation.digit_scenes import write_digit_scenes
from mindcv_poolformer.data.segmentation.palette import palette_of
from mindcv_poolformer.data.segmentation.scenes import own_scenes
from mindcv_poolformer.runtime.errors import UserError


@pytest.mark.long
def test_scenes_are_whole_and_their_labels_lie_on_the_notes(tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    write_digit_scenes(root)
    counts = np.zeros(11, np.int64)
    for split, count in (("train", 2000), ("val", 100)):
        scenes = own_scenes(root, split, reduce_zero_label=False)
        assert len(scenes) == count and scenes.classes == ("ground", *"0123456789")
        for number in range(0, count, 8):
            picture, label = scenes.read(number)
            quarters = label.reshape(2, 32, 2, 32).swapaxes(1, 2).reshape(4, -1)
            for quarter in quarters:
                assert len(np.unique(quarter[quarter > 0])) <= 1
                assert (quarter > 0).sum() == 0 or 26**2 <= (quarter > 0).sum() <= 32**2
            if label.any():
                brightest = picture.max(axis=2)
                assert np.median(brightest[label > 0]) < np.median(brightest[label == 0])
            counts += np.bincount(label.ravel(), minlength=11)
    assert (counts > 0).all() and 0.3 < counts[0] / counts.sum() < 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenes"]
    (root / "images" / "val" / "0000.png").unlink()
    with pytest.raises(UserError, match="not the complete digit scenes data set"):
        write_digit_scenes(root)


def test_palettes() -> None:
    assert (palette_of(ade20k.names()) == ade20k.colours()).all()
    voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]  # the devkit's first
    assert palette_of("abcde").tolist() == [list(colour) for colour in voc]
    image = Image.new("P", (1, 1))
    image.putpalette(palette_of(list(map(str, range(256)))).tobytes())
    assert image.getpalette()[3 * 255 :] == [224, 224, 192]
