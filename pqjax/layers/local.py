"""Nodes that every party computes on its own share. Before their axes a batch may have one more."""

import numpy as np

from pqjax.graph.ir import Add, AvgPool, Concat, Flatten, Narrow, Pad, ScaleUp, Subsample, Take
from pqjax.layers.rule import Share
from pqjax.protocols.nonlinear import average_pool
from pqjax.ring import Ring


def add(node: Add, x: Share, y: Share) -> Share:
    """Sums of the shares."""
    return Ring(node.out.share_bits).add(x, y)


def average(node: AvgPool, x: Share) -> Share:
    """Sums of windows, times their factors."""
    around = [(0, 0)] * (x.ndim - 3) + [*node.padding, (0, 0)]
    factors = node.factors(x.shape[-3:])
    return average_pool(np.pad(x, around), Ring(node.out.bits), node.window, node.stride, factors)


def concatenate(node: Concat, *x: Share) -> Share:
    """Side by side along the last axis."""
    return np.concatenate(x, -1)


def flatten(node: Flatten, x: Share) -> Share:
    """The same numbers, in another shape."""
    return x


def narrow(node: Narrow, x: Share) -> Share:
    """The low bits of a share."""
    return Ring(node.out.share_bits).reduce(x)


def pad(node: Pad, x: Share) -> Share:
    """0 is shared as 0 and 0, what stands at an edge as it is there."""
    around = [(0, 0)] * (x.ndim - len(node.margins)) + list(node.margins)
    return np.pad(x, around, "edge" if node.edge else "constant")


def scale_up(node: ScaleUp, x: Share) -> Share:
    """Shifted in the wider ring; the share's wrap leaves it at the top."""
    ring = Ring(node.out.bits)
    return ring.shift_left(x.astype(ring.dtype), node.shift)


def subsample(node: Subsample, x: Share) -> Share:
    """Every stride-th row and column."""
    down, right = node.stride
    return x[..., ::down, ::right, :]


def take(node: Take, x: Share) -> Share:
    """Some entries of the last axis."""
    return x[..., np.array(node.channels)]
