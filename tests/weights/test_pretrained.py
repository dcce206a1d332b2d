"""Published weights, from a real server on this machine."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import mindcv
import numpy as np
import pytest
from server import Server, serving

from mindcv_poolformer.config import ModelConfig
from mindcv_poolformer.models import VARIANTS, default_cfgs
from mindcv_poolformer.models.published import PUBLISHED
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import find_weights, read_weights, write_weights
from mindcv_poolformer.weights.names import POOLFORMER
from mindcv_poolformer.weights.pretrained import MINDCV_FILES, fetch, read_published

ROOT = Path(__file__).parents[2]
PLACE = "/sail/poolformer_s12/resolve/main"
CONTENT = np.random.default_rng(0).bytes(12_000_000)  # http_get writes ten million at a time


@pytest.fixture(autouse=True)
def nobody_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else huggingface_hub asks the hub about whoever runs it."""
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """It stands for the hub; the cache is empty."""
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("MINDCV_POOLFORMER_CACHE", str(tmp_path / "cache"))
        running.files["/w/x.ckpt"] = CONTENT
        yield running


@pytest.fixture(scope="module")
def repository(official_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a Hugging Face repository of a poolformer_s12."""
    folder = tmp_path_factory.mktemp("hub") / "repository"
    write_weights(read_weights(official_file), folder, "hf")
    return {f"{PLACE}/{file.name}": file.read_bytes() for file in folder.iterdir()}


def in_cache(tmp_path: Path) -> set[str]:
    """Names of what is there for use."""
    files = (tmp_path / "cache").rglob("*")
    return {file.name for file in files if file.is_file() and not file.name.startswith(".")}


def fetch_elsewhere(url: str, before: str = "") -> subprocess.Popen[str]:
    """The same in another process, with the cache of the environment."""
    code = (
        "import sys\nfrom mindcv_poolformer.runtime.errors import run\n"
        f"from mindcv_poolformer.weights.pretrained import fetch\n{before}\n"
        "run(lambda: print(fetch(sys.argv[1])))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
    )


def test_table() -> None:
    assert set(PUBLISHED) == set(VARIANTS) == set(default_cfgs)
    assert PUBLISHED["poolformer_m48"] == "sail/poolformer_m48"
    files = "sail/dl/resolve/main"  # of the official default_cfgs
    for name in (
        "identityformer/identityformer_m48",
        "randformer/randformer_s36",
        "poolformerv2/poolformerv2_s12",
        "convformer/convformer_b36_384_in21ft1k",
        "caformer/caformer_b36_in21k",
    ):
        assert PUBLISHED[name.split("/")[1]] == f"{files}/{name}.pth"
    release = "https://github.com/sail-sg/poolformer/releases/download/v1.0"  # its model_urls
    for name in ("metaformer_id_s12", "metaformer_ppaa_s12_224"):
        assert PUBLISHED[name] == f"{release}/{name}.pth.tar"
        assert default_cfgs[name]["url"] == PUBLISHED[name]
    assert default_cfgs["poolformer_s24"]["url"] == "https://huggingface.co/sail/poolformer_s24"
    assert mindcv.list_models("*former*_[sm]*", pretrained=True).count("poolformer_m36") == 1
    assert set(VARIANTS) <= set(mindcv.list_models(pretrained=True))
    for name, url in MINDCV_FILES.items():
        assert url.endswith(".ckpt") and "poolformer_s12" in name


def test_a_variant_that_nobody_publishes() -> None:
    with pytest.raises(UserError, match="found no published weights of my_own, expected ckpt_path"):
        read_published("my_own")


def test_second_use_makes_no_request(server: Server, tmp_path: Path) -> None:
    path = fetch(f"{server.url}/w/x.ckpt")
    assert path.read_bytes() == CONTENT
    assert [method for method, *_ in server.requests] == ["HEAD", "GET"]
    assert fetch(f"{server.url}/w/x.ckpt") == path
    assert len(server.requests) == 2
    other = fetch(f"{server.url}/w/x.ckpt", str(tmp_path / "other"))
    assert other.is_relative_to(tmp_path / "other")


def test_a_broken_line_is_taken_up_again(server: Server) -> None:
    server.cuts["/w/x.ckpt"] = 11_000_000
    assert fetch(f"{server.url}/w/x.ckpt").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=10485760-"]


def test_a_killed_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.stalls["/w/x.ckpt"] = 11_000_000
    process = fetch_elsewhere(f"{server.url}/w/x.ckpt")
    try:
        assert server.stalled.wait(120)
        deadline = time.monotonic() + 60
        while not any(f.stat().st_size for f in (tmp_path / "cache").rglob("*.incomplete")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    assert in_cache(tmp_path) == set()
    (unfinished,) = (tmp_path / "cache").rglob("*.incomplete")
    arrived = unfinished.stat().st_size
    assert fetch(f"{server.url}/w/x.ckpt").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={arrived}-"]
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def test_a_changed_file_is_not_mixed_with_its_old_half(server: Server, tmp_path: Path) -> None:
    path = fetch(f"{server.url}/w/x.ckpt")
    half = path.with_name(".x.ckpt.0000aaaa.incomplete")
    path.rename(half)
    half.write_bytes(CONTENT[:1000])
    server.files["/w/x.ckpt"] = CONTENT[::-1]
    assert fetch(f"{server.url}/w/x.ckpt").read_bytes() == CONTENT[::-1]
    assert server.ranges[-1] is None


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    server.etags["/w/x.ckpt"] = "0" * 64
    for _ in range(2):
        with pytest.raises(UserError, match=f"found SHA-256 .*, expected {'0' * 64} as .*curl"):
            fetch(f"{server.url}/w/x.ckpt")
        assert in_cache(tmp_path) == set()
        assert not list((tmp_path / "cache").rglob("*.incomplete"))
    server.etags["/w/x.ckpt"] = "md5-or-whatever"  # no SHA-256, nothing to compare
    assert fetch(f"{server.url}/w/x.ckpt").read_bytes() == CONTENT


def test_not_there(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/w/y.pth.tar"
    with pytest.raises(UserError) as error:
        fetch(url)
    assert str(error.value) == (
        f"{url}: found status 404, expected a file; by hand: curl -fL --create-dirs "
        f"-o weights/y.pth.tar {url}, then --ckpt_path weights/y.pth.tar"
    )
    assert in_cache(tmp_path) == set()


def test_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving() as closed:
        pass
    monkeypatch.setenv("HF_ENDPOINT", closed.url)
    monkeypatch.setenv("MINDCV_POOLFORMER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError) as error:
        mindcv.create_model("poolformer_s12", pretrained=True)
    url = f"{closed.url}{PLACE}"
    said = str(error.value)
    assert said.startswith(f"{url}/config.json: found no way to it (")
    assert "\n" not in said
    assert said.endswith(
        "by hand: curl -fL --create-dirs -o weights/model.safetensors "
        f"{url}/model.safetensors -o weights/config.json {url}/config.json, "
        "then --ckpt_path weights"
    )
    assert in_cache(tmp_path) == set()


def test_full_disk(server: Server, tmp_path: Path) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    out, err = fetch_elsewhere(f"{server.url}/w/x.ckpt", limit).communicate(timeout=180)
    assert re.fullmatch(r"error: [^\n]*x.ckpt: cannot be put at [^\n]*large[^\n]*curl[^\n]*\n", err)
    assert out == ""
    assert in_cache(tmp_path) == set()
    assert fetch(f"{server.url}/w/x.ckpt").read_bytes() == CONTENT  # with more room


def test_a_place_that_is_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be put at .*file"):
        fetch(f"{server.url}/w/x.ckpt", str(tmp_path / "file"))


@pytest.mark.long
def test_create_model(
    server: Server, repository: dict, official_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.files |= repository
    expected = read_weights(official_file).values
    with caplog.at_level(logging.INFO):
        network = mindcv.create_model("poolformer_s12", pretrained=True)
        seen = len(server.requests)
        few = mindcv.create_model("poolformer_s12", pretrained=True, num_classes=5, in_channels=1)
        maps = mindcv.create_model("poolformer_s12", pretrained=True, features_only=True)
    assert len(server.requests) == seen
    for parameter in network.get_parameters():
        assert (parameter.asnumpy() == expected[parameter.name]).all(), parameter.name
    names = {0: "tench, Tinca tinca", 999: "toilet tissue, toilet paper, bathroom tissue"}
    assert {number: network.id2label[number] for number in names} == names
    assert few.id2label[0] == "LABEL_0"  # its head is new
    stem = expected[POOLFORMER.stem].sum(axis=1, keepdims=True)
    assert (few.patch_embed.proj.weight.asnumpy() == stem).all()
    assert few.head.weight.shape == (5, 512)
    block = "network.6.1.mlp.fc2.weight"
    for other in (few, maps):
        assert (other.parameters_dict()[block].asnumpy() == expected[block]).all()
    levels = [record.levelname for record in caplog.records if "starting from" in record.message]
    assert levels == ["INFO", "WARNING", "WARNING"]
    with pytest.raises(UserError, match="weights for the head norm_pool, expected pool_norm"):
        mindcv.create_model("poolformer_s12", pretrained=True, head="pool_norm")


def test_a_segmenter_gets_its_backbone(
    server: Server, repository: dict, official_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.files |= repository
    network = mindcv.create_model("semantic_fpn_poolformer_s12", pretrained=True, num_classes=3)
    said = (
        "1,000 classes, 3 input channels, head norm_pool; published for ImageNet, as "
        "poolformer_s12; its backbone is taken, without norm and head; the norms of its maps, neck "
        "and head are new and untrained, for 3 classes"
    )
    assert said in caplog.text
    expected = read_weights(official_file).values
    blocks = network.backbone.parameters_dict().values()
    taken = {p.name.removeprefix("backbone."): p.asnumpy() for p in blocks}
    for name in taken.keys() & expected.keys():
        assert (taken[name] == expected[name]).all(), name
    assert expected.keys() - taken.keys() == {"norm.gamma", "norm.beta", "head.weight", "head.bias"}
    asked = ModelConfig(model="semantic_fpn_poolformer_s12", pretrained=True)
    assert find_weights(asked).model == "poolformer_s12"
    with pytest.raises(UserError, match="^best.ckpt: found no such file"):  # the run's own
        find_weights(asked, "best.ckpt")


@pytest.mark.parametrize("name", ["retinanet_poolformer_s12", "mask_rcnn_poolformer_s12"])
def test_a_detector_gets_its_backbone(
    name: str, server: Server, repository: dict, official_file: Path
) -> None:
    server.files |= repository
    network = mindcv.create_model(name, pretrained=True, num_classes=3, channels=8)
    expected = read_weights(official_file).values
    blocks = network.backbone.parameters_dict().values()
    taken = {p.name.removeprefix("backbone."): p.asnumpy() for p in blocks}
    for block in taken.keys() & expected.keys():
        assert (taken[block] == expected[block]).all(), block
    assert expected.keys() - taken.keys() == {"norm.gamma", "norm.beta", "head.weight", "head.bias"}
    assert {n.partition(".")[0] for n in network.parameters_dict()} >= {"backbone", "neck"}


def test_pickles_where_there_is_nothing_better(
    server: Server, repository: dict, official_s12: dict, caplog: pytest.LogCaptureFixture
) -> None:
    server.files[f"{PLACE}/config.json"] = repository[f"{PLACE}/config.json"]
    server.files[f"{PLACE}/pytorch_model.bin"] = b"weights"
    path = fetch(f"{server.url}/sail/poolformer_s12")
    assert path.read_bytes() == b"weights"
    assert (path.parent / "config.json").is_file()
    assert "has no model.safetensors, taking its pytorch_model.bin" in caplog.text
    seen = len(server.requests)
    assert fetch(f"{server.url}/sail/poolformer_s12") == path
    assert len(server.requests) == seen


@pytest.mark.long
def test_what_a_recipe_can_name(
    server: Server, repository: dict, official_file: Path, tmp_path: Path
) -> None:
    server.files |= repository
    server.files["/mirror/s12.safetensors"] = official_file.read_bytes()
    tagged = "/timm/poolformer_s12.sail_in1k"
    server.files[f"{tagged}/resolve/main/model.safetensors"] = official_file.read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    for path, content in repository.items():
        (folder / Path(path).name).write_bytes(content)
    address = f"{server.url}/mirror/s12.safetensors"
    for source in (address, f"{server.url}{PLACE}/model.safetensors", str(folder)):
        weights = find_weights(ModelConfig(ckpt_path=source))
        assert (weights.model, weights.num_classes) == ("poolformer_s12", 1000)
        assert weights.classes == ()  # the address may be of anybody's fine-tuning
    weights = find_weights(ModelConfig(ckpt_path=f"{server.url}{tagged}"))
    assert weights.classes[281] == "tabby, tabby cat"
    assert find_weights(ModelConfig(), official_file).path == official_file
    with pytest.raises(UserError, match="model: found poolformer_s24 for .*its poolformer_s12"):
        find_weights(ModelConfig(model="poolformer_s24", ckpt_path=address))
    with pytest.raises(UserError, match="nope.ckpt: found no such file"):
        find_weights(ModelConfig(ckpt_path="nope.ckpt"))
