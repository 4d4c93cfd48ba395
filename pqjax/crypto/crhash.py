"""The tweakable circular correlation-robust hash that breaks OT correlations (eprint 2019/074).

H(x, i) = p(p(x) xor i) xor p(x) with p a fixed-key AES: two bulk ECB passes. A tweak i is a counter
that never repeats within a session. The fixed key is public; it is the first 16 bytes of pi.
"""

from __future__ import annotations

import numpy as np
from Crypto.Cipher import AES

from pqjax.ring import aligned

PERMUTATION_KEY = bytes.fromhex("243f6a8885a308d313198a2e03707344")
_RUN = 1 << 14  # blocks at a time: input, middle and output stay in the second-level cache


def _permutation():
    return AES.new(PERMUTATION_KEY, AES.MODE_ECB)


_CIPHER = _permutation()  # ECB keeps no state between calls, so threads may share it


def _permute(x: np.ndarray, out: np.ndarray) -> None:
    _CIPHER.encrypt(x.data.cast("B"), output=out.data.cast("B"))


def _repeat(rows: np.ndarray, out: np.ndarray) -> None:
    """Every 128-bit row (m, 2) as often as `out` (m, blocks, 2) has room for it.

    Complex numbers are the only items of 16 bytes that numpy copies at the speed of memory.
    """
    out.view(np.complex128)[:, :, 0] = rows.view(np.complex128)


def offset_rows(x: np.ndarray, offset: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Every row of x xor an offset.

    Args:
      x: (n, 2) uint64, C-contiguous.
      offset: (2,) uint64.
      where: (n,) uint8, not secret: 1 for the rows that are offset, 0 for those copied; all if None.

    Returns:
      (n, 2) uint64.
    """
    out = np.empty_like(x)
    if where is None:
        _repeat(offset[None], out[None])
    else:
        choices = np.stack([np.zeros_like(offset), offset]).view(np.complex128)[:, 0]
        np.take(choices, where, out=out.view(np.complex128)[:, 0], mode="clip")
    return np.bitwise_xor(out, x, out=out)


def hash_blocks(x: np.ndarray, first_tweak: int | np.ndarray, blocks: int = 1) -> np.ndarray:
    """Hashes each row to `blocks` 128-bit blocks.

    Args:
      x: (n, 2) uint64, C-contiguous: the 128-bit inputs.
      first_tweak: row j's block b uses tweak first_tweak + j * blocks + b; or, for one block a
        row, the tweak of every row, (n,) uint64.
      blocks: blocks of output per row.

    Returns:
      (n, blocks, 2) uint64, where kernels can read it in place.
    """
    n = x.shape[0]
    out = aligned((n, blocks, 2), np.uint64)
    rows = max(1, min(n, _RUN // blocks))
    head = np.empty((rows, 2), np.uint64)
    tops, counter = (np.empty((rows, blocks, 2), np.uint64) for _ in range(2))
    counter[:, :, 1] = 0
    single = isinstance(first_tweak, np.ndarray)
    if not single and n:
        tweaks = np.arange(first_tweak, first_tweak + rows * blocks, dtype=np.uint64)
        counter[:, :, 0] = tweaks.reshape(rows, blocks)
    for at in range(0, n, rows):
        m = min(rows, n - at)
        top, end, tweak = tops[:m], out[at : at + m], counter[:m]
        if blocks == 1:
            _permute(x[at : at + m], top)
        else:
            _permute(x[at : at + m], head[:m])
            _repeat(head[:m], top)
        if isinstance(first_tweak, np.ndarray):
            tweak[:, 0, 0] = first_tweak[at : at + m]
        np.bitwise_xor(top, tweak, out=end)
        _permute(end, end)
        np.bitwise_xor(end, top, out=end)
        if not single:
            counter[:, :, 0] += np.uint64(rows * blocks)
    return out


def compress(x: np.ndarray) -> np.ndarray:
    """Compresses 256-bit rows to 128 bits: low xor p(high) xor high, (n, 4) -> (n, 2) uint64.

    Used before `hash_blocks` on KKOT rows, whose secret has 128 unknown bits spread over 256. In
    the ideal-permutation model the compressed difference keeps that entropy.
    """
    n = x.shape[0]
    out = np.empty((n, 2), np.uint64)
    high = np.empty((min(_RUN, n), 2), np.uint64)
    for at in range(0, n, _RUN):
        m = min(_RUN, n - at)
        part = high[:m]
        part[...] = x[at : at + m, 2:]
        end = out[at : at + m]
        _permute(part, end)
        np.bitwise_xor(end, part, out=end)
        np.bitwise_xor(end, x[at : at + m, :2], out=end)
    return out


def hash_offsets(x: np.ndarray, offsets: np.ndarray, first_tweak: int, bits: int) -> np.ndarray:
    """`bits` bits of H(compress(x xor offset_v)) for every offset v, packed into one word a row.

    Args:
      x: (n, 4) uint64, C-contiguous: 256-bit rows.
      offsets: (count, 4) uint64, count * bits <= 64.
      first_tweak: row j uses tweak first_tweak + v * n + j for offset v.
      bits: low bits kept of every hash.

    Returns:
      (n,) uint64; offset v's in bits v * bits ...
    """
    n, count = len(x), len(offsets)
    words = np.empty(n, np.uint64)
    step = max(1, min(n, _RUN // count))
    room = [np.empty(2 * count * step, np.uint64) for _ in range(3)]
    shape = (count, step, 2)
    high, folded = np.empty(shape, np.uint64), np.empty(shape, np.uint64)
    _repeat(np.ascontiguousarray(offsets[:, 2:]), high)
    _repeat(offsets[:, :2] ^ offsets[:, 2:], folded)
    counter = np.zeros(shape, np.uint64)
    first = np.uint64(first_tweak) + np.arange(count, dtype=np.uint64) * np.uint64(n)
    counter[:, :, 0] = first[:, None] + np.arange(step, dtype=np.uint64)
    mask = np.uint64((1 << bits) - 1)
    shifts = (np.arange(count, dtype=np.uint64) * np.uint64(bits))[:, None]
    for at in range(0, n, step):
        m = min(step, n - at)
        a, b, c = (array[: 2 * count * m].reshape(count, m, 2) for array in room)
        part = x[at : at + m]
        np.bitwise_xor(np.ascontiguousarray(part[:, 2:]), high[:, :m], out=a)
        _permute(a, b)
        np.bitwise_xor(part[:, :2] ^ part[:, 2:], folded[:, :m], out=a)
        np.bitwise_xor(a, b, out=a)
        _permute(a, b)  # p of the compressed row
        np.bitwise_xor(b, counter[:, :m], out=a)
        _permute(a, c)
        kept = (c[:, :, 0] ^ b[:, :, 0]) & mask
        np.bitwise_or.reduce(kept << shifts, axis=0, out=words[at : at + m])
        counter[:, :, 0] += np.uint64(m)
    return words
