import numpy as np

from experiments.copriv import G2, SCALE_BITS, A, B, growth, minionn, resnet32
from experiments.table12 import attention_bits, shared_product_bits


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


def test_a_shared_product_costs_at_least_its_two_cross_terms():
    assert shared_product_bits(8, 16, 4, 8) > 2 * 8 * 16 * 4 * 8
    assert attention_bits(32, 8) > 32 * attention_bits(1, 8)
