import numpy as np
import pytest

from experiments.attention import Attention
from experiments.copriv import G2, SCALE_BITS, A, B, growth, minionn, resnet32
from experiments.table12 import attention_bits, shared_product_bits
from pqjax import plan, reference, run_local
from pqjax.graph import Product


def test_the_transforms_give_four_times_the_convolution():
    rng = np.random.default_rng(0)
    tile, kernel = rng.integers(-8, 8, (4, 4)), rng.integers(-2, 2, (3, 3))

    y = A @ ((G2 @ kernel @ G2.T) * (B @ tile @ B.T)) @ A.T

    direct = [[(tile[i : i + 3, j : j + 3] * kernel).sum() for j in (0, 1)] for i in (0, 1)]
    np.testing.assert_array_equal(y, np.array(direct) << SCALE_BITS)


def test_weights_grow_by_what_is_said_and_no_less():
    worst = np.full((3, 3), -(1 << 3))  # four bits
    for bits, place in zip(growth(), (G2 @ worst @ G2.T).reshape(-1), strict=True):
        assert -(1 << (3 + bits)) <= place
    assert sorted(set(growth())) == [2, 3, 4]


def test_networks_have_their_layers():
    assert sum(count for _, count in resnet32()) == 29
    assert [layer.resolution for layer, _ in minionn()] == [32, 32, 16, 16, 8]


@pytest.mark.parametrize("tokens", [1, 8, 32])
def test_planned_products_cost_what_the_formula_says_or_less_where_more_is_extended(tokens):
    made = plan(Attention(tokens, 32, 128, 3, 8).graph(projections=False), "privquant")

    found = sum(s.cost.both.bits for s in made.steps if isinstance(s.node, Product))

    assert found == attention_bits(tokens, 8) if tokens == 32 else found < attention_bits(tokens, 8)


def test_an_attention_layer_of_few_channels_is_exact_and_as_priced():
    rng = np.random.default_rng(0)
    small = Attention(3, 2, 8, 3, 8)
    graph, weights, x = small.graph(), small.weights(rng), small.input(rng)
    for protocol in ("privquant", "pqjax"):
        made = plan(graph, protocol)
        result = run_local(made, weights, x)
        np.testing.assert_array_equal(result.output, reference(graph, weights, x))
        assert made.differences(result.trace, 1) == []


def test_a_shared_product_costs_at_least_its_two_cross_terms():
    assert shared_product_bits(8, 16, 4, 8) > 2 * 8 * 16 * 4 * 8
    assert attention_bits(32, 8) > 32 * attention_bits(1, 8)
