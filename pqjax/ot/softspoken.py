"""OT extension: SoftSpoken with parameter k, of which k = 1 is IKNP (eprint 2022/192).

Makes correlated rows: for every OT the receiver has a 128-bit t and a bit c, the sender has
q = t xor c * delta. Hashing q and q xor delta gives the sender two keys, hashing t the receiver one.

The receiver knows all leaves r_x of 128/k puncturable PRFs, the sender all but r_{delta_j}. Per OT
and tree j, with x running over the k-bit leaf indices,

    u_j = sum r_x,   v_j = sum x * r_x,   w_j = sum (delta_j xor x) * r_x = v_j xor delta_j * u_j

and the receiver sends c xor u_j so that the sender can turn u_j into c. For chosen bits that is
128/k bits per OT. Random bits are u_0 itself and the first column is not sent: 128/k - 1.
Everything here is local; `stocked` and `inline` move the corrections.
"""

import numpy as np
from jaxtyping import UInt8, UInt64

from pqjax.crypto.prg import Stream, counters
from pqjax.errors import InputError
from pqjax.ot.source import Choices, Raw, Rows
from pqjax.ring import transpose_bits

Columns = UInt8[np.ndarray, "columns bytes"]
Leaves = UInt64[np.ndarray, "trees leaves 2"]
WIDTH = 128
PARAMETERS = (1, 2, 4, 8)


def check_parameter(k: int) -> None:
    """Refuses a k that does not divide 128 into trees of bearable size."""
    if k not in PARAMETERS:
        raise InputError(f"SoftSpoken parameter k must be one of {PARAMETERS}, got {k!r}")


def pack_columns(columns: Columns, n: int) -> Raw:
    """Cuts (c, m) byte columns to their first n bits and packs them: c * n bits exactly."""
    whole, rest = divmod(n, 8)
    body = columns[:, :whole].reshape(-1)
    if not rest:
        return np.ascontiguousarray(body)
    tail = np.unpackbits(columns[:, whole], bitorder="little").reshape(-1, 8)[:, :rest]
    return np.concatenate([body, np.packbits(tail.reshape(-1), bitorder="little")])


def unpack_columns(raw: Raw, count: int, n: int, n_bytes: int) -> Columns:
    """Undoes `pack_columns`: (count, n_bytes) uint8, zero beyond bit n."""
    whole, rest = divmod(n, 8)
    columns = np.zeros((count, n_bytes), np.uint8)
    columns[:, :whole] = raw[: count * whole].reshape(count, whole)
    if rest:
        bits = np.unpackbits(raw[count * whole :], count=count * rest, bitorder="little")
        tail = np.zeros((count, 8), np.uint8)
        tail[:, :rest] = bits.reshape(count, rest)
        columns[:, whole] = np.packbits(tail, axis=1, bitorder="little")[:, 0]
    return columns


def pack_choices(choices: Choices, n_bytes: int) -> Raw:
    """0/1 choices as a bit column of `n_bytes` bytes, zero beyond the last."""
    column = np.zeros(n_bytes, np.uint8)
    packed = np.packbits(choices, bitorder="little")
    column[: packed.size] = packed
    return column


class _Columns:
    """The leaf streams of all trees and the running position in them."""

    def __init__(self, k: int, leaves: Leaves):
        """Args: k, and leaf keys (128/k, 2^k, 2) uint64 in the order they are folded."""
        check_parameter(k)
        self.k = k
        self._streams = [[Stream(leaf.tobytes()) for leaf in tree] for tree in leaves]
        self._block = 0

    def fold(self, n: int, skip_first_leaf: bool) -> tuple[Columns, Columns]:
        """Draws columns for n OTs: v (128, m) and u (128/k, m) bytes, m = 16 * ceil(n / 128)."""
        blocks = -(-n // WIDTH)
        ready = counters(self._block, blocks)
        self._block += blocks
        k, trees, m = self.k, len(self._streams), 16 * blocks
        v = np.empty((WIDTH, m), np.uint8)
        u = np.empty((trees, m), np.uint8)
        work = np.empty((1 << k, m), np.uint8)
        for j, tree in enumerate(self._streams):
            for x, stream in enumerate(tree):
                if x == 0 and skip_first_leaf:
                    work[0] = 0
                else:
                    stream.encrypt(ready, work[x])
            part = work
            for bit in range(k - 1, -1, -1):
                half = 1 << bit
                low, high = part[:half], part[half:]
                np.bitwise_xor.reduce(high, axis=0, out=v[j * k + bit])
                np.bitwise_xor(low, high, out=low)
                part = low
            u[j] = part[0]
        return v, u


def rows_of(columns: Columns, n: int) -> UInt64[np.ndarray, "n words"]:
    """The first n rows of bit columns (c, m): (n, c / 64) uint64."""
    return np.ascontiguousarray(np.asarray(transpose_bits(columns))).view(np.uint64)[:n]


class ExtensionReceiver:
    """Knows all leaves; its choice bits go in, its rows t come out."""

    def __init__(self, k: int, leaves: Leaves):
        self._columns = _Columns(k, leaves)
        self.k = k

    def extend(self, choices: Choices) -> tuple[Rows, Raw]:
        """Rows for chosen bits: t (n, 2) uint64 and the corrections, 128/k * n bits as bytes."""
        n = choices.size
        v, u = self._columns.fold(n, skip_first_leaf=False)
        np.bitwise_xor(u, pack_choices(choices, u.shape[1]), out=u)
        return rows_of(v, n), pack_columns(u, n)

    def extend_random(self, n: int) -> tuple[Rows, Choices, Raw]:
        """Rows for random bits: t (n, 2), the bits (n,) uint8, and (128/k - 1) * n bits."""
        v, u = self._columns.fold(n, skip_first_leaf=False)
        choices = np.unpackbits(u[0], count=n, bitorder="little")
        return rows_of(v, n), choices, pack_columns(u[1:] ^ u[0], n)


class ExtensionSender:
    """Knows all leaves but those at `delta`; corrections go in, rows q come out."""

    def __init__(self, k: int, leaves: Leaves, delta: Choices):
        """Args: leaves (128/k, 2^k, 2) uint64 by leaf index; delta (128,) bits, tree-major."""
        index = np.arange(1 << k)
        weights = 1 << np.arange(k)
        missing = delta.reshape(-1, k).astype(np.int64) @ weights
        shifted = [tree[index ^ int(at)] for tree, at in zip(leaves, missing, strict=True)]
        self._columns = _Columns(k, np.stack(shifted))
        self._delta = delta.astype(bool)
        self.k = k

    def extend(self, raw: Raw, n: int) -> Rows:
        """Rows q (n, 2) uint64 from the receiver's corrections for chosen bits."""
        return self._extend(raw, n, first=0)

    def extend_random(self, raw: Raw, n: int) -> Rows:
        """Rows q (n, 2) uint64 from the receiver's corrections for random bits."""
        return self._extend(raw, n, first=1)

    def _extend(self, raw: Raw, n: int, first: int) -> Rows:
        w, _ = self._columns.fold(n, skip_first_leaf=True)
        corrections = unpack_columns(raw, WIDTH // self.k - first, n, w.shape[1])
        for column in np.flatnonzero(self._delta):
            tree = column // self.k - first
            if tree >= 0:
                np.bitwise_xor(w[column], corrections[tree], out=w[column])
        return rows_of(w, n)
