"""Power-of-two quantizers: the integer rule of inference, gradients straight through.

Values stay *integers held in f32* (exact below 2^24); a tensor of scale s means integer / 2^s. The
forward result is always the exact integer rule; only gradients are approximations.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Rule = Literal["saturate", "wrap"]


def power_of_two(exponent: Float[Array, "..."]) -> Float[Array, "..."]:
    """2^round(exponent), exact (exp2 itself may not be), with the gradient of 2^exponent."""
    whole = jnp.round(lax.stop_gradient(exponent)).astype(jnp.int32)
    exact = lax.bitcast_convert_type((whole + 127) << 23, jnp.float32)
    return exact * (1.0 + np.log(2.0) * (exponent - lax.stop_gradient(exponent)))


def round_half_up(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """floor(x + 1/2) with the gradient of the identity."""
    return lax.stop_gradient(jnp.floor(x + 0.5)) + (x - lax.stop_gradient(x))


def quantize_weight(
    weight: Float[Array, "*s"], scale: Float[Array, ""], bits: int
) -> Float[Array, "*s"]:
    """clip(round(weight * 2^scale)) as signed `bits`-bit integers held in f32.

    Clipped weights keep the identity's gradient, so that none is stuck at an end of a 2-bit range;
    the scale's gradient is that of the clipped value (trained quantization thresholds, arXiv
    1903.08066).
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    unit = power_of_two(scale)
    value = lax.stop_gradient(jnp.clip(jnp.floor(weight * unit + 0.5), low, high))
    through_weight = weight * lax.stop_gradient(unit)
    through_scale = jnp.clip(lax.stop_gradient(weight) * unit, low, high)
    return (
        value
        + (through_weight - lax.stop_gradient(through_weight))
        + (through_scale - lax.stop_gradient(through_scale))
    )


def requantize(
    x: Float[Array, "*s"],
    shift: Float[Array, ""],
    bits: int,
    rule: Rule = "saturate",
    negative: bool = False,
    cap: float | Float[Array, ""] | None = None,
) -> Float[Array, "*s"]:
    """Shifts integers right with rounding and fits them into `bits` bits, and a sign if `negative`.

    (x + 2^(shift-1)) >> shift, then a clamp to [0 or -2^bits, 2^bits - 1], or to an integer `cap` below
    by either rule, or the low bits. The gradient is the clamp's.
    """
    high = 2**bits - 1
    low = -high - 1 if negative else 0
    high = high if cap is None else cap
    real = x * power_of_two(-shift)
    inside = jnp.clip(real, low, high)
    value = jnp.floor(lax.stop_gradient(real) + 0.5)
    if rule == "wrap" and cap is None:
        span = high + 1 - low
        value = value - jnp.floor((value - low) * (1 / span)) * span
    else:
        value = jnp.clip(value, low, high)
    return lax.stop_gradient(value) + (inside - lax.stop_gradient(inside))


def floor_shift(x: Float[Array, "*s"], shift: int) -> Float[Array, "*s"]:
    """floor(x / 2^shift): the top bits of integers, with the gradient of the division."""
    real = x * 2.0**-shift
    return lax.stop_gradient(jnp.floor(real)) + (real - lax.stop_gradient(real))


def best_weight_scale(weight: np.ndarray, bits: int) -> int:
    """The exponent whose quantized weights have the least squared error."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return _least_error(weight, low, high)


def best_activation_scale(
    real: np.ndarray, bits: int, rule: Rule = "saturate", negative: bool = False
) -> int:
    """The exponent of least squared error; for `wrap` the largest that wraps nothing."""
    high = 2**bits - 1
    if rule == "wrap":
        top = max(float((np.abs(real) if negative else real).max()), 1e-9)
        return int(np.floor(np.log2((high + 0.499) / top)))
    return _least_error(real, -high - 1 if negative else 0, high)


def _least_error(real: np.ndarray, low: int, high: int) -> int:
    real = np.asarray(real, np.float32)
    top = max(float(np.abs(real).max()), 1e-9)
    first = int(np.floor(np.log2(max(high, 1) / top)))
    errors = {}
    for exponent in range(first - 1, first + 6):
        unit = np.float32(2.0**exponent)
        error = np.clip(np.floor(real * unit + 0.5), low, high) / unit - real
        errors[exponent] = float(np.square(error, dtype=np.float64).mean())
    return min(errors, key=errors.__getitem__)


def exact_scale(scale: jax.Array | np.ndarray | float) -> int:
    """The integer exponent a learned log2 scale stands for."""
    return int(np.round(np.asarray(scale)))
