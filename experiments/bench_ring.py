"""Rates of pqjax.ring's kernels, each beside what this machine's memory or int8 dot allows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pqjax.ring import Ring, conv, matmul, pack, transpose_bits, unpack

_REPEATS = 12
_ELEMENTS = 1 << 20


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A square convolution of stride 1 that keeps its image's side."""

    side: int
    channels: int
    out_channels: int
    kernel: int

    @property
    def inner(self) -> int:
        """Products per result: length of the matrix product's inner axis."""
        return self.kernel**2 * self.channels

    def __str__(self) -> str:
        h = self.kernel
        return f"{self.side}x{self.side}x{self.channels} -> {self.out_channels}, {h}x{h}"


# MiniONN's second convolution; of ResNet50 the 3x3 ones of every stage and 1x1 ones of first and last.
CONVOLUTIONS = (
    Convolution(32, 64, 64, 3),
    Convolution(56, 64, 64, 3),
    Convolution(28, 128, 128, 3),
    Convolution(14, 256, 256, 3),
    Convolution(7, 512, 512, 3),
    Convolution(56, 64, 256, 1),
    Convolution(7, 2048, 512, 1),
)


def limited(name: str, value: float, unit: str, limits: dict[str, float]) -> dict:
    """A row: a rate, the same rate if only one resource were in its way, and the ratios."""
    row: dict = {"name": name, "value": value, "unit": unit}
    for of, limit in limits.items():
        row |= {f"{of} limit": limit, f"of {of}": value / limit}
    return row


def rows() -> list[dict]:
    """One row per kernel: name, value, unit, and its limits by what they are of, see `limited`.

    Packing and transposition count the bytes of the unpacked side, once, against one copy of as
    many bytes to a warm buffer; they themselves write a fresh one. Widths of 8, 16, 32 and 64 bits
    have no rate: packing returns a view. Products count 2 m k n operations on ring elements against
    one int8 product of that shape; a product of limb counts p and q does up to p q of those.
    """
    return _byte_rows() + _product_rows()


def _byte_rows() -> list[dict]:
    rng = np.random.default_rng(0)
    found = []
    for bits in (1, 4, 12, 24):
        ring = Ring(bits)
        x = ring.reduce(rng.integers(0, 2**64, _ELEMENTS, dtype=np.uint64))
        packed = pack(x, bits)
        limit = copy_rate(x.nbytes)
        for name, work in (
            ("pack", lambda x=x, bits=bits: pack(x, bits)),
            ("unpack", lambda packed=packed, bits=bits: unpack(packed, _ELEMENTS, bits)),
        ):
            rate = x.nbytes / best(work)
            found.append(_row(f"{name} {bits} bits", rate / 1e9, "GB/s", limit / 1e9, "copy"))
    for height in (128, 256):
        columns = rng.integers(0, 256, (height, _ELEMENTS // 8), dtype=np.uint8)
        rate = columns.nbytes / best(lambda columns=columns: transpose_bits(columns))
        limit = copy_rate(columns.nbytes)
        name = f"transpose bits {height} x 2^20"
        found.append(_row(name, rate / 1e9, "GB/s", limit / 1e9, "copy"))
    return found


def _product_rows() -> list[dict]:
    rng = np.random.default_rng(0)
    found = []
    limit = int8_rate(1024, 1024, 1024)
    # Weights of 4 bits in the ring of a 4-bit network, and products of two full ring elements.
    for bits, a_bits, b_bits in ((16, 4, 4), (16, 4, 16), (16, 16, 16), (32, 32, 32)):
        ring = Ring(bits)
        a = rng.integers(-(2 ** (a_bits - 1)), 2 ** (a_bits - 1), (1024, 1024))
        a = a.astype(np.int32)
        b = ring.reduce(rng.integers(0, 2**b_bits, (1024, 1024)))
        seconds = best(
            lambda a=a, b=b, ring=ring, a_bits=a_bits, b_bits=b_bits: matmul(
                a, b, ring, a_bits=a_bits, a_signed=True, b_bits=b_bits
            )
        )
        name = f"matmul 1024^3, {bits} bits, operands {a_bits} and {b_bits}"
        found.append(_row(name, 2 * 1024**3 / seconds / 1e9, "GOP/s", limit / 1e9, "int8 dot"))
    for shape in CONVOLUTIONS:
        limit = int8_rate(shape.side**2, shape.inner, shape.out_channels)
        for bits, x_bits in ((16, 4), (16, 16), (24, 24)):
            ring = Ring(bits)
            x = ring.reduce(rng.integers(0, 2**x_bits, (1, shape.side, shape.side, shape.channels)))
            h = shape.kernel
            w = rng.integers(-8, 8, (h, h, shape.channels, shape.out_channels)).astype(np.int8)
            margin = (h // 2, h // 2)
            seconds = best(
                lambda x=x, w=w, ring=ring, x_bits=x_bits, margin=margin: conv(
                    x, w, ring, (1, 1), (margin, margin), x_bits=x_bits, w_bits=4, w_signed=True
                )
            )
            rate = 2 * shape.side**2 * shape.inner * shape.out_channels / seconds
            name = f"conv {shape}, {bits} bits, operands {x_bits} and 4"
            found.append(_row(name, rate / 1e9, "GOP/s", limit / 1e9, "int8 dot"))
    return found


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    work()
    best = float("inf")
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


def copy_rate(nbytes: int) -> float:
    """Bytes a second of copying so many to a warm buffer."""
    source, target = np.ones(nbytes, np.uint8), np.ones(nbytes, np.uint8)
    return nbytes / best(lambda: np.copyto(target, source))


def int8_rate(m: int, k: int, n: int) -> float:
    """Operations a second of one int8 product (m, k) (k, n)."""
    a, b = jnp.ones((m, k), jnp.int8), jnp.ones((k, n), jnp.int8)
    dot = jax.jit(lambda a, b: lax.dot(a, b, preferred_element_type=jnp.int32))
    return 2 * m * k * n / best(lambda: dot(a, b).block_until_ready())


def _row(name: str, value: float, unit: str, limit: float, of: str) -> dict:
    return limited(name, value, unit, {of: limit})
