"""From the nodes users write to the steps that protocols run.

A `Requantize` becomes shift, clamp, fit (PrivQuant's algorithm 1 with exact saturation); what compares
values gets a bit of headroom, so that the difference of any two of them fits.
"""

from collections.abc import Container
from dataclasses import replace

from pqjax.graph import ir
from pqjax.graph.ir import Graph, Node, TensorType
from pqjax.graph.overflow import overflowing
from pqjax.graph.tensor import rounding_half


class _Steps:
    """Nodes made one after the other, each reading the one before."""

    def __init__(self, node: Node, format: TensorType, taken: Container[str]) -> None:
        self.name, self.source, self.format, self.taken = node.name, node.sources[0], format, taken
        self.nodes: list[Node] = []

    def add(self, kind: type[Node], suffix: str, out: TensorType, **fields) -> None:
        name = ir.fresh(f"{self.name}.{suffix}", self.taken)
        node = kind(name, (self.source,), out, **fields)
        self.nodes.append(node)
        self.source, self.format = node.name, out

    def fit(self, out: TensorType) -> None:
        """The same value in another format; values that do not fit wrap around."""
        here = self.format
        if here == out:
            return
        if out.low <= here.low and here.high <= out.high and out.bits >= here.bits:
            self.add(ir.Extend, "extend", out)
            return
        if out.bits > here.bits:  # through the wide signed or unsigned format, then read anew
            wide = replace(out, signed=here.signed, nonnegative=here.nonnegative)
            self.add(ir.Extend, "extend", wide)
        self.add(ir.Narrow, "narrow", out)


def lower(
    node: ir.Requantize, source: TensorType, may_overflow: bool = False, taken: Container[str] = ()
) -> tuple[Node, ...]:
    """The steps of one requantization; the last one has its name and its format, none a name `taken`.

        shift > 0   Trunc by the shift, in full width
        shift < 0   extend by what the result needs, times 2^-shift
        saturate    ReLU or clamp, where the shifted source can leave the range
        then        keep the low bits, or extend

    Truncation in full width is what the published protocols begin with (PrivQuant, algorithm 1, here
    with exact saturation and extension before a shift to the left); the passes shorten it. Rounding what
    may overflow may wrap around: a sign that was known is not known any more, and read anew.
    """
    steps = _Steps(node, source, taken)
    out, shift = node.out, source.scale - node.out.scale
    low, high = source.low, source.high
    if shift > 0:
        half = rounding_half(shift, node.rounding)
        if may_overflow and half and source.nonnegative:
            steps.add(ir.Narrow, "anew", replace(source, nonnegative=False))
            low = steps.format.low
        low, high = (low + half) >> shift, (high + half) >> shift
        shifted = replace(steps.format, scale=out.scale)
        steps.add(ir.Truncate, "shift", shifted, shift=shift, rounding=node.rounding)
    elif shift < 0:
        low, high = low << -shift, high << -shift
        bits = out.bits + shift
        held = low >= out.low and high <= out.high
        if (node.rule == "wrap" or held) and bits > source.bits:
            steps.add(ir.Extend, "extend", replace(source, bits=bits))
        elif node.rule == "wrap" and 1 <= bits < source.bits and not held:
            steps.fit(replace(source, bits=bits, nonnegative=False))
        here = steps.format
        scaled = replace(here, bits=here.bits - shift, scale=out.scale)
        steps.add(ir.ScaleUp, "scale", scaled, shift=-shift)
    below, above = low < out.low, high > out.high
    if node.rule == "saturate" and (below or above):
        here = steps.format
        if below and not above and out.low == 0:
            steps.add(ir.Relu, "relu", replace(here, nonnegative=True))
        else:
            if not here.signed:
                wide = replace(here, bits=here.bits + 1, signed=True, nonnegative=True)
                steps.add(ir.Extend, "sign", wide)
            # Limits beyond its range would wrap around in the comparison.
            here = replace(steps.format, nonnegative=False)
            limits = {"low": max(out.low, here.low), "high": min(out.high, here.high)}
            steps.add(ir.Clamp, "clamp", out, **limits)
    steps.fit(out)
    if not steps.nodes:  # nothing to do, but the name must be there to be read
        steps.add(ir.Extend, "keep", out)
    return (*steps.nodes[:-1], replace(steps.nodes[-1], name=node.name))


def with_headroom(
    node: ir.MaxPool | ir.ArgMax, source: TensorType, taken: Container[str] = ()
) -> tuple[Node, ...]:
    """The node on signed values whose differences fit, between an extension and a cut if need be."""
    if node.headroom:
        return (node,)
    if source.signed and source.nonnegative:
        return (replace(node, headroom=True),)
    steps = _Steps(node, source, taken)
    wide = replace(source, bits=source.bits + 1, signed=True, nonnegative=not source.signed)
    steps.add(ir.Extend, "headroom", wide)
    if isinstance(node, ir.ArgMax):
        return (*steps.nodes, replace(node, sources=(steps.source,), headroom=True))
    pooled = replace(wide, shape=node.out.shape)
    steps.add(ir.MaxPool, "max", pooled, window=node.window, stride=node.stride, headroom=True)
    return (*steps.nodes, ir.Narrow(node.name, (steps.source,), node.out))


def lower_all(graph: Graph) -> Graph:
    """Every requantization and comparison replaced by its steps."""
    nodes: list[Node] = []
    loose = overflowing(graph)
    for node in graph:
        if isinstance(node, ir.Requantize):
            nodes += lower(node, graph.source(node), node.sources[0] in loose, graph)
        elif isinstance(node, (ir.MaxPool, ir.ArgMax)):
            nodes += with_headroom(node, graph.source(node), graph)
        else:
            nodes.append(node)
    return Graph(tuple(nodes))
