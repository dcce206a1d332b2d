"""export.py and predict.py as a user runs them: from a checkpoint to probabilities."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import mindspore as ms
import numpy as np
import pytest
from bundles import sign
from mindspore import Tensor
from official import load_official_weights
from PIL import Image
from scripts import Ended, Running
from small_network import SMALL, small
from without_mindspore import PYTHON, without_mindspore

import predict
from mindcv_poolformer.data.preprocess import open_image
from mindcv_poolformer.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
CLASSES = ["zero", "one", "two", "three"]


def words(name: str, *flags: str) -> list[str]:
    return [str(ROOT / "tests" / "small_network.py"), str(ROOT / name), *flags]


def script(name: str, folder: Path, *flags: str) -> Ended:
    return forked.call(folder, words(name, *flags))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.ckpt, grey images of 32 x 32 and the bundle that export.py made."""
    folder = tmp_path_factory.mktemp("run")
    network = small(num_classes=4, in_channels=1)
    load_official_weights(network)
    metadata = {"model": SMALL, "num_classes": 4, "classes": CLASSES}
    text = json.dumps(metadata)
    ms.save_checkpoint(network, str(folder / "best.ckpt"), append_dict={"metadata": text})
    (folder / "photos" / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("3.png", "1.png", "deep/2.png"):
        pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / name)
    (folder / "photos" / "readme.txt").write_text("not an image")
    (folder / "recipe.yaml").write_text(
        f"model: {SMALL}\nin_channels: 1\nimage_resize: 32\ncrop_pct: 1.0\n"
        "mean: [100]\nstd: [50]\ndevice_target: CPU\nlr: 0.001\nscheduler: constant\n"
        "ckpt_save_dir: .\n"
    )
    done = script("export.py", folder, "-c", "recipe.yaml", "--sample_images", "photos")
    assert done.code == 0, done.err
    assert done.out.startswith(f"bundle/model.mindir: {SMALL} in fp32, deploy form, 0.")
    assert "logits on 3 images within " in done.out
    return folder


def expected_probabilities(run: Path, name: str) -> np.ndarray:
    """By the checkpoint, in PyNative mode, with the preprocessing spelt out."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = small(num_classes=4, in_channels=1)
    ms.load_param_into_net(network, ms.load_checkpoint(str(run / "best.ckpt")), strict_load=True)
    pixels = np.asarray(Image.open(run / "photos" / name), np.float32)
    logits = network.set_train(False)(Tensor((pixels[None, None] - 100) / 50)).asnumpy()[0]
    return np.exp(logits) / np.exp(logits).sum()


def test_json_of_a_folder_and_a_file(run: Path) -> None:
    flags = ["--bundle", "bundle", "--json", "--batch_size", "3", "--top_k", "9"]
    command = [sys.executable, *words("predict.py", "photos", "photos/1.png", *flags)]
    done = Running(run, command).finish()
    assert done.code == 0, done.err
    results = json.loads(done.out)
    names = ["1.png", "3.png", "deep/2.png", "1.png"]
    assert [result["image"] for result in results] == [f"photos/{name}" for name in names]
    for result, name in zip(results, names, strict=True):
        expected = expected_probabilities(run, name)
        found = {row["class"]: row["probability"] for row in result["predictions"]}
        assert found == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-5)
        assert [row["index"] for row in result["predictions"]] == list(np.argsort(-expected))


@pytest.mark.long
def test_without_mindspore(run: Path, tmp_path: Path) -> None:
    """On the command line and in Python, where there is but what `pip install .` brings."""
    variables = {**os.environ, **without_mindspore(tmp_path / "packages")}

    def ended(*given: str) -> subprocess.CompletedProcess[str]:
        command = [*PYTHON, *given]
        return subprocess.run(command, cwd=run, capture_output=True, text=True, env=variables)

    done = ended(str(ROOT / "predict.py"), "photos/1.png", "--bundle", "bundle", "--json")
    assert done.returncode == 0, done.stderr
    expected = dict(zip(CLASSES, expected_probabilities(run, "1.png"), strict=True))
    (result,) = json.loads(done.stdout)
    found = {row["class"]: row["probability"] for row in result["predictions"]}
    assert found == pytest.approx(expected, abs=1e-5)

    program = """if True:
        import json, sys
        from mindcv_poolformer import classify, load_bundle, load_model
        print(json.dumps([classify("photos/1.png", model) for model in ("bundle",
            load_bundle("bundle"), load_model("bundle"))]))
        assert not {"mindspore", "mindcv", "torch", "cv2"} & set(sys.modules)
        classify("photos/1.png", "best.ckpt")
    """
    done = ended("-c", program)
    for ranking in json.loads(done.stdout):
        assert dict(ranking) == pytest.approx(expected, abs=1e-5)
    assert done.stderr.splitlines()[-1].endswith(
        "UserError: model best.ckpt: found no bundle, and no package mindspore, expected either: "
        "pip install -r requirements.txt"
    )
    for given in (
        ["predict.py", "photos", "--bundle", "bundle", "--runtime", "mindspore"],
        ["train.py"],
        ["validate.py", "--bundle", "bundle"],
        ["export.py"],
        ["explain.py"],
        ["-m", "mindcv_poolformer.data", "check", "photos"],
        ["-m", "mindcv_poolformer.models", "list"],
        ["-m", "mindcv_poolformer.summary", "runs"],
        ["-m", "mindcv_poolformer.training", "compare", "runs"],
        ["-m", "mindcv_poolformer.weights", "convert", "best.ckpt", "best.safetensors"],
    ):
        first = given[0] if given[0] == "-m" else str(ROOT / given[0])
        done = ended(first, *given[1:])
        assert (done.returncode, done.stdout) == (1, ""), given
        assert re.fullmatch("error: .*found .*no package mindspore, expected it: .*\n", done.stderr)
    done = ended("-m", "mindcv_poolformer.serving", "bundle")
    assert (done.returncode, done.stderr) == (
        1,
        'error: mlserver: found no such package, expected it: pip install ".[serving]"\n',
    )


def test_table_needs_the_bundle_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "bundle").symlink_to(run / "bundle")  # the default bundle
    done = script("predict.py", tmp_path, str(run / "photos" / "3.png"), "--top_k", "2")
    assert done.code == 0, done.err
    expected = expected_probabilities(run, "3.png")
    first, second = np.argsort(-expected)[:2]
    assert done.out.splitlines() == [
        f"{run}/photos/3.png",
        f"  {expected[first]:7.2%}  {CLASSES[first]}",
        f"  {expected[second]:7.2%}  {CLASSES[second]}",
    ]


def test_self_test_is_one_line_and_a_damaged_bundle_fails_it(run: Path, tmp_path: Path) -> None:
    done = script("predict.py", tmp_path, "--bundle", str(run / "bundle"), "--self_test")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(
        r"self test at 32 px: logits of 3 images, batch size 3, in ONNX Runtime \S+, within \S+ "
        r"of the checkpoint's \(allowed 0.0001\), top-1 equal on 100%\n",
        done.out,
    )
    shutil.copytree(run / "bundle", tmp_path / "moved")
    golden = dict(np.load(tmp_path / "moved" / "golden.npz"))
    golden["logits"] = golden["logits"] + np.float32(0.5)
    np.savez(tmp_path / "moved" / "golden.npz", **golden)
    sign(tmp_path / "moved", "golden.npz")
    done = script("predict.py", tmp_path, "--bundle", "moved", "--self_test")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: self test at 32 px: found logits up to 0.5 off the check")
    assert done.err.count("\n") == 1


def test_bad_files_leave_the_others_their_answers(run: Path, tmp_path: Path) -> None:
    """Each has its line; a warning of Pillow's, of transparency in bytes, has none."""
    (tmp_path / "a.jpg").write_text("404 Not Found")
    palette = Image.new("P", (32, 32), 8)
    palette.putpalette(bytes(range(48)))
    palette.save(tmp_path / "b.png", transparency=bytes(range(100, 116)))
    with pytest.warns(UserWarning, match="Transparency expressed in bytes"):
        open_image(tmp_path / "b.png", 1)
    (tmp_path / "c.png").write_bytes((run / "photos" / "1.png").read_bytes()[:90])
    shutil.copy(run / "photos" / "3.png", tmp_path / "d.png")
    flags = ["--bundle", "bundle", "--top_k", "4", "--json"]
    alone = script("predict.py", run, str(tmp_path / "d.png"), *flags)
    for size in ("1", "16"):
        given = [str(tmp_path), "nowhere.png", *flags, "--batch_size", size]
        done = script("predict.py", run, *given)
        assert done.code == 1
        bad = [str(tmp_path / "a.jpg"), str(tmp_path / "c.png"), "nowhere.png"]
        lines = done.err.splitlines()
        assert len(lines) == 3
        for line, name in zip(lines, bad, strict=True):
            assert line.startswith(f"error: image {name} ")
        results = json.loads(done.out)
        assert [one["image"] for one in results if "error" in one] == bad
        assert [f"error: {one['error']}" for one in results if "error" in one] == lines
        assert [one["image"] for one in results if "predictions" in one] == [
            str(tmp_path / "b.png"), str(tmp_path / "d.png")
        ]  # fmt: skip
        (expected,) = json.loads(alone.out)
        found = {row["class"]: row["probability"] for row in results[3]["predictions"]}
        wanted = {row["class"]: row["probability"] for row in expected["predictions"]}
        assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "the following arguments are required: images"),
        (["a.png", "--top_k", "0"], "argument --top_k: found '0', expected an integer >= 1"),
        (["a.png", "--batch_size", "x"], "argument --batch_size: found 'x', expected an"),
        (["a.png", "--device_target", "GPU"], "argument --device_target: invalid choice"),
        (["a.png", "--self_test"], "found images or --json with --self_test, expected it alone"),
        (["a.png", "--image_size", "5x"], "argument --image_size: found '5x', expected an edge"),
        (["a.png", "--topk", "3"], "unrecognized arguments: --topk 3"),
    ],
)
def test_wrong_flags(
    flags: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["predict.py", *flags])
    with pytest.raises(argparse.ArgumentError) as caught:
        predict.main()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["photos", "--bundle", "photos"], "photos/model.json: found 'No such file"),
        (["photos", "--bundle", "nowhere"], "bundle nowhere: found no such folder"),
        (["photos", "--bundle", "bundle", "--image_size", "64"], "found 64, expected .*: 32"),
        (
            ["photos", "--bundle", "bundle", "--runtime", "onnx", "--device_target", "Ascend"],
            "runtime: found onnx with device_target Ascend, expected CPU",
        ),
        (["photos", "--bundle", "bundle", "--output_dir", "x"], "output_dir: found x with bundle,"),
        (["photos", "--bundle", "bundle", "--dec_key_file", "k"], "bundle, which is not encrypted"),
        (["nothing", "--bundle", "bundle"], "nothing: found no image in the folder"),
    ],
)
def test_mistakes(
    run: Path, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "nothing").mkdir(exist_ok=True)
    monkeypatch.chdir(run)
    monkeypatch.setattr("sys.argv", ["predict.py", *flags])
    with pytest.raises(UserError, match=message):
        predict.main()


@pytest.mark.parametrize(
    ("images", "batch_size", "size"),
    [(1, 16, 1), (16, 16, 16), (17, 16, 9), (33, 16, 11), (5, 2, 2), (5, 1, 1)],
)
def test_run_size_wastes_little(images: int, batch_size: int, size: int) -> None:
    assert predict.run_size(images, batch_size) == size
