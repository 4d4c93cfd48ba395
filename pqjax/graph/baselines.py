"""How published systems run the same integers: wider rings, more steps. For comparison only."""

from collections.abc import Mapping
from dataclasses import replace

from pqjax.graph import ir
from pqjax.graph.ir import Graph, Node, TensorType
from pqjax.graph.overflow import overflowing
from pqjax.graph.rewrite import Pass
from pqjax.graph.tensor import Interval, rounding_half, width_for
from pqjax.graph.validate import validate


def _rings(graph: Graph) -> dict[str, str]:
    """For every node a representative of those that must have its width."""
    parent = {node.name: node.name for node in graph}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]  # half as far the next time
            name = parent[name]
        return name

    for node in graph:
        if node.same_width:
            for source in node.sources:
                parent[root(source)] = root(node.name)
    return {name: root(name) for name in parent}


def pool_room(graph: Graph) -> dict[str, int]:
    """For every tensor the bits that average pools behind it add, before its ring is left."""
    room = dict.fromkeys((node.name for node in graph), 0)
    for node in reversed(graph.nodes):
        if node.same_width:
            more = room[node.name]
            if isinstance(node, ir.AvgPool):
                more += (node.area - 1).bit_length()
            for source in node.sources:
                room[source] = max(room[source], more)
    return room


def _worst_case_widths(graph: Graph) -> Graph:
    """Of accumulators that cannot overflow and whose readers take any width. PrivQuant, 4.1.1."""
    rings, rooms, known = _rings(graph), pool_room(graph), validate(graph)
    loose = overflowing(graph)
    wide: dict[str, int] = {}
    fixed = {rings[name] for name in loose}
    for node in graph:
        ring = rings[node.name]
        if node.counts_width:
            fixed.add(rings[node.sources[0]])
        if isinstance(node, ir.Linear):
            source = graph.source(node)
            bits = node.weight_bits + source.bits
            bits += (node.terms(source) - 1).bit_length() + rooms[node.name]
            if bits > 64 and ring not in fixed:
                why = f"its worst-case width is {bits} bits, and 64 is the most"
                raise node.error(f"{why}: use another protocol")
            wide[ring] = max(wide.get(ring, 0), node.out.bits, bits)
        elif not node.same_width and not (node.out.signed and node.free(known[node.name])):
            fixed.add(ring)  # its width is part of what it computes
    nodes = []
    for node in graph:
        ring, bits = rings[node.name], node.out.bits
        bits = bits if ring in fixed else wide.get(ring, bits)
        nodes.append(replace(node, out=replace(node.out, bits=bits)))
    return Graph(tuple(nodes))


def _extended_residuals(graph: Graph) -> Graph:
    """Every addition one bit wider than its operands, both extended to it; then narrowed again.

    What an addition loses in its own ring is cut off again. SiRNN, as PrivQuant's figure 5a draws it.
    """
    nodes: list[Node] = []
    for node in graph:
        if not isinstance(node, ir.Add) or node.out.bits + (not node.out.signed) >= 64:
            nodes.append(node)
            continue
        wide = replace(node.out, bits=node.out.bits + 1, nonnegative=False)
        names, added = [], ir.fresh(f"{node.name}.wide", graph)
        for i, source in enumerate(node.sources):
            names.append(ir.fresh(f"{node.name}.operand{i}", graph))
            out = replace(wide, nonnegative=graph[source].out.nonnegative)
            nodes.append(ir.Extend(names[-1], (source,), out))
        nodes.append(ir.Add(added, tuple(names), wide))
        nodes.append(ir.Narrow(node.name, (added,), node.out))
    return Graph(tuple(nodes))


def uniform_ring(bits: int, weights: bool = True) -> Pass:
    """Everything in one ring of `bits` bits, weights included, as CrypTFlow2 does (eprint 2020/1002).

    Without `weights` those stay as narrow as they are: under encryption their width is noise, and no
    bits that travel. Accumulators cannot overflow, or have as many bits already.

    Raises (when applied):
      GraphError: names a node whose values need more bits than the ring has.
    """

    def whole(graph: Graph) -> Graph:
        known, loose = validate(graph), overflowing(graph)
        nodes: list[Node] = []
        for node in graph:
            _check_fits(node, known[node.name], bits, node.name in loose)
            nodes += _in_ring(graph, node, bits, known, weights)
        return Graph(tuple(nodes))

    name = f"uniform-{bits}-bit-ring" + ("" if weights else "-of-values")
    return Pass(name, f"every tensor in {bits} bits", whole=whole)


def _check_fits(node: Node, interval: Interval, bits: int, loose: bool) -> None:
    declared = node.out.bits + (not node.out.signed)
    if loose and node.out.bits < bits:
        raise node.error(
            f"may overflow its {node.out.bits} bits, as an accumulator's width is measured, and would "
            f"be another value in the uniform ring's {bits}: take that width from the weights, or use "
            "another protocol"
        )
    needs = [("its values take", width_for(*interval), ": use another protocol")]
    if isinstance(node, ir.Linear):
        advice = ": requantize before it, or use another protocol"
        needs = [("its accumulator takes", declared, advice)]
        needs += [("its weights take", node.weight_bits, "")]
    for what, need, instead in needs:
        if need > bits:
            raise node.error(f"{what} {need} bits, more than the uniform ring's {bits}{instead}")


def _in_ring(
    graph: Graph, node: Node, bits: int, known: Mapping[str, Interval], weights: bool
) -> list[Node]:
    """One node as it runs in the uniform ring."""
    positive = node.out.low == 0 and node.out.bits < bits
    out = replace(node.out, bits=bits, signed=True, nonnegative=positive)
    if isinstance(node, ir.Linear):
        open_sign = replace(out, nonnegative=False)
        if not weights:
            return [replace(node, out=open_sign)]
        # Weights of `bits` bits could reach beyond any width; those there are do not.
        widths = "empirical" if node.widths == "empirical" else "weights"
        return [replace(node, out=open_sign, weight_bits=bits, widths=widths)]
    if isinstance(node, ir.ArgMax):
        if not graph.readers[node.name]:
            return [node]
        index = replace(node, name=ir.fresh(f"{node.name}.index", graph))
        return [index, ir.Extend(node.name, (index.name,), out)]
    if isinstance(node, ir.Extend):
        return [ir.Extend(node.name, node.sources, out)]
    if isinstance(node, (ir.Truncate, ir.TruncateReduce)) and not _drops(node, known):
        return [ir.Truncate(node.name, node.sources, out, node.shift, node.rounding)]
    if isinstance(node, (ir.Narrow, ir.TruncateReduce)):
        low, high = known[node.sources[0]]
        if isinstance(node, ir.Narrow) and node.out.low <= low and high <= node.out.high:
            return [ir.Extend(node.name, node.sources, out)]
        return _reduced(graph, node, out)
    if isinstance(node, ir.ScaleUp):
        name = ir.fresh(f"{node.name}.wide", graph)
        wide = TensorType(out.shape, bits + node.shift, out.scale)
        return [replace(node, name=name, out=wide), ir.Narrow(node.name, (name,), out)]
    if isinstance(node, ir.Clamp):  # limits that no value of the ring reaches are not limits
        low, high = replace(out, nonnegative=False).ends
        return [replace(node, out=out, low=max(node.low, low), high=min(node.high, high))]
    return [replace(node, out=out)]


def _drops(node: ir.Truncate | ir.TruncateReduce, known: Mapping[str, Interval]) -> bool:
    """Whether a truncation may lose bits, or a sign, of values in its source's interval."""
    if isinstance(node, ir.Truncate):
        return False
    half = rounding_half(node.shift, node.rounding)
    low, high = ((end + half) >> node.shift for end in known[node.sources[0]])
    return low < node.out.low or high > node.out.high


def _reduced(graph: Graph, node: ir.Narrow | ir.TruncateReduce, out: TensorType) -> list[Node]:
    """Low bits only: dropped and extended again, because the uniform ring would keep the others."""
    source, made = node.sources[0], []
    if isinstance(node, ir.TruncateReduce):
        source = ir.fresh(f"{node.name}.shifted", graph)
        whole = replace(out, nonnegative=False)
        made.append(ir.Truncate(source, node.sources, whole, node.shift, node.rounding))
    if node.out.bits + (not node.out.signed) >= out.bits:
        return [*made, ir.Narrow(node.name, (source,), out)]
    low = ir.fresh(f"{node.name}.low", graph)
    return [*made, ir.Narrow(low, (source,), node.out), ir.Extend(node.name, (low,), out)]


_ACCUMULATORS, _SUMS = "l_acc = l_w + l_x + ceil(log2 K)", "a + b = Ext(a) + Ext(b) in one bit more"
WORST_CASE_WIDTHS = Pass("worst-case-widths", _ACCUMULATORS, whole=_worst_case_widths)
EXTENDED_RESIDUALS = Pass("extend-residuals", _SUMS, whole=_extended_residuals)
