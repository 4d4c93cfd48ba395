"""A round of silent OT: many random OTs of few, and of one block for every level of every tree.

Of seeds (the sender's q, the receiver's t = q xor c * delta) the code A and the leaves v, w make

    v xor A q   and   w xor A t:   their difference is (e xor A c) * delta,

e being 1 at the end of each tree's path: regular noise, one in each region. Delta is odd and every q
even, so the lowest bit of t is c, and comes out of the code with the row. (Ferret, eprint 2020/924.)

Both halves work through a round's groups of trees in order, here without a wire: the leaves of a group
never leave the cache between tree and code.
"""

import numpy as np
from jaxtyping import UInt8, UInt64

from pqjax.crypto.crhash import Hash
from pqjax.ot.silent_code import Code
from pqjax.ot.silent_sets import NoiseSet
from pqjax.ot.silent_tree import Blocks, expand, puncture
from pqjax.ot.source import Choices, Rows, Words
from pqjax.ring import aligned

_ONE = np.uint64(1)


def clear_lowest(rows: Rows) -> None:
    """Makes rows even, in place."""
    rows[:, 0] &= ~_ONE


def _room(noise: NoiseSet, trees: int) -> np.ndarray:
    return aligned((1 << noise.depth, trees, 2), np.uint64)


class RoundSender:
    """Grows trees; every row that it makes is even."""

    def __init__(self, noise: NoiseSet, seeds: Rows, delta: Words, hash: Hash):
        """Args: even seeds, (noise.seeds, 2): the code's, then a row for every tree and level."""
        self._noise, self._delta, self._hash = noise, delta, hash
        self._code = Code(seeds[: noise.k])
        self._masks = seeds[noise.k :].reshape(noise.trees, noise.depth, 2)

    def grow(self, group: slice, roots: UInt64[np.ndarray, "trees 2"]) -> tuple[Rows, Blocks]:
        """Rows q of a group's leaves, and what its receiver needs: one block a tree and level."""
        leaves = _room(self._noise, len(roots))
        sums = expand(roots, self._delta, self._hash, leaves)
        rows = leaves.reshape(-1, 2)
        clear_lowest(rows)
        return self._code.spread(rows)[0], sums ^ self._masks[group]


class RoundReceiver:
    """Grows the same trees but for one leaf each, at the end of a path that its random bits say."""

    def __init__(self, noise: NoiseSet, seeds: Rows, bits: Choices, hash: Hash):
        """Args: seeds whose lowest bits are their choices, as `RoundSender`'s; these bits."""
        self._noise, self._hash = noise, hash
        self._code = Code(seeds[: noise.k])
        shape = noise.trees, noise.depth
        self._masks = seeds[noise.k :].reshape(*shape, 2)
        self._path = bits[noise.k :].reshape(shape)

    def grow(self, group: slice, blocks: Blocks) -> tuple[Rows, UInt8[np.ndarray, " n"]]:
        """Rows t of a group's leaves, and their choices."""
        path = self._path[group]
        leaves = _room(self._noise, len(path))
        ends = puncture(path, blocks ^ self._masks[group], self._hash, leaves)
        rows = leaves.reshape(-1, 2)
        clear_lowest(rows)
        leaves[ends, np.arange(len(path)), 0] |= _ONE
        return self._code.spread(rows)
