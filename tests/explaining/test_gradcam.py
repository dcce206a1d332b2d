"""Grad-CAM against places known beforehand, finite differences, and transformers with autograd."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
import pytest
from colours import tell_colours
from mindspore import Parameter, Tensor, nn
from official import load_official_weights, transformers_twin
from overwriting import overwriting

from mindcv_poolformer.explaining.gradcam import GradCam, heat, places, stage_for
from mindcv_poolformer.models import MetaFormer, PoolFormer, StagedClassifier

DEPTHS, DIMS = (1, 2, 1, 1), (8, 12, 16, 24)
IMAGES = np.random.default_rng(3).standard_normal((2, 3, 96, 64)).astype(np.float32)


def colour_network(head: str = "norm_pool") -> PoolFormer:
    return tell_colours(PoolFormer((1, 1, 1, 1), (4, 4, 4, 4), num_classes=3, head=head))


def paint(image: np.ndarray, colour: int, top: int, left: int, edge: int) -> None:
    image[colour, top : top + edge, left : left + edge] = 1


@pytest.mark.parametrize(
    ("head", "mode"),
    [
        pytest.param("norm_pool", ms.GRAPH_MODE, marks=pytest.mark.long),
        ("pool_norm", ms.PYNATIVE_MODE),
    ],
)
def test_the_map_lights_up_where_the_class_is(head: str, mode: int) -> None:
    ms.set_context(mode=mode)
    places = [(0, 96), (96, 0), (64, 32)]
    image = np.zeros((3, 128, 128), np.float32)
    for colour, (top, left) in enumerate(places):
        paint(image, colour, top, left, 32)
    maps = GradCam(colour_network(head)).maps(np.stack([image] * 3), [0, 1, 2])
    assert maps.shape == (3, 4, 4)
    for found, (top, left) in zip(maps, places, strict=True):
        large = heat(found, 32, (128, 128), (128, 128))
        y, x = np.unravel_index(large.argmax(), large.shape)
        assert top - 8 <= y < top + 40 and left - 8 <= x < left + 40  # a place is 32 pixels
        assert large[top : top + 32, left : left + 32].mean() > 3 * large.mean()


def test_maps_stay_when_others_follow(monkeypatch: pytest.MonkeyPatch, pynative_mode: None) -> None:
    cam = GradCam(colour_network())
    monkeypatch.setattr(GradCam, "__call__", overwriting(nn.Cell.__call__))
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    found = cam.maps(images, [0, 1])
    before = found.copy()
    assert (cam.maps(-images, [1, 0]) != before).any()
    assert found.tobytes() == before.tobytes()


def test_an_earlier_stage_tells_the_place_more_finely(pynative_mode: None) -> None:
    image = np.zeros((1, 3, 128, 128), np.float32)
    paint(image[0], 0, 40, 80, 16)
    found = GradCam(colour_network(), stage=1).maps(image, [0])[0]
    assert found.shape == (16, 16)
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert 40 <= y * 8 + 4 < 56 and 80 <= x * 8 + 4 < 96


def test_nothing_lights_up_for_a_class_that_is_not_there(pynative_mode: None) -> None:
    image = np.zeros((1, 3, 128, 128), np.float32)
    paint(image[0], 0, 32, 32, 64)
    found = GradCam(colour_network("pool_norm")).maps(image, [2])
    assert not found.any()
    assert not heat(found[0], 32, (128, 128), (50, 50)).any()


def small_network(head: str = "norm_pool") -> PoolFormer:
    network = PoolFormer(DEPTHS, DIMS, num_classes=5, head=head)
    return load_official_weights(network).set_train(False)


@pytest.mark.long
@pytest.mark.layout
@pytest.mark.parametrize(("stage", "head"), [(0, "norm_pool"), (3, "pool_norm")])
def test_the_map_is_the_formula_by_finite_differences(
    stage: int, head: str, pynative_mode: None
) -> None:
    network, image, label = small_network(head), IMAGES[:1], 4
    found = GradCam(network, stage).maps(image, [label])[0]

    # A stage ends with x + scale * mlp(...): this bias moves a channel of its map everywhere.
    block = list(network.network)[2 * stage][-1]
    scale, bias = block.layer_scale_2.asnumpy(), block.mlp.fc2.bias
    activations = network.stage_maps(Tensor(image))[stage].asnumpy()[0]
    moves = 1 / scale
    expected = by_finite_differences(network, image, label, activations, bias, moves)
    np.testing.assert_allclose(found, expected, atol=0.01 * expected.max())


def by_finite_differences(
    network: StagedClassifier,
    image: np.ndarray,
    label: int,
    activations: np.ndarray,
    bias: Parameter,
    moves: np.ndarray,
) -> np.ndarray:
    """The map (h, w) of a stage, by what a bias that moves its channels does to the logit.

    Moving entry c of the bias by ``moves[c]`` moves channel c of ``activations`` by 1 everywhere.
    """
    ms.set_context(mode=ms.GRAPH_MODE)  # compiled once, as quick as the many calls want it
    before, step, weights = bias.asnumpy().copy(), 0.02, []
    for channel, move in enumerate(moves):
        logits = []
        for sign in (1, -1):
            moved = before.copy()
            moved[channel] += sign * step * move
            bias.set_data(Tensor(moved))
            logits.append(network(Tensor(image)).asnumpy()[0, label])
        weights.append((logits[0] - logits[1]) / (2 * step) / activations[0].size)
    bias.set_data(Tensor(before))
    expected = np.maximum((np.array(weights)[:, None, None] * activations).sum(0), 0)
    assert expected.max() > 0
    return expected


@pytest.mark.long
def test_the_map_of_a_metaformer_is_the_formula_too(pynative_mode: None) -> None:
    stage = 2
    network = MetaFormer((1, 1, 1, 1), (32, 32, 32, 32), "caformer", num_classes=5)
    load_official_weights(network).set_train(False)
    image, label = IMAGES[1:], 3
    activations = network.stage_maps(Tensor(image))[stage].asnumpy()[0]
    found = GradCam(network, stage).maps(image, [label])[0]
    assert found.shape == activations.shape[1:]

    # A stage ends with ... + mlp(...), whose last layer has no bias: here it gets one.
    mlp = network.stages[stage][-1].mlp
    biased = nn.Dense(4 * 32, 32)
    biased.weight.set_data(mlp.fc2.weight)
    biased.bias.set_data(Tensor(np.zeros(32, np.float32)))
    mlp.fc2 = biased
    expected = by_finite_differences(network, image, label, activations, biased.bias, np.ones(32))
    np.testing.assert_allclose(found, expected, atol=0.01 * expected.max())


@pytest.mark.long
def test_a_graph_gives_the_same_map_of_a_metaformer() -> None:
    network = load_official_weights(MetaFormer((1,) * 4, (32,) * 4, "caformer", num_classes=5))
    in_a_graph = GradCam(network, 2).maps(IMAGES, [3, 1])
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = GradCam(network, 2).maps(IMAGES, [3, 1])
    assert expected.max() > 0
    np.testing.assert_allclose(in_a_graph, expected, atol=1e-3 * expected.max())


@pytest.mark.long
@pytest.mark.parametrize("stage", [1, 3])
def test_the_map_is_that_of_transformers_and_autograd(stage: int, pynative_mode: None) -> None:
    torch = pytest.importorskip("torch", reason="needs torch to compare with")
    ours = small_network()
    theirs = transformers_twin(ours, DIMS)

    labels = [1, 3]
    output = theirs(torch.from_numpy(IMAGES), output_hidden_states=True)
    activations = output.hidden_states[stage]
    (gradients,) = torch.autograd.grad(output.logits[[0, 1], labels].sum(), activations)
    weights = gradients.mean((2, 3), keepdim=True)
    expected = torch.relu((weights * activations).sum(1)).detach().numpy()
    assert expected.max() > 0
    found = GradCam(ours, stage).maps(IMAGES, labels)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_the_network_stays_as_it_is(pynative_mode: None) -> None:
    network = small_network()
    names = [parameter.name for parameter in network.get_parameters()]
    logits = network(Tensor(IMAGES)).asnumpy()
    GradCam(network).maps(IMAGES, [0, 1])
    assert [parameter.name for parameter in network.get_parameters()] == names
    assert network(Tensor(IMAGES)).asnumpy().tobytes() == logits.tobytes()


def test_what_has_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match="found no classifier"):
        GradCam(PoolFormer(DEPTHS, DIMS, features_only=True))
    with pytest.raises(ValueError, match="stage: found 4, expected 0 to 3"):
        GradCam(small_network(), 4)
    with pytest.raises(ValueError, match="labels: found -1, expected 0 to 4"):
        GradCam(small_network()).maps(IMAGES[:1], [-1])


@pytest.mark.parametrize("image_size, stage", [(224, 3), (99, 3), (98, 2), (32, 1), (8, 0)])
def test_the_stage_for_a_size_has_places_to_tell(image_size: int, stage: int) -> None:
    assert stage_for(image_size) == stage


@pytest.mark.parametrize(
    "network", [colour_network, lambda: MetaFormer((1,) * 4, (8,) * 4, "poolformerv2")]
)
def test_places_are_those_of_the_maps(
    network: Callable[[], StagedClassifier], pynative_mode: None
) -> None:
    network = network()
    for size in (3, 7, 30, 33, 67):
        maps = network.stage_maps(Tensor(np.zeros((1, 3, size, size), np.float32)))
        assert [one.shape[2:] for one in maps] == [(places(size, s),) * 2 for s in range(4)]


def test_heat_lies_where_the_strided_convolutions_look() -> None:
    cam = np.zeros((4, 5), np.float32)
    cam[1, 3] = 0.2
    large = heat(cam, 8, (40, 32), (400, 320))
    assert large.shape == (320, 400)
    y, x = np.unravel_index(large.argmax(), large.shape)
    assert abs(y - 95) <= 5 and abs(x - 255) <= 5  # the middles of pixels 9 and 25
    assert large.min() == 0 and 0.9 < large.max() <= 1
