"""Half trees: all leaves to one side, all but one to the other, and these two differ by delta there.

A node x has the children H(x) and x xor H(x), and the two nodes below the root sum to delta: so does
every level, and the sums of its two kinds of children, K1 and K0, differ by delta, as the two rows of a
correlated OT do. One block of a level goes from sender to receiver, and hides one of the sums:

    c = q xor K1,   t xor c = K_(1 - r)   where t = q xor r * delta,

The receiver's random bits r are its path, and the one node of a level that it lacks lies on that. At the
leaves the sum of all others is the missing one xor delta: so the leaves v and w of the two sides differ
by delta at the path's end and nowhere else. (Guo et al., "Half-Tree", eprint 2022/1431, with the hash of
eprint 2019/074 under tweaks that never repeat.)

Trees of a group lie side by side: an array (nodes, trees, 2) of uint64, and the children of node i are
at i (x xor H(x), path bit 0) and at i + m (H(x), path bit 1) of 2 m: doubling needs no second array.
"""

import numpy as np
from jaxtyping import UInt8, UInt64

from pqjax.crypto.crhash import Hash

Leaves = UInt64[np.ndarray, "leaves trees 2"]
Blocks = UInt64[np.ndarray, "trees depth 2"]
_SIDE = 32  # rows that a sum is first folded to, for the sake of long inner loops


def _double(leaves: Leaves, m: int, hash: Hash) -> None:
    """Grows the first m nodes of every tree into the first 2 m."""
    old, new = leaves[:m], leaves[m : 2 * m]
    hash.fill(old.reshape(-1, 2), new.reshape(-1, 1, 2))
    np.bitwise_xor(old, new, out=old)


def _sum(nodes: Leaves) -> UInt64[np.ndarray, "trees 2"]:
    """The XOR of all nodes of every tree."""
    m, trees, _ = nodes.shape
    if m > _SIDE:
        nodes = np.bitwise_xor.reduce(nodes.reshape(m // _SIDE, -1), axis=0)
    return np.bitwise_xor.reduce(nodes.reshape(-1, 2 * trees), axis=0).reshape(trees, 2)


def expand(
    roots: UInt64[np.ndarray, "trees 2"],
    delta: UInt64[np.ndarray, " 2"],
    hash: Hash,
    leaves: Leaves,
) -> Blocks:
    """Grows whole trees into `leaves`, of random blocks `roots`; the sums K1 of every level.

    Costs the hash one tweak for every node that has children, as `puncture` does.
    """
    depth = (len(leaves) - 1).bit_length()
    sums = np.empty((len(roots), depth, 2), np.uint64)
    leaves[1], leaves[0] = roots, roots ^ delta
    sums[:, 0] = roots
    for level in range(1, depth):
        m = 1 << level
        _double(leaves, m, hash)
        sums[:, level] = _sum(leaves[m : 2 * m])
    return sums


def puncture(
    path: UInt8[np.ndarray, "trees depth"], known: Blocks, hash: Hash, leaves: Leaves
) -> np.ndarray:
    """Grows trees into `leaves` without the leaf at the end of each `path`; where that is, (trees,).

    `known` is of every level the sum on the side that the path does not take. The missing leaf is filled
    with the sum of all others: what the sender has there, xor delta.
    """
    trees, depth = path.shape
    rows, at = np.arange(trees), np.zeros(trees, np.int64)
    total = np.zeros((trees, 2), np.uint64)  # of all nodes that are known
    for level in range(depth):
        m, bit = 1 << level, path[:, level].astype(np.int64)
        if level:
            _double(leaves, m, hash)
        leaves[at, rows] = 0
        leaves[at + m, rows] = 0
        sums = _sum(leaves[m : 2 * m]) ^ np.where(bit[:, None] == 1, total, np.uint64(0))
        sibling = known[:, level] ^ sums
        leaves[at + m * (1 - bit), rows] = sibling
        total ^= sibling
        at += m * bit
    leaves[at, rows] = total
    return at
