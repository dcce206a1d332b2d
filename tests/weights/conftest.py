from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mindspore.nn.utils import no_init_parameters
from official import official_state_dict
from safetensors.numpy import save_file

from mindcv_poolformer.weights.__main__ import main


@pytest.fixture(autouse=True)
def _drawn_when_looked_at() -> Iterator[None]:
    """Draw no value before something reads it: a file's fill most, and of the rest many go unread.

    Drawing took a third of these tests' time.
    """
    with no_init_parameters():
        yield


@pytest.fixture(scope="session")
def official_s12() -> dict[str, np.ndarray]:
    """The state dict of a poolformer_s12 under sail-sg's names. Not to be changed."""
    return official_state_dict("poolformer_s12")


@pytest.fixture(scope="session")
def official_file(tmp_path_factory: pytest.TempPathFactory, official_s12: dict) -> Path:
    """The same as a .safetensors file."""
    path = tmp_path_factory.mktemp("official") / "s12.safetensors"
    save_file(official_s12, path)
    return path


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the command in tmp_path, within this process; give what it printed."""

    def call(*words: str | Path) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["weights", *map(str, words)])
        main()
        return capsys.readouterr().out

    return call
