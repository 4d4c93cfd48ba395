"""The table of rules: every node kind has one. A new kind is a line here."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from pqjax.graph import ir
from pqjax.graph.lower import lower, with_headroom
from pqjax.graph.passes import own_input
from pqjax.layers import comparing, elementwise, local
from pqjax.layers.input import INPUT
from pqjax.layers.linear import LINEAR
from pqjax.layers.product import PRODUCT
from pqjax.layers.rule import Local, Multiplying, Rule, Setting, Share, StepCost, Task
from pqjax.linear.choice import Choice
from pqjax.protocols.party import Party
from pqjax.wire.cost import total


@dataclasses.dataclass(frozen=True)
class Lowered(Rule):
    """A node that runs as steps of other kinds, each reading the one before.

    Attributes:
      expand: the steps of a node on a format; a single one is run by `last`.
      last: the rule of what needs no other steps.
    """

    expand: Callable[[Any, ir.TensorType], tuple[ir.Node, ...]]
    last: Rule | None = None

    def _steps(self, task: Task) -> Iterator[tuple[Rule, Task]]:
        source = task.sources[0]
        nodes = self.expand(dataclasses.replace(task.node, sources=("x",)), source)
        for node in nodes:
            alone = self.last if len(nodes) == 1 else None
            yield alone or rule_of(node), Task(node, (source,), batch=task.batch)
            source = node.out

    def cost(self, at: Setting, task: Task) -> StepCost:
        """The steps', one after the other."""
        return StepCost(
            online=total(rule.cost(at, step).online for rule, step in self._steps(task))
        )

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """The steps, one after the other."""
        share = x[0]
        for rule, step in self._steps(task):
            share = rule.run(party, at, step, None, None, share)
        return share


RULES: dict[type[ir.Node], Rule] = {
    ir.Input: INPUT,
    ir.Conv: LINEAR,
    ir.Dense: LINEAR,
    ir.Product: PRODUCT,
    ir.Relu: elementwise.RELU,
    ir.Requantize: Lowered(lower),
    ir.Add: Local(local.add),
    ir.MaxPool: Lowered(with_headroom, comparing.MAX_POOL),
    ir.AvgPool: Local(local.average),
    ir.Flatten: Local(local.flatten),
    ir.ArgMax: Lowered(with_headroom, comparing.ARG_MAX),
    ir.Subsample: Local(local.subsample),
    ir.Pad: Local(local.pad),
    ir.Take: Local(local.take),
    ir.Concat: Local(local.concatenate),
    ir.Extend: elementwise.EXTEND,
    ir.Narrow: Local(local.narrow),
    ir.ScaleUp: Local(local.scale_up),
    ir.Truncate: elementwise.TRUNCATE,
    ir.TruncateReduce: elementwise.TRUNCATE_REDUCE,
    ir.Clamp: elementwise.CLAMP,
    ir.Unguard: elementwise.UNGUARD,
    ir.Saturate: elementwise.SATURATE,
}


def rule_of(node: ir.Node) -> Rule:
    """The rule of a node's kind."""
    return RULES[type(node)]


def choosing_rule(node: ir.Node) -> Multiplying:
    """The rule of a node that `multiplies`."""
    rule = RULES[type(node)]
    assert isinstance(rule, Multiplying)
    return rule


def task_of(graph: ir.Graph, node: ir.Node, at: Setting, choice: Choice | None = None) -> Task:
    """A node in its place, as it is run."""
    own = isinstance(node, ir.Linear) and not at.masked_input and own_input(graph, node)
    return Task(node, tuple(graph.types(node)), choice, own, at.batch)
