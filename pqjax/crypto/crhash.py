"""The tweakable circular correlation-robust hash that breaks OT correlations (eprint 2019/074).

H(x, i) = p(p(x) xor i) xor p(x) with p an AES: two bulk ECB passes. The AES key is public, but nobody
can compute with it before a session begins: it follows from the session's base OTs, and after
`KEY_HASHES` hashes comes the next one. Work spent on one key is worth nothing against another, so
finding the input of any one of a key's hashes takes 2^128 / KEY_HASHES evaluations, however many
sessions there are (`BOUND_BITS`). A tweak i is a counter below and a domain above, and never repeats.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from Crypto.Cipher import AES

from pqjax.ring import aligned

KEY_HASHES = 1 << 20  # tweaks under one AES key
BOUND_BITS = 128 - (KEY_HASHES - 1).bit_length()
_RUN = 1 << 14  # blocks at a time: input, middle and output stay in the second-level cache


class Tweaks(NamedTuple):
    """Consecutive tweaks under one key: an AES in ECB, the first counter, and what stands above it."""

    cipher: Any
    first: int
    domain: int

    def permute(self, x: np.ndarray, out: np.ndarray) -> None:
        """The permutation of C-contiguous blocks."""
        self.cipher.encrypt(x.data.cast("B"), output=out.data.cast("B"))


def _repeat(rows: np.ndarray, out: np.ndarray) -> None:
    """Every 128-bit row (m, 2) as often as `out` (m, blocks, 2) has room for it.

    Complex numbers are the only items of 16 bytes that numpy copies at the speed of memory.
    """
    out.view(np.complex128)[:, :, 0] = rows.view(np.complex128)


def offset_rows(x: np.ndarray, offset: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Rows of x, (n, 2) uint64 and C-contiguous, xor an offset (2,) where `where` is 1.

    Not secret is `where`, (n,) uint8: 1 for the rows that are offset, 0 for those copied.
    """
    out = np.empty_like(x)
    choices = np.stack([np.zeros_like(offset), offset]).view(np.complex128)[:, 0]
    np.take(choices, where, out=out.view(np.complex128)[:, 0], mode="clip")
    return np.bitwise_xor(out, x, out=out)


def hash_blocks(
    x: np.ndarray,
    tweaks: Tweaks,
    out: np.ndarray,
    at: np.ndarray | None = None,
    offset: np.ndarray | None = None,
) -> None:
    """Hashes each row of x, (n, 2), to some 128-bit blocks: `out`, (n, blocks, 2), is filled.

    Both are uint64, C-contiguous. Row j's block b uses counter first + j * blocks + b; for one block a
    row, `at`, (n,) uint64, may say what is added to the first counter instead. Rows are xor `offset`,
    (2,), before.
    """
    n, blocks, _ = out.shape
    rows = max(1, min(n, _RUN // blocks))
    head = np.empty((rows, 2), np.uint64)
    tops, counter = (np.empty((rows, blocks, 2), np.uint64) for _ in range(2))
    counter[:, :, 1] = tweaks.domain
    shift = np.empty((rows, 2), np.uint64)
    if offset is not None:
        _repeat(offset[None], shift[None])
    if at is None and n:
        first = np.arange(tweaks.first, tweaks.first + rows * blocks, dtype=np.uint64)
        counter[:, :, 0] = first.reshape(rows, blocks)
    for begin in range(0, n, rows):
        m = min(rows, n - begin)
        top, end, tweak = tops[:m], out[begin : begin + m], counter[:m]
        part = x[begin : begin + m]
        if offset is not None:
            part = np.bitwise_xor(part, shift[:m], out=head[:m])
        if blocks == 1:
            tweaks.permute(part, top)
        else:
            tweaks.permute(part, head[:m])
            _repeat(head[:m], top)
        if at is not None:
            np.add(at[begin : begin + m], np.uint64(tweaks.first), out=tweak[:, 0, 0])
        np.bitwise_xor(top, tweak, out=end)
        tweaks.permute(end, end)
        np.bitwise_xor(end, top, out=end)
        if at is None:
            counter[:, :, 0] += np.uint64(rows * blocks)


def compress(x: np.ndarray, tweaks: Tweaks) -> np.ndarray:
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
        tweaks.permute(part, end)
        np.bitwise_xor(end, part, out=end)
        np.bitwise_xor(end, x[at : at + m, :2], out=end)
    return out


def hash_offsets(
    x: np.ndarray, offsets: np.ndarray, tweaks: Tweaks, bits: int, words: np.ndarray
) -> None:
    """`bits` bits of H(compress(x xor offset_v)) for every offset v, packed into one word a row.

    Of 256-bit rows x (n, 4) and offsets (count, 4), uint64, count * bits <= 64, the low bits are kept.
    Row j uses counter first + v * n + j for offset v, whose bits stand in bits v * bits ... of `words`,
    (n,) uint64, which is filled.
    """
    n, count = len(x), len(offsets)
    step = max(1, min(n, _RUN // count))
    room = [np.empty(2 * count * step, np.uint64) for _ in range(3)]
    shape = (count, step, 2)
    high, folded = np.empty(shape, np.uint64), np.empty(shape, np.uint64)
    _repeat(np.ascontiguousarray(offsets[:, 2:]), high)
    _repeat(offsets[:, :2] ^ offsets[:, 2:], folded)
    counter = np.empty(shape, np.uint64)
    counter[:, :, 1] = tweaks.domain
    first = np.uint64(tweaks.first) + np.arange(count, dtype=np.uint64) * np.uint64(n)
    counter[:, :, 0] = first[:, None] + np.arange(step, dtype=np.uint64)
    mask = np.uint64((1 << bits) - 1)
    shifts = (np.arange(count, dtype=np.uint64) * np.uint64(bits))[:, None]
    for at in range(0, n, step):
        m = min(step, n - at)
        a, b, c = (array[: 2 * count * m].reshape(count, m, 2) for array in room)
        part = x[at : at + m]
        np.bitwise_xor(np.ascontiguousarray(part[:, 2:]), high[:, :m], out=a)
        tweaks.permute(a, b)
        np.bitwise_xor(part[:, :2] ^ part[:, 2:], folded[:, :m], out=a)
        np.bitwise_xor(a, b, out=a)
        tweaks.permute(a, b)  # p of the compressed row
        np.bitwise_xor(b, counter[:, :m], out=a)
        tweaks.permute(a, c)
        kept = (c[:, :, 0] ^ b[:, :, 0]) & mask
        np.bitwise_or.reduce(kept << shifts, axis=0, out=words[at : at + m])
        counter[:, :, 0] += np.uint64(m)


class Hash:
    """The hash of one direction of a session; both ends count its tweaks alike.

    Everything about it is public. Nothing is hashed under the same key and tweak twice, but for what
    belongs together: the messages of one OT.
    """

    def __init__(self, transcript: bytes, domain: int):
        """Args: a digest of what both parties said before; a number of this direction and use."""
        self.transcript, self._domain = transcript, domain
        self._seed = hashlib.sha256(b"pqjax hash" + domain.to_bytes(8, "little") + transcript)
        self._next = 0
        self._era = -1
        self._cipher = None

    def apart(self, name: bytes) -> "Hash":
        """One under keys of its own, which both ends make alike: for rows that are set aside once.

        No two may have the same name.
        """
        made = hashlib.sha256(b"pqjax apart" + len(name).to_bytes(8, "little") + name)
        made.update(self.transcript)
        return Hash(made.digest(), self._domain)

    def take(self, rows: int, each: int) -> Iterator[tuple[slice, Tweaks]]:
        """The next rows * each tweaks, for good: spans of rows, and tweaks of one key for each."""
        at = 0
        while at < rows:
            era, used = divmod(self._next, KEY_HASHES)
            n = min(rows - at, (KEY_HASHES - used) // each)
            if not n and used:  # too few are left for a row
                self._next = (era + 1) * KEY_HASHES
                continue
            n, first = max(1, n), self._next
            self._next += n * each
            if era != self._era:
                key = self._seed.copy()
                key.update(era.to_bytes(8, "little"))
                self._era, self._cipher = era, AES.new(key.digest()[:16], AES.MODE_ECB)
            yield slice(at, at + n), Tweaks(self._cipher, first, self._domain)
            at += n

    def blocks(self, x: np.ndarray, blocks: int = 1) -> np.ndarray:
        """Rows (n, 2) hashed to (n, blocks, 2) uint64, where kernels can read it in place."""
        return self.fill(x, aligned((len(x), blocks, 2), np.uint64))

    def fill(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Rows (n, 2) hashed to `out`, (n, blocks, 2) uint64, both C-contiguous; returns it."""
        for span, tweaks in self.take(len(x), out.shape[1]):
            hash_blocks(x[span], tweaks, out[span])
        return out

    def pairs(
        self, x: np.ndarray, offset: np.ndarray, blocks: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows x and x xor offset under the same tweaks, each hashed as `blocks` does."""
        zero, one = (aligned((len(x), blocks, 2), np.uint64) for _ in range(2))
        for span, tweaks in self.take(len(x), blocks):
            hash_blocks(x[span], tweaks, zero[span])
            hash_blocks(x[span], tweaks, one[span], offset=offset)
        return zero, one

    def offsets(self, x: np.ndarray, offsets: np.ndarray, bits: int) -> np.ndarray:
        """`bits` bits of 256-bit rows (n, 4) xor every offset (count, 4): (n,) uint64 words."""
        words = np.empty(len(x), np.uint64)
        for span, tweaks in self.take(len(x), len(offsets)):
            hash_offsets(x[span], offsets, tweaks, bits, words[span])
        return words

    def chosen(self, x: np.ndarray, choices: np.ndarray, count: int) -> np.ndarray:
        """What `offsets` makes of 256-bit rows for one choice each, all bits: (n,) uint64."""
        out = np.empty((len(x), 1, 2), np.uint64)
        for span, tweaks in self.take(len(x), count):
            part = x[span]
            at = choices[span].astype(np.uint64) * np.uint64(len(part))
            at += np.arange(len(part), dtype=np.uint64)
            hash_blocks(compress(part, tweaks), tweaks, out[span], at)
        return out[:, 0, 0]
