"""A graph in other widths, without its weights: for what it would cost before anyone trains it.

Scales follow widths (a bit more is a bit finer), so real ranges stay. Accumulators of kind `worst` get
exactly the width their products need; those found from weights or measured are shifted by as many bits
as weights and operands, an estimate: the trained network's own widths may differ by a bit.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

from pqjax.errors import GraphError
from pqjax.graph.ir import (
    Add,
    ArgMax,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Node,
    Pad,
    Relu,
    Requantize,
    Subsample,
    TensorType,
)
from pqjax.graph.validate import width_for

_SHAPES = (Flatten, Pad, Subsample, MaxPool)  # hand on the format they read
_FOLLOWS = (*_SHAPES, Relu, AvgPool, Add)
_KNOWN = (Input, Conv, Dense, Requantize, ArgMax, *_FOLLOWS)


@dataclasses.dataclass(frozen=True)
class Widths:
    """The widths that a network may be given.

    Attributes:
      weights: signed bits of every linear layer, in order.
      activations: bits of what convolutions read; None where nothing is requantized for one.
      residual: bits of tensors that are added later; None where there are none.
    """

    weights: Mapping[str, int]
    activations: int | None = None
    residual: int | None = None

    def __str__(self) -> str:
        """As `python -m nets.train qat --bits` reads them: 4,3,2,4/A6R8."""
        bits = ",".join(str(b) for b in self.weights.values())
        more = "" if self.residual is None else f"R{self.residual}"
        return bits if self.activations is None else f"{bits}/A{self.activations}{more}"


def requantized(graph: Graph, name: str) -> str | None:
    """The requantization that made a tensor's format, if steps that only move values lie between."""
    node = graph[name]
    while isinstance(node, _SHAPES):
        node = graph[node.sources[0]]
    return node.name if isinstance(node, Requantize) else None


def aligned(graph: Graph) -> dict[str, str]:
    """Requantizations that bring an operand to the accumulator it is added to, and that other side."""
    found = {}
    for node in graph:
        if isinstance(node, Add):
            makers = [graph[source] for source in node.sources]
            for maker, other in ((0, 1), (1, 0)):
                if isinstance(makers[maker], Requantize) and not isinstance(
                    makers[other], Requantize
                ):
                    found[makers[maker].name] = makers[other].name
    return found


def residuals(graph: Graph) -> tuple[str, ...]:
    """Requantizations whose tensors are aligned and added later."""
    found = {requantized(graph, graph[name].sources[0]) for name in aligned(graph)}
    return tuple(node.name for node in graph if node.name in found)


def operands(graph: Graph) -> tuple[str, ...]:
    """Requantizations that linear layers read and whose width is the activations' one.

    That is the width that most have: what is read at another width (a classifier's operand) keeps it.
    """
    read = [requantized(graph, n.sources[0]) for n in graph if isinstance(n, (Conv, Dense))]
    made = [name for name in dict.fromkeys(read) if name is not None]
    if not made:
        return ()
    most, _ = collections.Counter(graph[name].out.bits for name in made).most_common(1)[0]
    return tuple(name for name in made if graph[name].out.bits == most)


def widths_of(graph: Graph) -> Widths:
    """The widths a graph has.

    Raises:
      GraphError: its residuals differ in width.
    """
    added = {graph[name].out.bits for name in residuals(graph)}
    if len(added) > 1:
        raise GraphError(f"residuals of one width expected, got {sorted(added)} bits")
    read = operands(graph)
    return Widths(
        {n.name: n.weight_bits for n in graph if isinstance(n, (Conv, Dense))},
        graph[read[0]].out.bits if read else None,
        added.pop() if added else None,
    )


def with_widths(graph: Graph, widths: Widths) -> Graph:
    """The same network in other widths; see above for what is exact and what an estimate.

    Raises:
      GraphError: a node's kind cannot be given another width, names do not match, or a residual would
        be finer than the accumulator it is added to.
    """
    before = widths_of(graph)
    if list(widths.weights) != list(before.weights):
        odd = sorted(set(widths.weights) ^ set(before.weights)) or "another order"
        raise GraphError(f"weight widths of {list(before.weights)} expected; amiss: {odd}")
    for what in ("activations", "residual"):
        if (getattr(widths, what) is None) != (getattr(before, what) is None):
            raise GraphError(
                f"the graph's {what} have {getattr(before, what)} bits; cannot make them "
                f"{getattr(widths, what)}"
            )
    for node in graph:
        if not isinstance(node, _KNOWN):
            raise GraphError(
                f"{node.name}: {node.kind} cannot be given other widths; supported: "
                f"{', '.join(sorted(kind.__name__ for kind in _KNOWN))}"
            )
    return _Rewriting(graph, before, widths).graph()


class _Rewriting:
    """One rewriting: the nodes made so far, by name."""

    def __init__(self, graph: Graph, before: Widths, widths: Widths):
        self.old, self.before, self.widths = graph, before, widths
        self.aligned, self.residuals = aligned(graph), frozenset(residuals(graph))
        self.operands = frozenset(operands(graph))
        self.made: dict[str, Node] = {}

    def graph(self) -> Graph:
        return Graph(tuple(self.node(node.name) for node in self.old))

    def node(self, name: str) -> Node:
        """A node in its new format; what is aligned looks at what it is added to first."""
        ahead, begun = [name], set()
        while ahead:  # no recursion: what comes first may be as far away as the graph is long
            each = ahead[-1]
            first = [need for need in self._needs(each) if need not in self.made]
            if first and each in begun:
                raise GraphError(
                    f"{each}: it is aligned to what is made of it, so no width fits both"
                )
            begun.add(each)
            ahead += first
            if not first:
                self.made[each] = self.made.get(each) or self._new(self.old[each])
                ahead.pop()
        return self.made[name]

    def _needs(self, name: str) -> list[str]:
        """Nodes whose new formats decide a node's."""
        aligned = [self.aligned[name]] if name in self.aligned else []
        return [*self.old[name].sources[:1], *aligned]

    def _new(self, node: Node) -> Node:
        if isinstance(node, Input):
            return node
        old, new = self.old.source(node), self.node(node.sources[0]).out
        out = node.out
        if isinstance(node, (Conv, Dense)):
            return self._linear(node, old, new)
        if isinstance(node, Requantize):
            out = self._requantized(node, old, new)
        elif isinstance(node, _FOLLOWS):
            out = _moved(out, new.bits - old.bits, new.scale - old.scale)
        return dataclasses.replace(node, out=out)

    def _linear(self, node: Conv | Dense, old: TensorType, new: TensorType) -> Node:
        bits = self.widths.weights[node.name]
        finer = bits - node.weight_bits
        if node.widths == "worst":
            wider = _worst(self.old, node, new, bits) - _worst(
                self.old, node, old, node.weight_bits
            )
        else:
            wider = finer + new.bits - old.bits
        out = _moved(node.out, wider, finer + new.scale - old.scale)
        return dataclasses.replace(
            node, out=out, weight_bits=bits, weight_scale=node.weight_scale + finer
        )

    def _requantized(self, node: Requantize, old: TensorType, new: TensorType) -> TensorType:
        out = node.out
        if node.name in self.aligned:
            to = self.node(self.aligned[node.name]).out
            if to.scale < new.scale and self.old[self.aligned[node.name]].out.scale >= old.scale:
                raise GraphError(
                    f"{node.name}: the residual would have scale {new.scale}, finer than the "
                    f"accumulator's {to.scale}: use more weight bits or fewer residual bits"
                )
            return dataclasses.replace(out, bits=to.bits, scale=to.scale)
        if node.name in self.residuals:
            assert self.widths.residual is not None and self.before.residual is not None
            if node.name in self.operands and self.widths.residual != self.widths.activations:
                raise GraphError(
                    f"{node.name}: what is added later is also read as it is, so residuals and "
                    f"activations need the same width, got {self.widths}"
                )
            more = self.widths.residual - self.before.residual
        elif node.name in self.operands:
            assert self.widths.activations is not None and self.before.activations is not None
            more = self.widths.activations - self.before.activations
        elif out.bits > old.bits and out.scale == old.scale:
            return _moved(out, new.bits - old.bits, new.scale - old.scale)  # room for an average
        else:
            return out
        return _moved(out, more, more)


def _moved(out: TensorType, bits: int, scale: int) -> TensorType:
    if not 1 <= out.bits + bits <= 64:
        raise GraphError(f"widths in 1..64 expected, got {out.bits + bits} bits")
    return dataclasses.replace(out, bits=out.bits + bits, scale=out.scale + scale)


def _worst(graph: Graph, node: Conv | Dense, source: TensorType, weight_bits: int) -> int:
    """Bits that hold every sum of products of such weights and operands."""
    read = graph.source(node)
    n = read.n
    if isinstance(node, Conv):
        n = node.kernel[0] * node.kernel[1] * read.shape[2] // node.groups
    largest = max(abs(source.low), abs(source.high)) * (1 << (weight_bits - 1)) * n
    return width_for(-largest, largest)
