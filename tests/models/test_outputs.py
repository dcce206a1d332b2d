from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from official import load_official_weights, transformers_twin
from op_by_op import op_by_op

from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.models.outputs import ClassifierOutput

IMAGES = np.random.default_rng(3).standard_normal((2, 3, 32, 64)).astype(np.float32)
LABELS = np.array([4, 0], np.int32)
DEPTHS, DIMS = (1, 0, 0, 1), (8, 16, 24, 32)


def small_model(**settings) -> nn.Cell:
    network = PoolFormer(DEPTHS, DIMS, num_classes=5, **settings)
    return load_official_weights(network).set_train(False)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    logits = logits.astype(np.float64)
    log_sum = np.log(np.exp(logits).sum(axis=1))
    return float(np.mean(log_sum - logits[np.arange(len(labels)), labels]))


def test_what_is_asked_for_is_given(both_modes: str) -> None:
    network = small_model()
    plain = network(Tensor(IMAGES))
    assert isinstance(plain, Tensor)
    stages = [stage.asnumpy() for stage in op_by_op(network.stage_maps, Tensor(IMAGES))]

    hidden = network(Tensor(IMAGES), output_hidden_states=True)
    assert isinstance(hidden, ClassifierOutput)
    assert hidden.loss is None
    assert [tuple(stage.shape) for stage in hidden.hidden_states] == [
        (2, 8, 8, 16),
        (2, 16, 4, 8),
        (2, 24, 2, 4),
        (2, 32, 1, 2),
    ]
    for found, expected in zip(hidden.hidden_states, stages, strict=True):
        np.testing.assert_allclose(found.asnumpy(), expected, rtol=0, atol=1e-4)

    labelled = network(Tensor(IMAGES), labels=Tensor(LABELS))
    assert labelled.hidden_states is None
    expected_loss = cross_entropy(plain.asnumpy(), LABELS)
    assert labelled.loss.asnumpy() == pytest.approx(expected_loss, abs=1e-5)

    loss, logits, maps = network(
        Tensor(IMAGES), labels=Tensor(LABELS.astype(np.int64)), output_hidden_states=True
    )
    assert loss.asnumpy() == pytest.approx(expected_loss, abs=1e-5)
    assert len(maps) == 4
    for output in (hidden.logits, labelled.logits, logits):
        np.testing.assert_allclose(output.asnumpy(), plain.asnumpy(), rtol=0, atol=1e-5)


def test_gradients_of_the_loss_inside_a_graph(both_modes: str) -> None:
    network = small_model()

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        return network(images, labels=labels)[0]

    bias = network.head.bias
    gradients = ms.value_and_grad(loss_of, None, [bias])(Tensor(IMAGES), Tensor(LABELS))[1]
    powers = np.exp(op_by_op(network, Tensor(IMAGES)).asnumpy().astype(np.float64))
    expected = powers / powers.sum(axis=1, keepdims=True) - np.eye(5)[LABELS]
    np.testing.assert_allclose(gradients[0].asnumpy(), expected.mean(axis=0), rtol=0, atol=1e-5)


def test_what_has_no_meaning_is_refused(both_modes: str) -> None:
    backbone = PoolFormer(DEPTHS, DIMS, features_only=True, out_indices=(0,))
    with pytest.raises(ValueError, match="found features_only"):
        backbone(Tensor(IMAGES), output_hidden_states=True)
    assert isinstance(backbone(Tensor(IMAGES)), tuple)
    with pytest.raises(ValueError, match="labels: found Float32, expected int32 or int64"):
        small_model()(Tensor(IMAGES), labels=Tensor(np.eye(5, dtype=np.float32)[LABELS]))


def test_labels_out_of_range_and_left_out(both_modes: str) -> None:
    network = small_model()
    for label in (-1, 5):
        with pytest.raises(ValueError, match=f"labels: found {label}, expected 0 to 4, or -100"):
            network(Tensor(IMAGES), labels=Tensor([0, label], ms.int32))
    output = network(Tensor(IMAGES), labels=Tensor([-100, 2], ms.int32))
    expected = cross_entropy(output.logits.asnumpy()[1:], np.array([2]))
    assert output.loss.asnumpy() == pytest.approx(expected, abs=1e-5)


def test_names_of_classes() -> None:
    network = PoolFormer(DEPTHS, DIMS, num_classes=3)
    assert network.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    network.classes = ("cat", "dog")
    assert network.id2label == {0: "cat", 1: "dog", 2: "LABEL_2"}
    assert network.label2id == {"cat": 0, "dog": 1, "LABEL_2": 2}
    network.reset_classifier(1)
    assert network.id2label == {0: "LABEL_0"}
    network.classes = ("cat", "dog")
    with pytest.raises(ValueError, match="found 2 names for 1 class$"):
        _ = network.id2label


def test_outputs_are_those_of_transformers(pynative_mode: None) -> None:
    torch = pytest.importorskip("torch", reason="needs torch to compare with")
    ours = small_model()
    theirs = transformers_twin(ours, DIMS)

    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(IMAGES),
            labels=torch.from_numpy(LABELS.astype(np.int64)),
            output_hidden_states=True,
        )
    found = ours(Tensor(IMAGES), labels=Tensor(LABELS), output_hidden_states=True)
    assert list(expected.keys()) == list(found._fields)
    assert found.loss.asnumpy() == pytest.approx(expected.loss.item(), abs=1e-4)
    np.testing.assert_allclose(found.logits.asnumpy(), expected.logits.numpy(), rtol=0, atol=1e-4)
    for stage, hidden in zip(found.hidden_states, expected.hidden_states, strict=True):
        np.testing.assert_allclose(stage.asnumpy(), hidden.numpy(), rtol=0, atol=1e-4)
