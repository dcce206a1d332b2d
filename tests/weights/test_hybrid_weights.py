"""Weights of the hybrids: the official ones and ours, and which hybrid's they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mindcv
import numpy as np
import pytest
from hybrids import HYBRIDS, hybrid_shapes, hybrid_source
from official import official_name, official_state_dict
from server import serving

from mindcv_poolformer.classification import processor_for
from mindcv_poolformer.explaining.explanation import Explainer
from mindcv_poolformer.models.published import PUBLISHED
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import load_weights, read_weights, start_from, write_weights
from mindcv_poolformer.weights.__main__ import main
from mindcv_poolformer.weights.read import Source
from mindcv_poolformer.weights.recognise import recognise
from mindcv_poolformer.weights.unwrap import find_network
from mindcv_poolformer.weights.variant import variant_of


def test_every_hybrid_is_recognised_by_names_alone() -> None:
    for variant in HYBRIDS:
        values = {n: np.empty(s, np.float32) for n, s in hybrid_shapes(variant).items()}
        source = Source(Path(f"{variant}.pth.tar"), values, {})
        assert variant_of(find_network(source)[0], source, 1000, None) == variant


@pytest.mark.parametrize("variant", ["metaformer_pppa_s12_224", "metaformer_pppf_s12_224"])
def test_official_weights_come_under_our_names(variant: str) -> None:
    source = hybrid_source(variant, f"{variant}.pth.tar")
    weights = recognise(source)
    assert (weights.model, weights.origin) == (variant, "official (sail-sg)")
    assert len(weights.values) == len(source.values)
    for name, value in weights.values.items():
        assert value is source.values[official_name(name)]
    assert recognise(replace(source, path=Path("x.pth.tar"))).model == variant


def test_identity_and_pooling_have_the_same_parameters() -> None:
    source = hybrid_source("metaformer_id_s12")
    assert recognise(source).model == "poolformer_s12"
    assert recognise(source, "metaformer_id_s12").model == "metaformer_id_s12"
    told = replace(source, metadata={"model": "metaformer_id_s12"})
    assert recognise(told).model == "metaformer_id_s12"


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    source = hybrid_source("metaformer_ppaa_s12_224")
    few = replace(recognise(source).with_new_head(3), classes=("a",))
    write_weights(few, tmp_path / "x.ckpt", "ckpt")
    again = read_weights(tmp_path / "x.ckpt")
    assert again.metadata == few.metadata
    assert again.origin == "MindSpore"
    for name, value in few.values.items():
        assert again.values[name].tobytes() == value.tobytes(), name
    with pytest.raises(UserError, match="hf: found weights of a metaformer_pp.*a PoolFormer"):
        write_weights(few, tmp_path / "hf", "hf")
    network = mindcv.create_model("metaformer_ppaa_s12_224", num_classes=7)
    fresh = network.parameters_dict()["head.weight"].asnumpy().copy()
    assert "head is new and untrained, for 7 classes" in start_from(network, again)
    now = {name: p.asnumpy() for name, p in network.parameters_dict().items()}
    assert (now["head.weight"] == fresh).all()
    assert (now["network.3.proj.weight"] == few.values["network.3.proj.weight"]).all()


def test_misfits_are_named_as_the_file_names_them() -> None:
    source = hybrid_source("metaformer_pppa_s12_224")
    del source.values["network.7.1.layer_scale_1"]
    source.values["network.6.pos_embed"] = np.zeros((1, 512, 12, 12), np.float32)
    with pytest.raises(UserError) as error:
        recognise(source)
    assert "network.7.1.layer_scale_1 is missing" in str(error.value)
    assert "network.6.pos_embed found (1, 512, 12, 12), expected (1, 512, 7, 7)" in str(error.value)


def test_nobodys_hybrid() -> None:
    values = official_state_dict("poolformer_s12")
    attends = hybrid_shapes("metaformer_ppaa_s12_224")["network.7.0.token_mixer.qkv.weight"]
    values["network.6.0.token_mixer.qkv.weight"] = np.zeros(attends, np.float32)
    with pytest.raises(
        UserError, match="mixers none, none, none, attention in its stages, expected those of pool"
    ):
        recognise(Source(Path("x.pth"), values, {}))


def test_one_size_alone() -> None:
    network = mindcv.create_model("metaformer_ppff_s12_224")
    assert processor_for(network).transform.image_size == 224
    assert processor_for(network).transform.crop_pct == 0.95
    refusal = "found 256 with model metaformer_ppff_s12_224, expected 224: its spatial fc"
    with pytest.raises(UserError, match=f"image_size: {refusal}"):
        Explainer(network, image_size=256)
    network.preprocessing = processor_for(network).transform.to_dict() | {"image_size": 256}
    with pytest.raises(UserError, match=f"preprocessing: {refusal}"):
        processor_for(network)
    assert processor_for(mindcv.create_model("metaformer_id_s12")).transform.crop_pct == 0.9


@pytest.mark.long
def test_published_weights_and_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs torch to write its files")
    name = "metaformer_id_s12"
    values = hybrid_source(name).values
    torch.save({k: torch.from_numpy(v) for k, v in values.items()}, tmp_path / f"{name}.pth.tar")
    with serving() as server:
        monkeypatch.setenv("MINDCV_POOLFORMER_CACHE", str(tmp_path / "cache"))
        place = "/" + PUBLISHED[name].partition("github.com/")[2]
        monkeypatch.setitem(PUBLISHED, name, f"{server.url}{place}")
        server.files[place] = (tmp_path / f"{name}.pth.tar").read_bytes()
        network = mindcv.create_model(name, pretrained=True)
    for parameter in network.get_parameters():
        assert (parameter.asnumpy() == values[official_name(parameter.name)]).all()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["weights", "convert", f"{name}.pth.tar", "y.ckpt"])
    main()
    weights = read_weights("y.ckpt")
    assert weights.model == name
    load_weights(mindcv.create_model(name), weights)
