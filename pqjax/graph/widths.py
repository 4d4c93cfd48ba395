"""A graph in other widths, without its weights: for what it would cost before anyone trains it.

Scales follow widths (a bit more is a bit finer), so real ranges stay. Accumulators of kind `worst` get
exactly the width their products need; those found from weights or measured are shifted by as many bits
as weights and operands, an estimate: the trained network's own widths may differ by a bit.
"""

import collections
import dataclasses
from collections.abc import Mapping

from pqjax.errors import GraphError
from pqjax.graph.ir import Add, Graph, Linear, Node, Requantize
from pqjax.graph.tensor import TensorType, width_for

# What gave tensors their width, and what chose their scale before that.
Made = list[tuple[str, str]]


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


def _makers(graph: Graph, name: str) -> Made:
    """Of one tensor; of a concatenation there may be several.

    That is a requantization, or a clamp and the shift or requantization before it; steps that keep their
    source's range may lie between.
    """
    found: Made = []
    ahead, seen = [(name, "")], set()
    while ahead:
        here = ahead.pop()
        if here in seen:
            continue
        seen.add(here)
        node = graph[here[0]]
        maker = here[1] or (node.name if node.own_range else "")
        if node.rescales and maker:
            found.append((maker, node.name))
        elif node.keeps_range:
            ahead += [(source, maker) for source in reversed(node.sources)]
    return found


def aligned(graph: Graph) -> dict[str, str]:
    """Requantizations that bring an operand to the accumulator it is added to, and that other side."""
    found = {}
    for node in graph:
        if isinstance(node, Add):
            makers = [graph[source] for source in node.sources]
            for maker, other in ((0, 1), (1, 0)):
                kinds = [isinstance(makers[i], Requantize) for i in (maker, other)]
                if kinds == [True, False]:
                    found[makers[maker].name] = makers[other].name
    return found


def _residuals(graph: Graph) -> Made:
    made = [pair for name in aligned(graph) for pair in _makers(graph, graph[name].sources[0])]
    places = {node.name: i for i, node in enumerate(graph)}
    return sorted(set(made), key=lambda pair: places[pair[0]])


def residuals(graph: Graph) -> tuple[str, ...]:
    """What gives tensors their width that are aligned and added later, in order."""
    return tuple(dict.fromkeys(name for name, _ in _residuals(graph)))


def _operands(graph: Graph) -> Made:
    made = [pair for n in graph if isinstance(n, Linear) for pair in _makers(graph, n.sources[0])]
    widths = [graph[name].out.bits for name in dict.fromkeys(name for name, _ in made)]
    most = collections.Counter(widths).most_common(1)
    return [pair for pair in made if graph[pair[0]].out.bits == most[0][0]]


def operands(graph: Graph) -> tuple[str, ...]:
    """What gives tensors their width that linear layers read and that have the activations' one.

    That is the width that most have: what is read at another width (a classifier's operand) keeps it.
    """
    return tuple(dict.fromkeys(name for name, _ in _operands(graph)))


def widths_of(graph: Graph) -> Widths:
    """The widths a graph has.

    Raises:
      GraphError: its residuals differ in width.
    """
    added = {graph[name].out.bits for name in residuals(graph)}
    if len(added) > 1:
        raise GraphError(f"residuals of one width expected, got {sorted(added)} bits")
    read = operands(graph)
    weights = {n.name: n.weight_bits for n in graph if isinstance(n, Linear)}
    reads = graph[read[0]].out.bits if read else None
    return Widths(weights, reads, added.pop() if added else None)


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
    return _Rewriting(graph, before, widths).graph()


class _Rewriting:
    """One rewriting: the nodes made so far, by name."""

    def __init__(self, graph: Graph, before: Widths, widths: Widths):
        self.old, self.before, self.widths = graph, before, widths
        self.aligned = aligned(graph)
        self.residuals = {chose for _, chose in _residuals(graph)}
        self.operands = {chose for _, chose in _operands(graph)}
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
                raise GraphError(f"{each} is aligned to what is made of it: no width fits both")
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
        if not node.sources:
            return node
        old, new = self.old.source(node), self.node(node.sources[0]).out
        if isinstance(node, Linear):
            return self._linear(node, old, new)
        finer = self._finer(node)
        if isinstance(node, Requantize):
            if node.name in self.aligned:
                return self._aligned(node, old, new)
            if finer is None and node.out.bits > old.bits and node.out.scale == old.scale:
                out = node.out.moved(new.bits - old.bits, new.scale - old.scale)
                return dataclasses.replace(node, out=out)  # room for an average
        made = node.follow(old, new, finer or 0)
        if made is None:
            raise GraphError(f"{node.name}: {node.kind} cannot be given other widths")
        return made

    def _linear(self, node: Linear, old: TensorType, new: TensorType) -> Node:
        bits = self.widths.weights[node.name]
        finer = bits - node.weight_bits
        squares = None if node.square_bits is None else max(0, node.square_bits + 2 * finer)
        made = dataclasses.replace(
            node, weight_bits=bits, weight_scale=node.weight_scale + finer, square_bits=squares
        )
        wider = finer + new.bits - old.bits
        if node.widths == "worst":
            terms = node.terms(old)
            wider = width_for(*made.worst((new.low, new.high), terms))
            wider -= width_for(*node.worst((old.low, old.high), terms))
        return dataclasses.replace(made, out=node.out.moved(wider, finer + new.scale - old.scale))

    def _aligned(self, node: Requantize, old: TensorType, new: TensorType) -> Node:
        """What brings a residual to the accumulator it is added to."""
        other = self.aligned[node.name]
        to = self.node(other).out
        if to.scale < new.scale and self.old[other].out.scale >= old.scale:
            raise GraphError(
                f"{node.name}: the residual would have scale {new.scale}, finer than the "
                f"accumulator's {to.scale}: use more weight bits or fewer residual bits"
            )
        out = dataclasses.replace(node.out, bits=to.bits, scale=to.scale)
        return dataclasses.replace(node, out=out)

    def _finer(self, node: Node) -> int | None:
        """By how many bits the wanted widths make the scale finer that a node chooses, if they say."""
        if node.name in self.residuals:
            assert self.widths.residual is not None and self.before.residual is not None
            if node.name in self.operands and self.widths.residual != self.widths.activations:
                raise GraphError(
                    f"{node.name}: what is added later is also read as it is, so residuals and "
                    f"activations need the same width, got {self.widths}"
                )
            return self.widths.residual - self.before.residual
        if node.name in self.operands:
            assert self.widths.activations is not None and self.before.activations is not None
            return self.widths.activations - self.before.activations
        return None
