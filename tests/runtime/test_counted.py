"""Numbers with their nouns."""

import pytest

from mindcv_poolformer.runtime.counted import counted


@pytest.mark.parametrize(
    ("count", "words", "told"),
    [
        (1, ("epoch",), "1 epoch"),
        (0, ("epoch",), "0 epochs"),
        (12, ("class",), "12 classes"),
        (1, ("class",), "1 class"),
        (1949, ("training image",), "1,949 training images"),
        (2, ("link to nothing", "links to nothing"), "2 links to nothing"),
    ],
)
def test_noun_follows_its_number(count: int, words: tuple[str, ...], told: str) -> None:
    assert counted(count, *words) == told
