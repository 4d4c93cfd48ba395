import jax
import numpy as np
import pytest
from students import exported, floated, quantized

from nets.architecture import MINIONN
from nets.data import integer_input
from nets.export import export, overflow_rates, top1
from nets.fold import equalize, fold_batch_norm
from pqjax.errors import GraphError
from pqjax.graph import load_model, reference, save_model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def floating(images):
    return floated(MINIONN, images)


@pytest.mark.parametrize(
    ("text", "rule"), [("W4A4", "saturate"), ("W2A4", "wrap"), ("8,3,2,4,5,2,3,8/A3", "saturate")]
)
def test_the_fake_quantized_network_is_the_integer_reference(
    floating, images, text, rule, tmp_path
):
    student = quantized(floating, images, text, rule)

    graph, weights, answers = exported(student, integer_input(images))

    assert len(np.unique(answers)) > 10  # no dead network
    save_model(tmp_path / "net.npz", graph, weights)
    again, stored, _ = load_model(tmp_path / "net.npz")
    assert again == graph
    assert all(np.array_equal(stored[name], weights[name]) for name in weights)


def test_wrapping_outside_the_range_is_the_reference_too(floating, images):
    net = quantized(floating, images, "W4A4", "wrap")
    for layer in net.layers:
        layer.out_scale[...] = layer.out_scale[...] + 2  # four times too large for the range

    graph, weights, _ = exported(net, integer_input(images))

    assert max(overflow_rates(graph, weights, images).values()) > 0


def test_top1_counts_right_answers(floating, images):
    graph, weights = export(quantized(floating, images, "W4A4", "saturate"))
    answers = np.asarray(reference(graph, weights, integer_input(images))).argmax(1)
    labels = answers.copy()
    labels[0] = (labels[0] + 1) % 10

    assert top1(graph, weights, images, labels) == 0.75


def test_folding_and_equalizing_change_nothing_but_rounding(floating, images):
    x = integer_input(images)
    plain, equal = fold_batch_norm(floating), equalize(fold_batch_norm(floating), MINIONN)
    outs = [float_forward(folded, x) for folded in (plain, equal)]

    np.testing.assert_allclose(outs[0], outs[1], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(outs[0], np.asarray(floating(x)), rtol=0.1, atol=0.1)  # bf16


def float_forward(folded, x):
    x = jax.numpy.asarray(x, jax.numpy.float32) / 256
    for i, (kernel, bias) in enumerate(folded[:-1]):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.numpy.maximum(x + bias, 0)
        if i in (1, 3):
            b, h, w, c = x.shape
            x = x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
    return np.asarray(x.reshape(len(x), -1) @ folded[-1][0] + folded[-1][1])


def test_an_accumulator_too_wide_for_exact_training_is_refused(floating, images):
    net = quantized(floating, images, "8,8,8,8,8,8,8,8/A8", "saturate")
    net.layers[1].kernel[...] = jax.numpy.full_like(net.layers[1].kernel[...], 1e6)

    with pytest.raises(GraphError, match="conv2.*bits"):
        export(net)
