"""Negacyclic products by float64 FFT, exact: a * s in Z_{2^bits}[X] / (X^N + 1) for ternary s.

X^N = -1 makes of N real coefficients N/2 complex ones, x_j + i x_(j+N/2), each turned by
exp(i pi j / N); their cyclic products are the negacyclic ones.

**Error.** u = 2^-53, M = N / 2, |z| of a complex vector is its Euclidean norm. A radix-2 level (or its
share of a radix-4 or 8 pass) multiplies by a root of unity off by at most 2 u and adds: it errs by 8 u
of its norm (Higham, Accuracy and Stability of Numerical Algorithms, theorem 24.2), and along every
path from an input to an output by a factor within 1 +- 6 u. With log M levels and 6 u for each turn, to
first order

    transforms of a and s   each (8 log M + 6) u   of sqrt(M) |a| and sqrt(M) |s|
    their product           3 u more; its sum of magnitudes is at most M |a| |s| (Cauchy-Schwarz)
    back, largest entry     (6 log M + 6) u        of |a| |s|, along paths

so every coefficient is off by at most (22 log M + 21) u |a| |s|; 1 % covers the higher orders. Balanced
digits of a with b bits have |a| <= 2^(b-1) sqrt(N), and |s| <= sqrt(N). As many digits are taken as
keep this below 1/2: then rounding is exact.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int8, UInt64

from pqjax.errors import InputError
from pqjax.ring import Ring, aligned, kernel
from pqjax.ring.ring import Array

Polynomials = UInt64[np.ndarray, "n N"]
Small = Int8[np.ndarray, "n N"]
_BLOCKS = (4, 16, 64, 256)  # rows at a time: few shapes, and what is between transforms stays near


def error_bound(degree: int, digit_bits: int) -> float:
    """Most that a coefficient is off before it is rounded, see above."""
    return 1.01 * 2.0**-53 * (22 * math.log2(degree // 2) + 21) * 2.0 ** (digit_bits - 1) * degree


def digits(degree: int, bits: int) -> int:
    """Into how many digits coefficients of so many bits are cut."""
    return next(n for n in range(1, bits + 1) if error_bound(degree, -(-bits // n)) < 0.5)


def product(a: Polynomials, small: Small, bits: int) -> Polynomials:
    """Row by row a * small mod 2^bits, exact. Either may be a single row that meets all of the other.

    Args:
      a: uint64 coefficients, reduced mod 2^bits.
      small: int8 coefficients of -1, 0 and 1.
      bits: log2 of the modulus, 1..64.
    """
    degree, n = a.shape[-1], max(len(a), len(small))
    if a.ndim != 2 or small.ndim != 2 or small.shape[1] != degree or degree & (degree - 1):
        raise InputError(f"expected rows of 2^k coefficients, got {a.shape} and {small.shape}")
    if {len(a), len(small)} - {1, n} or not n or a.dtype != np.uint64 or small.dtype != np.int8:
        raise InputError(
            f"expected uint64 and int8, as many rows or one, got {a.dtype} {a.shape} and "
            f"{small.dtype} {small.shape}"
        )
    if small.max() > 1 or small.min() < -1:
        raise InputError("the small polynomials must be ternary")
    count = digits(degree, bits)
    assert error_bound(degree, -(-bits // count)) < 0.5
    out = np.empty((n, degree), np.uint64)
    for at in range(0, n, _BLOCKS[-1]):
        m = min(_BLOCKS[-1], n - at)
        parts = [_rows(x, at, m) for x in (a, small)]
        out[at : at + m] = np.asarray(_product_kernel(*parts, bits=bits, count=count))[:m]
    return out


def _rows(x: np.ndarray, at: int, m: int) -> np.ndarray:
    """Rows at.. of many, and zeros up to one of few lengths; a single row as it is."""
    if len(x) == 1:
        return x
    out = aligned((next(b for b in _BLOCKS if m <= b), x.shape[1]), x.dtype)
    out[:m], out[m:] = x[at : at + m], 0
    return out


def _product(a: Array, small: Array, bits: int, count: int) -> jax.Array:
    half, width = a.shape[1] // 2, -(-bits // count)
    turn = jnp.asarray(np.exp(1j * np.pi * np.arange(half) / (2 * half)))[None]

    def forward(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float64)
        return jnp.fft.fft(jax.lax.complex(x[:, :half], x[:, half:]) * turn)

    ring = Ring(bits)
    other, rest = forward(small), ring.signed(a).astype(jnp.int64)
    total = jnp.zeros((1, 1), jnp.uint64)
    for i in range(count):
        # The balanced digit; what is above it, and its carry, is the rest.
        low = Ring(width).signed(rest).astype(jnp.int64)
        rest = (rest - low) >> width
        y = jnp.fft.ifft(forward(low) * other) * jnp.conj(turn)
        found = jnp.rint(jnp.concatenate([y.real, y.imag], axis=1)).astype(jnp.int64)
        total = total + (found.astype(jnp.uint64) << (i * width))
    return ring.reduce(total)


_product_kernel = kernel(_product, static=("bits", "count"))
