import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nets.conv import conv


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
