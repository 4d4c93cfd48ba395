"""Largest values of windows and vectors, on values whose differences fit."""

import math
from typing import Any

from pqjax.graph.ir import MaxPool, TensorType
from pqjax.layers.rule import Elementwise, Rule, Setting, Share, StepCost, Task
from pqjax.protocols import nonlinear
from pqjax.protocols.party import Party
from pqjax.wire.cost import Cost


def _max_price(at: Setting, node: MaxPool, x: TensorType, n: int) -> Cost:
    return nonlinear.max_tree_cost(at.source, math.prod(node.window), n, x.share_bits, at.forms)


def _max(party: Party, at: Setting, node: MaxPool, x: TensorType, share: Share) -> Share:
    return nonlinear.max_tree(party, share, x.share_bits, at.forms)


def _windows(node: MaxPool, x: Share) -> Share:
    """(k, n): the k values of each window of all images in a column."""
    windows = nonlinear.window_view(x, node.window, node.stride)
    return windows.reshape(len(windows), -1)


class ArgMaxRule(Rule):
    """The index of the largest: one tree over the whole vector, and over those of a batch."""

    def cost(self, at: Setting, task: Task) -> StepCost:
        """A comparison and two multiplexers a pair, level by level."""
        x, out = task.sources[0], task.node.out
        sizes = x.n, task.batch, x.bits, out.bits
        return StepCost(online=nonlinear.arg_max_cost(at.source, *sizes, at.forms))

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """(1,) shares of the index, of every vector."""
        source, out = task.sources[0], task.node.out
        columns = x[0].reshape(-1, source.n).T
        found = nonlinear.arg_max(party, columns, source.bits, out.bits, at.forms)
        return found.reshape(task.shape)


MAX_POOL = Elementwise(_max_price, _max, _windows)
ARG_MAX = ArgMaxRule()
