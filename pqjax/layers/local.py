"""Nodes that every party computes on its own share."""

import numpy as np

from pqjax.graph.ir import AvgPool, Pad, ScaleUp, Subsample
from pqjax.layers.rule import Share, Task
from pqjax.protocols.nonlinear import average_pool
from pqjax.ring import Ring


def add(task: Task, x: Share, y: Share) -> Share:
    """Sums of the shares."""
    return Ring(task.node.out.bits).add(x, y)


def average(task: Task, x: Share) -> Share:
    """Sums of windows, times the multiplier."""
    node = task.node
    assert isinstance(node, AvgPool)
    return average_pool(x, Ring(node.out.bits), node.window, node.stride, node.multiplier)


def concatenate(task: Task, *x: Share) -> Share:
    """Side by side along the last axis."""
    return np.concatenate(x, -1)


def flatten(task: Task, x: Share) -> Share:
    """The same numbers in a row."""
    return x.reshape(-1)


def narrow(task: Task, x: Share) -> Share:
    """The low bits of a share."""
    return Ring(task.node.out.bits).reduce(x)


def pad(task: Task, x: Share) -> Share:
    """0 is shared as 0 and 0."""
    assert isinstance(task.node, Pad)
    return np.pad(x, task.node.margins)


def scale_up(task: Task, x: Share) -> Share:
    """Shifted in the wider ring; the share's wrap leaves it at the top."""
    assert isinstance(task.node, ScaleUp)
    ring = Ring(task.node.out.bits)
    return ring.shift_left(x.astype(ring.dtype), task.node.shift)


def subsample(task: Task, x: Share) -> Share:
    """Every stride-th row and column."""
    assert isinstance(task.node, Subsample)
    down, right = task.node.stride
    return x[::down, ::right]
