from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mindcv_poolformer.data.detection.coco import (
    evaluation_pictures,
    split_paths,
    training_pictures,
)
from mindcv_poolformer.data.detection.digit_objects import write_digit_objects
from mindcv_poolformer.data.segmentation.digit_scenes import SCENES, write_digit_scenes
from mindcv_poolformer.data.segmentation.scenes import own_scenes
from mindcv_poolformer.runtime.errors import UserError


def test_objects_are_those_of_the_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pixel of a label lies in the mask of one object, of the same digit, and no other."""
    for split, count in (("train", 40), ("val", 12)):
        monkeypatch.setitem(SCENES, split, count)
    write_digit_objects(tmp_path / "objects")
    write_digit_scenes(tmp_path / "scenes")
    for split, count in SCENES.items():
        scenes = own_scenes(tmp_path / "scenes", split, reduce_zero_label=False)
        paths = split_paths(tmp_path / "objects", split)
        pictures = training_pictures(*paths, masks=True)
        assert len(evaluation_pictures(*paths)) == len(scenes) == count
        assert pictures.classes == tuple("0123456789")
        assert 0.9 < len(pictures) / count <= 1 and pictures.most_objects == 4
        for index in range(len(pictures)):
            annotated = pictures.read(index)
            pixels, label = scenes.read(int(pictures.ids[index]))
            assert (annotated.pixels == pixels).all()
            shown = np.zeros_like(label)
            for box, digit, mask in zip(annotated.boxes, annotated.labels, annotated.masks):
                assert (shown[mask > 0] == 0).all()
                shown[mask > 0] = digit + 1
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == box.tolist()
                area = pictures.file.areas[pictures.file.boxes[:, 2] == box[2] - box[0]][0]
                assert mask.sum() == area
            assert (shown == label).all()
    (tmp_path / "objects" / "annotations" / "instances_val.json").unlink()
    with pytest.raises(UserError, match="not the complete digit objects data set"):
        write_digit_objects(tmp_path / "objects")
