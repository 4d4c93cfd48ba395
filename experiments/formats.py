"""Networks in other number formats and single blocks of networks, for what they cost.

Costs depend on shapes and widths alone, so no weights are made here; accumulators have the published
worst-case width.
"""

from __future__ import annotations

import dataclasses

from pqjax.graph import (
    Add,
    AvgPool,
    Conv,
    Dense,
    Graph,
    Input,
    Node,
    Relu,
    Requantize,
)
from pqjax.graph.baselines import pool_room


@dataclasses.dataclass(frozen=True)
class Format:
    """One format for a whole network, as CrypTFlow2 and SiRNN use it.

    Attributes:
      bits, scale: of every activation, residuals included.
      weight_bits, weight_scale: of every weight.
      accumulator_bits: of every accumulator; None for l_w + l_x + ceil(log2 K).
      input_bits: of the network's input, where fewer leave room for sums; None for `bits`.
    """

    bits: int
    scale: int
    weight_bits: int
    weight_scale: int
    accumulator_bits: int | None = None
    input_bits: int | None = None


CRYPTFLOW2 = Format(37, 13, 37, 13, accumulator_bits=37, input_bits=24)
SIRNN = Format(16, 8, 16, 8)


def in_format(graph: Graph, to: Format) -> Graph:
    """The same architecture with every tensor in one format, requantized by dropping bits."""
    made: dict[str, Node] = {}
    for node in graph:
        made[node.name] = _formatted(graph, node, made, to)
    return Graph(tuple(made.values()))


def _formatted(graph: Graph, node: Node, made: dict[str, Node], to: Format) -> Node:
    out = dataclasses.replace(node.out, signed=True, nonnegative=False)
    if isinstance(node, Input):
        out = dataclasses.replace(out, bits=to.input_bits or to.bits, scale=to.scale)
        return dataclasses.replace(node, out=out)
    source = made[node.sources[0]].out
    if isinstance(node, (Conv, Dense)):
        bits = to.accumulator_bits
        if bits is None:
            bits = to.weight_bits + source.bits + (node.terms(graph.source(node)) - 1).bit_length()
        out = dataclasses.replace(out, bits=bits, scale=source.scale + to.weight_scale)
        weights = {"weight_bits": to.weight_bits, "weight_scale": to.weight_scale}
        return dataclasses.replace(node, out=out, widths="weights", **weights)
    if isinstance(node, Requantize):
        partner = _partner(graph, node)
        if partner is not None:  # brings a residual to what it is added to
            like = made[partner].out if partner in made else source
            out = dataclasses.replace(out, bits=like.bits, scale=like.scale)
        else:
            room = 0 if to.accumulator_bits else pool_room(graph)[node.name]
            out = dataclasses.replace(out, bits=to.bits + room, scale=to.scale)
        shift = source.scale - out.scale
        top = source.high >> shift if shift > 0 else source.high << -shift
        positive = source.nonnegative and top <= out.high  # a value that wraps loses its sign
        out = dataclasses.replace(out, nonnegative=positive)
        return dataclasses.replace(node, out=out, rule="wrap")
    more = node.out.scale - graph.source(node).scale if isinstance(node, AvgPool) else 0
    positive = isinstance(node, Relu) or (source.nonnegative and not isinstance(node, Add))
    out = dataclasses.replace(
        out, bits=source.bits, scale=source.scale + more, nonnegative=positive
    )
    return dataclasses.replace(node, out=out)


def _partner(graph: Graph, node: Requantize) -> str | None:
    """The tensor that this one is aligned to, where it is one side of an addition."""
    for reader in graph.readers[node.name]:
        if isinstance(reader, Add):
            return next(s for s in reader.sources if s != node.name)
    return None


def gigabytes(bits: int, binary: bool = True) -> float:
    """Bits as GiB, or as GB."""
    return bits / 8 / (2**30 if binary else 1e9)
