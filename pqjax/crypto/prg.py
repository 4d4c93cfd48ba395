"""AES-128 as a pseudorandom generator: one key per purpose, a counter that never goes back.

Bulk ECB over a block of counters runs at the speed of the AES unit (docs/design.md, "Machine"); a
fresh key object costs microseconds, so keys are made once and streams are long.
"""

import os

import numpy as np
from Crypto.Cipher import AES

from pqjax.ring import Ring

BLOCK_BYTES = 16
_RUN = 1 << 14  # blocks per AES call: counters and output stay in the second-level cache


def counters(start: int, n: int) -> np.ndarray:
    """The `n` 128-bit blocks start, start + 1, ...: (n, 2) little-endian uint64."""
    blocks = np.zeros((n, 2), "<u8")
    blocks[:, 0] = np.arange(start, start + n, dtype=np.uint64)
    return blocks


class Stream:
    """The keystream of one AES key: block i is AES_key(i). Blocks are handed out once.

    The key is secret; it appears in no repr.
    """

    def __init__(self, key: bytes):
        self._cipher = AES.new(key, AES.MODE_ECB)
        self._next = 0

    def take(self, n_bytes: int) -> np.ndarray:
        """The next `n_bytes` of the stream, (n_bytes,) uint8; a partly used block is dropped."""
        n = -(-n_bytes // BLOCK_BYTES)
        start, self._next = self._next, self._next + n
        return self.blocks(start, n).reshape(-1)[:n_bytes]

    def blocks(self, start: int, n: int) -> np.ndarray:
        """AES_key(start), ..., AES_key(start + n - 1): (n, 16) uint8.

        The caller keeps track of what was used.
        """
        out = np.empty((n, BLOCK_BYTES), np.uint8)
        for at in range(0, n, _RUN):
            part = slice(at, min(at + _RUN, n))
            self.encrypt(counters(start + at, part.stop - at), out[part])
        return out

    def encrypt(self, blocks: np.ndarray, out: np.ndarray) -> None:
        """Encrypts C-contiguous blocks into `out`: many keys may share one array of counters."""
        self._cipher.encrypt(blocks.data.cast("B"), output=out.data.cast("B"))


class Randomness(Stream):
    """One party's private randomness: an AES stream keyed by the operating system.

    The only source of shares, masks and choice bits in pqjax.
    """

    def __init__(self, key: bytes | None = None):
        super().__init__(os.urandom(BLOCK_BYTES) if key is None else key)

    def elements(self, n: int, ring: Ring) -> np.ndarray:
        """`n` uniform ring elements, (n,) of the ring's dtype."""
        raw = self.take(n * ring.dtype.itemsize).view(ring.dtype)
        return raw & ring.mask

    def bits(self, n: int) -> np.ndarray:
        """`n` uniform bits, (n,) uint8 of 0 and 1."""
        return np.unpackbits(self.take(-(-n // 8)), count=n, bitorder="little")

    def block(self) -> bytes:
        """16 fresh bytes: a key or a correlation."""
        return self.take(BLOCK_BYTES).tobytes()
