"""A puncturable PRF as a binary tree (GGM): one side knows every leaf, the other all but one.

Level by level the knowing side masks the sum of all left and of all right nodes with a base OT's
two keys; the puncturing side, with the complement of its path bit as choice, learns the sum on the
side it does not walk and from it the one sibling it was missing (SoftSpokenOT, eprint 2022/192).
Arrays hold all trees of a session at once: (trees, nodes, 2) uint64.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8, UInt64

from pqjax.crypto.crhash import Hash

Nodes = UInt64[np.ndarray, "trees nodes 2"]


def _children(nodes: Nodes, hash: Hash) -> Nodes:
    """Doubles every node: (trees, m, 2) -> (trees, 2m, 2), children of node i at 2i and 2i + 1."""
    trees, m, _ = nodes.shape
    flat = np.ascontiguousarray(nodes).reshape(-1, 2)
    return hash.blocks(flat, 2).reshape(trees, 2 * m, 2)


def expand(
    roots: UInt64[np.ndarray, "trees 2"], depth: int, hash: Hash
) -> tuple[Nodes, UInt64[np.ndarray, "trees depth 2 2"]]:
    """Grows whole trees.

    Args:
      roots: (trees, 2) uint64 random seeds.
      depth: levels; 2^depth leaves.
      hash: this direction's, for trees.

    Returns:
      leaves (trees, 2^depth, 2) and, per level, the sums of its left and of its right nodes,
      (trees, depth, 2, 2).
    """
    nodes = roots[:, None, :]
    sums = np.zeros((roots.shape[0], depth, 2, 2), np.uint64)
    for level in range(depth):
        nodes = _children(nodes, hash)
        for side in (0, 1):
            sums[:, level, side] = np.bitwise_xor.reduce(nodes[:, side::2], axis=1)
    return nodes, sums


def puncture(path: UInt8[np.ndarray, "trees depth"], siblings: Nodes, hash: Hash) -> Nodes:
    """Regrows trees without the leaf at the end of `path`.

    Args:
      path: (trees, depth) 0/1, most significant bit first: the missing leaf.
      siblings: (trees, depth, 2) uint64: at each level the sum of the nodes on the other side.
      hash: this direction's, for trees.

    Returns:
      leaves (trees, 2^depth, 2) with zeros at the missing leaf.
    """
    trees, depth = path.shape
    nodes = np.zeros((trees, 1, 2), np.uint64)
    at = np.zeros(trees, np.int64)  # the node on the path, unknown at every level
    rows = np.arange(trees)
    for level in range(depth):
        nodes = _children(nodes, hash)
        nodes[rows, 2 * at] = 0
        nodes[rows, 2 * at + 1] = 0
        bit = path[:, level].astype(np.int64)
        known = 1 - bit
        by_side = nodes.reshape(trees, -1, 2, 2)
        total = np.bitwise_xor.reduce(by_side, axis=1)[rows, known]
        nodes[rows, 2 * at + known] = siblings[:, level] ^ total
        at = 2 * at + bit
    return nodes
