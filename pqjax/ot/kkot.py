"""1-of-2^m OT extension with 256-bit Walsh-Hadamard codewords (KKOT, eprint 2013/491).

For every OT the receiver with choice c has a 256-bit row t, the sender q = t xor (C(c) and s) with
its secret s of 256 bits. C(v) is the Walsh-Hadamard codeword whose bit j is the parity of v and j:
any two differ in 128 places, so the sender's key H(q xor (C(v) and s)) for v other than c is hidden
by 128 bits of s. 256 bits per OT travel from receiver to sender. Local; `inline` moves the bytes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8, UInt64

from pqjax.crypto.prg import Stream, counters
from pqjax.ot.softspoken import pack_columns, rows_of, unpack_columns
from pqjax.ot.source import Choices, Raw

WideRows = UInt64[np.ndarray, "n 4"]
WIDTH = 256
MOST_BITS = 8


def codewords(m: int) -> UInt8[np.ndarray, "v 256"]:
    """C(0), ..., C(2^m - 1): (2^m, 256) bits."""
    v, j = np.arange(1 << m)[:, None], np.arange(WIDTH)[None]
    return (np.bitwise_count(v & j) & 1).astype(np.uint8)


def _code_columns(choices: np.ndarray, m: int, n_bytes: int) -> np.ndarray:
    """Bit column j of all choices' codewords: (256, n_bytes)."""
    columns = np.zeros((WIDTH, n_bytes), np.uint8)
    for bit in range(MOST_BITS):
        half = 1 << bit
        columns[half : 2 * half] = columns[:half]
        if bit < m:
            packed = np.packbits((choices >> bit) & 1, bitorder="little")
            columns[half : 2 * half, : packed.size] ^= packed
    return columns


def _draw(streams: list[Stream], block: int, blocks: int) -> np.ndarray:
    ready = counters(block, blocks)
    out = np.empty((len(streams), 16 * blocks), np.uint8)
    for stream, row in zip(streams, out, strict=True):
        stream.encrypt(ready, row)
    return out


class WideReceiver:
    """Knows both keys of each of 256 columns."""

    def __init__(self, keys: list[tuple[bytes, bytes]]):
        self._zero = [Stream(a) for a, _ in keys]
        self._one = [Stream(b) for _, b in keys]
        self._block = 0

    def extend(self, choices: Choices, m: int) -> tuple[WideRows, Raw]:
        """Rows t (n, 4) uint64 for m-bit choices (n,) uint8, and 256 n bits for the sender."""
        n = choices.size
        blocks = -(-n // 128)
        t = _draw(self._zero, self._block, blocks)
        u = _draw(self._one, self._block, blocks)
        self._block += blocks
        np.bitwise_xor(u, t, out=u)
        np.bitwise_xor(u, _code_columns(choices, m, u.shape[1]), out=u)
        return rows_of(t, n), pack_columns(u, n)


class WideSender:
    """Knows one key of each of 256 columns, the one its secret s selects."""

    def __init__(self, keys: list[bytes], secret: Choices):
        """Args: 256 keys and s, (256,) bits."""
        self._streams = [Stream(key) for key in keys]
        self._secret = secret.astype(bool)
        self._block = 0

    def extend(self, raw: Raw, n: int) -> WideRows:
        """Rows q (n, 4) uint64 from the receiver's 256 n bits."""
        blocks = -(-n // 128)
        q = _draw(self._streams, self._block, blocks)
        self._block += blocks
        u = unpack_columns(raw, WIDTH, n, q.shape[1])
        for column in np.flatnonzero(self._secret):
            np.bitwise_xor(q[column], u[column], out=q[column])
        return rows_of(q, n)

    def offsets(self, m: int) -> WideRows:
        """C(v) and s for every v: (2^m, 4) uint64."""
        bits = codewords(m) & self._secret.astype(np.uint8)
        return np.packbits(bits, axis=1, bitorder="little").view(np.uint64)
