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
keep this below 1/2: then rounding is exact. Where n products are summed before they are transformed
back, and s holds digits of up to m, the bound is n m times as large, and n - 1 u more in the sums.
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing
from jaxtyping import Int, Int8, UInt, UInt64

from pqjax.errors import InputError
from pqjax.ring import Ring, aligned, kernel, matmul
from pqjax.ring.ring import Array

Polynomials = UInt64[np.ndarray, "n N"]
Small = Int8[np.ndarray, "n N"]
_BLOCKS = (4, 16, 64, 256)  # rows at a time: few shapes, and what is between transforms stays near
_FEW = (16, 64, 128)  # wanted coefficients: more of them cost more than transforms


def error_bound(degree: int, digit_bits: int, most: int = 1, terms: int = 1) -> float:
    """Most that a coefficient is off before it is rounded, see above: m = most, n = terms."""
    own = (22 * math.log2(degree // 2) + 20 + terms) * terms * most
    return 1.01 * 2.0**-53 * own * 2.0 ** (digit_bits - 1) * degree


def digits(degree: int, bits: int, most: int = 1, terms: int = 1) -> int:
    """Into how many digits coefficients of so many bits are cut."""
    fits = lambda n: error_bound(degree, -(-bits // n), most, terms) < 0.5
    return next(n for n in range(1, bits + 1) if fits(n))


def product(a: UInt[np.ndarray, "n N"], small: Small, bits: int) -> Polynomials:
    """Row by row a * small mod 2^bits, exact. Either may be a single row that meets all of the other.

    Args:
      a: unsigned coefficients, reduced mod 2^bits.
      small: int8 coefficients of -1, 0 and 1.
      bits: log2 of the modulus, 1..64.
    """
    degree, n = _checked(a, small)
    count = digits(degree, bits)
    assert error_bound(degree, -(-bits // count)) < 0.5
    out = np.empty((n, degree), np.uint64)
    for at, m in _blocks(n):
        parts = [_rows(x, at, m, kind) for x, kind in ((a, np.uint64), (small, np.int8))]
        out[at : at + m] = np.asarray(_product_kernel(*parts, bits=bits, count=count))[:m]
    return out


def coefficients(
    a: UInt[np.ndarray, "n N"], small: Small, at: Int[np.ndarray, " m"], bits: int
) -> UInt64[np.ndarray, "n m"]:
    """The coefficients of `product` at so many places.

    Where one of a and small is a single row, a few cost less as a product of int8 digits with a matrix
    of that row's turned copies, one a place.
    """
    _, n = _checked(a, small)
    if len(at) > _FEW[-1] or 1 not in (len(a), len(small)):
        return product(a, small, bits)[:, at]
    one, rows = (small[0], a) if len(small) == 1 else (a[0].astype(np.uint64), small)
    whole = Ring(-(-bits // 8) * 8)  # few rings, few kernels
    turned = np.zeros((len(one), next(m for m in _FEW if len(at) <= m)), one.dtype)
    # X^N = -1: what would lie below 0 is minus what lies N above.
    doubled = np.concatenate([np.negative(one), one])
    turned[:, : len(at)] = doubled[len(one) + at - np.arange(len(one))[:, None]]
    ternary = "b" if one.dtype == np.int8 else "a"
    bound = {f"{ternary}_bits": 2, f"{ternary}_signed": True}
    out = np.empty((n, len(at)), np.uint64)
    for first, m in _blocks(n):
        block = _rows(rows, first, m, rows.dtype) if n > 1 else rows
        out[first : first + m] = matmul(block, turned, whole, **bound)[:m, : len(at)]
    return out & np.uint64(Ring(bits).mask)


def digit_sums(
    high: UInt[np.ndarray, "n N"], width: int, others: Polynomials, bits: int
) -> Polynomials:
    """Row by row  sum d_j others_j  mod 2^bits, exact, for the balanced digits d_j of a row.

    Args:
      high: in Ring(width len(others)); d_0 is its highest digit, and what its carry would be is dropped.
      width: bits of a digit.
      others: reduced mod 2^bits, one for every digit.
      bits: log2 of the modulus, 1..64.
    """
    terms, degree = others.shape
    count = digits(degree, bits, 1 << width - 1, terms)
    out = np.empty((len(high), degree), np.uint64)
    for at, m in _blocks(len(high)):
        found = _digit_sums_kernel(
            _rows(high, at, m, high.dtype), others, bits=bits, width=width, count=count
        )
        out[at : at + m] = np.asarray(found)[:m]
    return out


def bilinear(
    own: tuple[UInt[np.ndarray, "i j N"], UInt[np.ndarray, "j k N"]],
    others: tuple[UInt64[np.ndarray, "z i j N"], UInt64[np.ndarray, "z j k N"]],
    own_bits: int,
    bits: int,
) -> UInt64[np.ndarray, "z i k N"]:
    """Sums of products of matrices of polynomials, a b' + a' b mod 2^bits for each (a', b'), exact.

    Args:
      own: a and b in Ring(own_bits), read as two's complement.
      others: z pairs a', b', reduced mod 2^bits.
      own_bits: of coefficients of a and b, fewer than bits.
      bits: log2 of the modulus, 2..64.
    """
    terms, degree = 2 * own[0].shape[1], own[0].shape[-1]
    for width in range(bits, 0, -1):  # as few digits of either as there can be
        counts = -(-(own_bits + 1) // width), -(-bits // width)
        if error_bound(degree, width, 1 << width - 1, terms * counts[0]) < 0.5:
            break
    signed = [Ring(own_bits).signed(x).astype(np.int64) for x in own]
    found = []
    for pair in zip(*others, strict=True):
        both = (Ring(bits).signed(x).astype(np.int64) for x in pair)
        found.append(np.asarray(_bilinear_kernel(*signed, *both, width=width, counts=counts)))
    return np.stack(found) & np.uint64(Ring(bits).mask)


def _checked(a: np.ndarray, small: np.ndarray) -> tuple[int, int]:
    """N, and how many rows the result has; InputError for operands that are none."""
    degree, n = a.shape[-1], max(len(a), len(small))
    if a.ndim != 2 or small.ndim != 2 or small.shape[1] != degree or degree & (degree - 1):
        raise InputError(f"expected rows of 2^k coefficients, got {a.shape} and {small.shape}")
    if {len(a), len(small)} - {1, n} or not n or a.dtype.kind != "u" or small.dtype != np.int8:
        raise InputError(
            f"expected unsigned and int8, as many rows or one, got {a.dtype} {a.shape} and "
            f"{small.dtype} {small.shape}"
        )
    if small.max() > 1 or small.min() < -1:
        raise InputError("the small polynomials must be ternary")
    return degree, n


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    """Where each block of rows begins, and how many they are."""
    return ((at, min(_BLOCKS[-1], n - at)) for at in range(0, n, _BLOCKS[-1]))


def _rows(x: np.ndarray, at: int, m: int, dtype: np.typing.DTypeLike) -> np.ndarray:
    """Rows at.. of many, and zeros up to one of few lengths; a single row as it is."""
    if len(x) == 1:
        return x.astype(dtype)
    out = aligned((next(b for b in _BLOCKS if m <= b), x.shape[1]), dtype)
    out[:m], out[m:] = x[at : at + m], 0
    return out


def _turn(half: int) -> jax.Array:
    return jnp.asarray(np.exp(1j * np.pi * np.arange(half) / (2 * half)))[None]


def _forward(x: jax.Array) -> jax.Array:
    half, x = x.shape[1] // 2, x.astype(jnp.float64)
    return jnp.fft.fft(jax.lax.complex(x[:, :half], x[:, half:]) * _turn(half))


def _back(x: jax.Array) -> jax.Array:
    y = jnp.fft.ifft(x) * jnp.conj(_turn(x.shape[1]))
    found = jnp.rint(jnp.concatenate([y.real, y.imag], axis=1)).astype(jnp.int64)
    return found.astype(jnp.uint64)


def _balanced(x: Array, bits: int, width: int, count: int) -> Iterator[jax.Array]:
    """Digits of x in Ring(bits), the lowest first."""
    return _digits(Ring(bits).signed(x).astype(jnp.int64), width, count)


def _digits(rest: jax.Array, width: int, count: int) -> Iterator[jax.Array]:
    for _ in range(count):
        low = Ring(width).signed(rest).astype(jnp.int64)
        rest = (rest - low) >> width  # what is above it, and its carry
        yield low


def _product(a: Array, small: Array, bits: int, count: int) -> jax.Array:
    width, other = -(-bits // count), _forward(small)
    total = jnp.zeros((1, 1), jnp.uint64)
    for i, low in enumerate(_balanced(a, bits, width, count)):
        total = total + (_back(_forward(low) * other) << (i * width))
    return Ring(bits).reduce(total)


def _digit_sums(high: Array, others: Array, bits: int, width: int, count: int) -> jax.Array:
    own, terms = -(-bits // count), others.shape[0]
    parts = [_forward(low) for low in _balanced(others, bits, own, count)]
    sums = [jnp.zeros((1, 1), jnp.complex128)] * count
    for i, low in enumerate(_balanced(high, width * terms, width, terms)):
        row = terms - 1 - i
        digit = _forward(low)
        sums = [s + digit * part[row][None] for s, part in zip(sums, parts, strict=True)]
    total = jnp.zeros((1, 1), jnp.uint64)
    for i, found in enumerate(sums):
        total = total + (_back(found) << (i * own))
    return Ring(bits).reduce(total)


def _bilinear(
    a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array, width: int, counts: tuple[int, int]
) -> jax.Array:
    """Makes a d + c b mod 2^64; a and b have the first of `counts` digits, c and d the second.

    What lies above all digits of c and d is left out.
    """

    def transforms(x: jax.Array, count: int) -> list[jax.Array]:
        rows = x.reshape(-1, x.shape[-1])
        found = (_forward(low) for low in _digits(rows, width, count))
        return [row.reshape(*x.shape[:-1], -1) for row in found]

    few, many = counts
    left, right = (transforms(x, few) for x in (a, b))
    first, second = (transforms(x, many) for x in (c, d))
    total = jnp.zeros((1, 1), jnp.uint64)
    for place in range(many):
        sums = jnp.zeros((), jnp.complex128)
        for i in range(max(0, place + 1 - many), min(few, place + 1)):
            for one, other in ((left[i], second[place - i]), (first[place - i], right[i])):
                sums = sums + (one[:, :, None] * other[None]).sum(1)
        found = _back(sums.reshape(-1, sums.shape[-1]))
        total = total + (found << (place * width))
    return total.reshape(a.shape[0], b.shape[1], -1)


_product_kernel = kernel(_product, static=("bits", "count"))
_digit_sums_kernel = kernel(_digit_sums, static=("bits", "width", "count"))
_bilinear_kernel = kernel(_bilinear, static=("width", "counts"))
