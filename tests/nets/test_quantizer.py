import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nets.architecture import MINIONN
from nets.quantized import Widths
from nets.quantizer import (
    best_activation_scale,
    best_weight_scale,
    power_of_two,
    quantize_weight,
    requantize,
    round_half_up,
)


def integer_requantize(x: int, shift: int, bits: int, rule: str) -> int:
    x = x << -shift if shift < 0 else (x + ((1 << shift) >> 1)) >> shift
    return x % (1 << bits) if rule == "wrap" else min(max(x, 0), (1 << bits) - 1)


@pytest.mark.parametrize("exponent", [-126, -20, -1, 0, 1, 7, 24, 127])
def test_power_of_two_is_exact(exponent):
    assert float(power_of_two(jnp.float32(exponent))) == 2.0**exponent


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.integers(-(2**22), 2**22), min_size=8, max_size=8),
    shift=st.integers(0, 16),
    bits=st.integers(1, 8),
    rule=st.sampled_from(["saturate", "wrap"]),
)
def test_requantize_is_the_integer_rule(values, shift, bits, rule):
    got = requantize(jnp.array(values, jnp.float32), jnp.float32(shift), bits, rule)

    assert got.tolist() == [integer_requantize(v, shift, bits, rule) for v in values]


@pytest.mark.parametrize("rule", ["saturate", "wrap"])
def test_requantize_rounds_halves_up_everywhere(rule):
    x = np.arange(-300, 300)

    got = requantize(jnp.asarray(x, jnp.float32), jnp.float32(3), 4, rule)

    assert got.tolist() == [integer_requantize(int(v), 3, 4, rule) for v in x]


@settings(deadline=None, max_examples=60)
@given(
    numerators=st.lists(st.integers(-4096, 4096), min_size=8, max_size=8),
    scale=st.integers(-3, 8),
    bits=st.integers(2, 8),
)
def test_quantize_weight_is_the_integer_rule(numerators, scale, bits):
    weight = np.array(numerators) / 256  # halves occur for every scale below 8

    got = quantize_weight(jnp.asarray(weight, jnp.float32), jnp.float32(scale), bits)

    exact = np.floor(weight * 2.0**scale + 0.5)
    assert got.tolist() == np.clip(exact, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).tolist()


def test_gradients_pass_straight_through():
    x = jnp.array([-8.0, 20.0, 1000.0])

    rounded = jax.grad(lambda x: round_half_up(x).sum())(x)
    fitted = jax.grad(lambda x: requantize(x, jnp.float32(2), 4).sum())(x)
    clipped = jax.grad(lambda x: quantize_weight(x, jnp.float32(1), 2).sum())(x)

    assert rounded.tolist() == [1, 1, 1]
    assert fitted.tolist() == [0, 0.25, 0]
    assert clipped.tolist() == [2, 2, 2]


def test_a_scale_learns_to_leave_a_clipped_range():
    weight = jnp.array([3.0, 3.0])  # 2 bits hold at most 1 / 2^scale: the scale should fall

    def error(scale):
        return ((quantize_weight(weight, scale, 2) * power_of_two(-scale) - weight) ** 2).sum()

    assert float(jax.grad(error)(jnp.float32(0))) > 0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_best_weight_scale_has_the_least_error(bits):
    weight = np.random.default_rng(bits).normal(size=500).astype(np.float32)

    def error(scale):
        q = np.asarray(quantize_weight(jnp.asarray(weight), jnp.float32(scale), bits))
        return np.square(q / 2.0**scale - weight).mean()

    best = best_weight_scale(weight, bits)

    assert error(best) <= min(error(best - 1), error(best + 1))


def test_the_scale_for_wrapping_wraps_nothing():
    real = np.random.default_rng(0).gamma(1.0, 3.0, 1000).astype(np.float32)

    scale = best_activation_scale(real, 4, "wrap")

    assert np.floor(real.max() * 2.0**scale + 0.5) <= 15


@pytest.mark.parametrize("text", ["", "W4", "W9A4", "4,2/A4", "WxA4", "W4A99"])
def test_bad_widths_are_refused(text):
    with pytest.raises(ValueError, match="got"):
        Widths.parse(text, MINIONN)


def test_two_bit_networks_keep_four_at_both_ends():
    assert Widths.parse("W2A4", MINIONN).weights == (4, 2, 2, 2, 2, 2, 2, 4)
    assert Widths.parse("4,2,3,2,2,2,2,8/A5", MINIONN) == Widths((4, 2, 3, 2, 2, 2, 2, 8), 5)
