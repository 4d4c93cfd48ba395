import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nets.conv import conv, layer_conv, native_conv, rounded_conv
from nets.ops import Conv


def plain(x, kernel, stride=1):
    margin = (kernel.shape[0] // 2,) * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), (margin, margin), dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )  # fmt: skip


def integers(seed, *shapes, low=-8, high=8):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.integers(low, high, s), jnp.float32) for s in shapes]


@pytest.mark.parametrize(
    ("side", "window", "channels", "outs", "stride"),
    [(5, 3, 3, 8, 1), (32, 3, 16, 8, 1), (6, 1, 64, 16, 1), (4, 5, 8, 4, 1), (8, 3, 64, 16, 1),
     (32, 3, 16, 32, 2), (9, 3, 8, 8, 2), (8, 1, 8, 8, 2), (16, 3, 3, 8, 4)],
)  # fmt: skip
def test_conv_and_its_gradients_are_lax_conv_exactly_on_integers(
    side, window, channels, outs, stride
):
    out = -(-side // stride)
    shapes = (8, side, side, channels), (window, window, channels, outs), (8, out, out, outs)
    x, kernel, dy = integers(side, *shapes)

    y, back = jax.vjp(jax.jit(lambda x, k: conv(x, k, stride)), x, kernel)
    wanted, wanted_back = jax.vjp(lambda x, k: plain(x, k, stride), x, kernel)

    np.testing.assert_array_equal(y, wanted)
    for got, want in zip(back(dy), wanted_back(dy), strict=True):
        np.testing.assert_array_equal(got, want)


def test_conv_is_exact_for_eight_bit_operands():
    x, kernel = integers(0, (2, 9, 9, 64), (3, 3, 64, 8), low=-128, high=128)

    np.testing.assert_array_equal(conv(x, kernel), plain(x, kernel))


SAME = ((1, 1), (1, 1))


@pytest.mark.parametrize(
    "layer",
    [Conv("c", ("x",), 16, (3, 3), padding=SAME), Conv("c", ("x",), 8, (3, 3), (2, 2), SAME),
     Conv("c", ("x",), 4, (1, 1), (2, 2)), Conv("c", ("x",), 8, (3, 3), (2, 2), ((0, 1), (0, 1)), 8)],
    ids=["plain", "stride", "point", "depthwise"],
)  # fmt: skip
def test_both_convolutions_agree_but_for_rounding(layer):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(4, 10, 10, 8)), jnp.float32)
    kernel = jnp.asarray(
        rng.normal(size=(*layer.window, 8 // layer.groups, layer.channels)), jnp.float32
    )
    dy = jnp.asarray(rng.normal(size=(4, *layer.shape((10, 10, 8)))), jnp.bfloat16)

    results = []
    for way in (layer_conv, native_conv):
        y, back = jax.vjp(lambda x, k, way=way: way(x, k, layer).astype(jnp.bfloat16), x, kernel)
        results.append((y, *back(dy)))

    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        one, other = (np.asarray(a, np.float64) for a in (one, other))
        assert np.linalg.norm(one - other) < 0.006 * np.linalg.norm(one)  # bf16 keeps 8 bits
    assert rounded_conv(x, kernel, layer).dtype == jnp.bfloat16


def test_both_convolutions_are_the_same_where_bf16_is_exact():
    layer = Conv("c", ("x",), 16, (3, 3), padding=SAME)  # sums of 72 products of -1, 0 and 1
    x, kernel = integers(2, (3, 7, 7, 8), (3, 3, 8, 16), low=-1, high=2)

    np.testing.assert_array_equal(native_conv(x, kernel, layer), layer_conv(x, kernel, layer))
