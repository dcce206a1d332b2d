"""Encrypted bundles: the right key alone opens them, and nothing shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import redescribe, sign
from checkpoints import CLASSES, TRANSFORM
from official import load_official_weights
from toy_classifier import ToyClassifier

from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.golden import self_test
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
KEY = b"the key of 32 bytes for AES-256!"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_bytes(KEY)
    return path


@pytest.fixture(scope="module")
def sealed(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, inputs: np.ndarray, key_file: Path
) -> Path:
    """An encrypted bundle, of the toy. Tests that change it take ``locked``, a copy."""
    target = tmp_path_factory.mktemp("sealed") / "bundle"
    network = load_official_weights(ToyClassifier()).set_train(False)
    trained = Trained(network, "toy", checkpoint, TRANSFORM, CLASSES)
    write_bundle(trained, target, inputs, Choices(deploy=False, key_file=str(key_file)))
    return target


@pytest.fixture
def locked(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "locked"))


def test_the_key_opens_it_and_nothing_else_does(
    locked: Path,
    tmp_path: Path,
    key_file: Path,
    folder: Path,
    inputs: np.ndarray,
    toy_logits: np.ndarray,
) -> None:
    bundle = load_bundle(locked, key_file=key_file)
    np.testing.assert_allclose(bundle.logits(inputs), toy_logits, atol=1e-4)
    assert self_test(bundle).startswith("self test at 32 px")
    content = (locked / "model.mindir").read_bytes()
    assert b"images" in (folder / "model.mindir").read_bytes()
    for word in (b"images", b"head.weight", b"MindSpore"):
        assert word not in content
    (tmp_path / "other").write_bytes(KEY[::-1])
    with pytest.raises(UserError, match="model.mindir: found it locked with another key"):
        load_bundle(locked, key_file=tmp_path / "other")
    with pytest.raises(UserError, match=r"found it encrypted \(AES-GCM\), expected --dec_key_file"):
        load_bundle(locked)
    with pytest.raises(UserError, match="dec_key_file: found one for .*, which is not encrypted"):
        load_bundle(folder, key_file=key_file)


def test_nothing_holds_the_key(locked: Path) -> None:
    for path in locked.iterdir():
        content = path.read_bytes()
        for form in (KEY, KEY.hex().encode()):
            assert form not in content, path
    readme = (locked / "README.md").read_text()
    assert "--dec_key_file KEY" in readme and '`"extra": {"key_file": "KEY"}`' in readme


def test_tampering_is_found_even_with_a_new_checksum(locked: Path, key_file: Path) -> None:
    path = locked / "model.mindir"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="model.mindir: found SHA-256"):
        load_bundle(locked, key_file=key_file)
    sign(locked, "model.mindir")
    with pytest.raises(UserError, match="model.mindir: found it locked with another key"):
        load_bundle(locked, key_file=key_file)


def test_a_description_of_another_graph(locked: Path, key_file: Path) -> None:
    redescribe(locked, lambda d: d["graphs"]["model.mindir"].update(batch_size=7))
    with pytest.raises(UserError, match=r"found a graph of \(-1, 3, 32, 32\) .* \(7, 3, 32, 32\)"):
        load_bundle(locked, key_file=key_file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found 0 bytes, expected 16, 24 or 32"),
        (KEY[:17], "found 17 bytes"),
        (KEY + b"\n", "found more than 32 bytes, expected 16, 24 or 32 and nothing else"),
    ],
)
def test_a_wrong_key_file_is_refused_before_the_work(
    trained: Trained, tmp_path: Path, inputs: np.ndarray, content: bytes, message: str
) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        write_bundle(trained, tmp_path / "bundle", inputs, Choices(key_file=str(tmp_path / "key")))
    assert KEY[:16].decode() not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_no_key_file(trained: Trained, tmp_path: Path, inputs: np.ndarray) -> None:
    with pytest.raises(UserError, match="key file .*nowhere: found 'No such file or directory'"):
        choices = Choices(key_file=str(tmp_path / "nowhere"))
        write_bundle(trained, tmp_path / "bundle", inputs, choices)


@pytest.mark.parametrize("length", [16, 24])
def test_shorter_keys(
    toy: Trained, tmp_path: Path, inputs: np.ndarray, toy_logits: np.ndarray, length: int
) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY[:length])
    choices = Choices(deploy=False, key_file=str(key_file))
    write_bundle(toy, tmp_path / "bundle", inputs, choices)
    logits = load_bundle(tmp_path / "bundle", key_file=key_file).logits(inputs)
    np.testing.assert_allclose(logits, toy_logits, atol=1e-4)


@pytest.mark.long
def test_no_log_shows_the_key(locked: Path, key_file: Path, tmp_path: Path) -> None:
    """At MindSpore's most talkative level, with the right key and with a wrong one."""
    (tmp_path / "other").write_bytes(KEY[::-1])
    shutil.copy(key_file, tmp_path / "key")
    for name, code in (("key", 0), ("other", 1)):
        flags = ["--bundle", str(locked), "--self_test", "--dec_key_file", name, "--debug"]
        done = subprocess.run(
            [sys.executable, str(ROOT / "predict.py"), *flags],
            cwd=tmp_path,
            env={**os.environ, "GLOG_v": "0", "MINDCV_POOLFORMER_GRAPH_KERNELS": "0"},
            capture_output=True,
        )
        assert done.returncode == code, done.stderr[-2000:]
        said = done.stdout + done.stderr
        key = (tmp_path / name).read_bytes()
        assert key not in said and key.hex().encode() not in said.lower()
