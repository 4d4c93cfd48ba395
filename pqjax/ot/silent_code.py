"""The 10-local code of silent OT: every output is the XOR of ten of 2^log_k table rows.

Which ten is public and fixed: AES of a counter under a constant key, its cipher made once a process. The
two blocks of an output are made again whenever they are needed, in 3 ns: if they were kept they would
be read from memory as slowly, and fill half a gigabyte for the largest set.
"""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8, UInt64

from pqjax.crypto.prg import Stream, counters
from pqjax.ot.source import Rows
from pqjax.ring import aligned, kernel

LOCAL = 10
_BITS, _EACH = 21, 3  # of an index, and indices of a 64-bit word
_LOW = np.uint64(1)

Drawn = UInt64[np.ndarray, "n 4"]


@functools.cache
def _stream(log_k: int) -> Stream:
    return Stream(hashlib.sha256(f"pqjax 10-local code 2^{log_k}".encode()).digest()[:16])


def drawn(log_k: int, at: int, n: int) -> Drawn:
    """The random words of outputs at .. at + n - 1: three indices of 21 bits a word, one in the last."""
    out = aligned((n, 4), np.uint64)
    _stream(log_k).encrypt(counters(2 * at, 2 * n), out)
    return out


def _spread(rows, words, table):
    mask = np.uint64(table.shape[0] - 1)
    for i in range(LOCAL):
        shift = np.uint64(_BITS * (i % _EACH))
        index = ((words[:, i // _EACH] >> shift) & mask).astype(jnp.int32)
        rows ^= table.at[index].get(mode="promise_in_bounds")
    return rows, (rows[:, 0] & _LOW).astype(jnp.uint8)


_spread_rows = kernel(_spread)


class Code:
    """The code of 2^log_k seeds, applied to rows in order."""

    def __init__(self, seeds: Rows):
        """Args: the table, (2^log_k, 2); its low bits are those of the outputs."""
        self._log_k = (len(seeds) - 1).bit_length()
        with jax.enable_x64(True):
            self._table = jnp.asarray(seeds)
        self._at = 0

    def spread(self, rows: Rows) -> tuple[Rows, UInt8[np.ndarray, " n"]]:
        """The next rows, xor ten seeds each, not to be written to; and the lowest bit of every one."""
        words = drawn(self._log_k, self._at, len(rows))
        self._at += len(rows)
        made, bits = _spread_rows(rows, words, self._table)
        return np.asarray(made), np.asarray(bits)
