"""The tweakable circular correlation-robust hash that breaks OT correlations (eprint 2019/074).

H(x, i) = p(p(x) xor i) xor p(x) with p a fixed-key AES: two bulk ECB passes. A tweak i is a counter
that never repeats within a session. The fixed key is public; it is the first 16 bytes of pi.
"""

from __future__ import annotations

import numpy as np
from Crypto.Cipher import AES

PERMUTATION_KEY = bytes.fromhex("243f6a8885a308d313198a2e03707344")
_RUN = 1 << 13  # blocks at a time: input, middle and output stay in the second-level cache


def _permutation():
    return AES.new(PERMUTATION_KEY, AES.MODE_ECB)


_CIPHER = _permutation()  # ECB keeps no state between calls, so threads may share it


def _permute(x: np.ndarray, out: np.ndarray) -> None:
    _CIPHER.encrypt(x.data.cast("B"), output=out.data.cast("B"))


def hash_blocks(x: np.ndarray, first_tweak: int | np.ndarray, blocks: int = 1) -> np.ndarray:
    """Hashes each row to `blocks` 128-bit blocks.

    Args:
      x: (n, 2) uint64, C-contiguous: the 128-bit inputs.
      first_tweak: row j's block b uses tweak first_tweak + j * blocks + b; or, for one block a
        row, the tweak of every row, (n,) uint64.
      blocks: blocks of output per row.

    Returns:
      (n, blocks, 2) uint64.
    """
    n = x.shape[0]
    out = np.empty((n, blocks, 2), np.uint64)
    rows = max(1, _RUN // blocks)
    head = np.empty((min(rows, n), 2), np.uint64)
    middle = np.empty((min(rows, n), blocks, 2), np.uint64)
    for at in range(0, n, rows):
        m = min(rows, n - at)
        top, mid, end = head[:m], middle[:m], out[at : at + m]
        _permute(x[at : at + m], top)
        if isinstance(first_tweak, np.ndarray):
            tweaks = first_tweak[at : at + m]
        else:
            tweaks = np.uint64(first_tweak + at * blocks) + np.arange(m * blocks, dtype=np.uint64)
        np.bitwise_xor(top[:, None, 0], tweaks.reshape(m, blocks), out=mid[:, :, 0])
        mid[:, :, 1] = top[:, None, 1]
        _permute(mid, end)
        np.bitwise_xor(end, top[:, None], out=end)
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
