"""Where the values of every tensor lie: interval arithmetic over the nodes, from the input's format on.

With the actual weights where they are at hand (the server), else with what a linear layer declares
(the client, who trusts the public width; the server checks it). A tensor that may overflow holds any
value of its format (`pqjax.graph.overflow`), so nothing is trusted there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from pqjax.errors import GraphError
from pqjax.graph.ir import (
    Add,
    ArgMax,
    AvgPool,
    Clamp,
    Conv,
    Dense,
    Extend,
    Graph,
    Input,
    MaxPool,
    Narrow,
    Node,
    Pad,
    Relu,
    Requantize,
    Rounding,
    ScaleUp,
    TensorType,
    Truncate,
    TruncateReduce,
    Weights,
    rounding_half,
)
from pqjax.graph.lower import lower
from pqjax.graph.overflow import overflowing
from pqjax.protocols.clamp import clamp_unfit
from pqjax.protocols.compare import known_sign_unfit
from pqjax.protocols.nonlinear import average_pool_unfit, differences_unfit, relu_unfit
from pqjax.protocols.resize import extend_unfit, truncate_reduce_unfit, truncate_unfit

Interval = tuple[int, int]


def width_for(low: int, high: int, signed: bool = True) -> int:
    """Bits that hold every integer in [low, high]."""
    if not signed:
        return max(1, high.bit_length())
    return 1 + max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0)


def reach(node: Conv | Dense, source: Interval, weights: Weights) -> Interval:
    """The smallest and largest accumulator that any input in `source` can produce, bias included."""
    weight = np.asarray(weights[f"{node.name}/weight"]).astype(np.int64)
    bias = np.asarray(weights[f"{node.name}/bias"]).astype(np.int64).astype(object)
    flat = weight.reshape(-1, weight.shape[-1])
    if node.weight_bits + len(flat).bit_length() > 63:
        flat = flat.astype(object)  # sums of Python integers: none is ever cut
    positive, negative = (
        part.sum(0).astype(object) for part in (flat.clip(min=0), flat.clip(max=0))
    )
    # Zero padding puts 0 in the place of an operand, so 0 is reachable in every term.
    low, high = min(source[0], 0), max(source[1], 0)
    lows = positive * low + negative * high + bias
    highs = positive * high + negative * low + bias
    return int(lows.min()), int(highs.max())


def fail(node: Node, text: str) -> GraphError:
    """An error that names its node."""
    return GraphError(f"{node.name} ({node.kind}): {text}")


def same(node: Node, one: TensorType, other: TensorType, fields: tuple[str, ...]) -> None:
    """Checks that two of a node's tensors agree in some fields of their formats."""
    for field in fields:
        a, b = getattr(one, field), getattr(other, field)
        if a != b:
            raise fail(node, f"{field} must agree, got {a} and {b}: requantize one of them")


def _refuse(node: Node, why: str | None) -> None:
    if why is not None:
        raise fail(node, why)


def _declared(node: Node, bits: int, scale: int) -> None:
    out = node.out
    if (out.bits, out.scale) != (bits, scale):
        raise fail(
            node,
            f"{bits} bits at scale {scale} follow from its source, but it declares {out.bits} at "
            f"{out.scale}",
        )


def _misfit(node: Node, interval: Interval, what: str) -> GraphError:
    out, (low, high) = node.out, interval
    where = f"{what} can be anything in [{low}, {high}]"
    if out.low == 0 and low < 0:
        return fail(node, f"{where}, but its format says that none is negative")
    need = width_for(low, high, out.signed)
    return fail(
        node,
        f"{where}, which takes {need} bits, but its format holds [{out.low}, {out.high}] ({out.bits} "
        f"bits): widen out.bits to {need} or requantize before",
    )


def _worst(node: Conv | Dense, source: Interval, terms: int) -> Interval:
    """What weights of the declared width could produce, the bias aside."""
    largest = max(abs(source[0]), abs(source[1])) * (1 << (node.weight_bits - 1)) * terms
    return -largest, largest


def _ends(out: TensorType) -> Interval:
    """The whole ring of a format, whatever is known of its sign."""
    whole = dataclasses.replace(out, nonnegative=False)
    return whole.low, whole.high


class Intervals:
    """The walk: where each node's values lie, in order.

    Attributes:
      known: by name, the interval of the nodes walked so far.
      loose: tensors that may overflow.
      trusted: accumulators that only the weights would tell about, and what stays near them.
    """

    def __init__(
        self, graph: Graph, weights: Weights | None, given: Mapping[str, Interval]
    ) -> None:
        self.graph, self.weights, self.given = graph, weights, given
        self.known: dict[str, Interval] = {}
        self.loose = overflowing(graph)
        self.trusted: set[str] = set()

    def add(self, node: Node) -> None:
        """Checks widths and scales of the next node, and what its protocol needs."""
        if isinstance(node, Input):
            whole = (node.out.low, node.out.high)
            self.known[node.name] = self._held(node, self.given.get(node.name, whole))
            return
        if isinstance(node, (Conv, Dense)):
            if self.weights is None and node.widths != "empirical":
                self.trusted.add(node.name)
        elif not isinstance(node, (Requantize, Clamp, ArgMax)):
            if not self.trusted.isdisjoint(node.sources):
                self.trusted.add(node.name)
        self.known[node.name] = self._held(node, self._computed(node))

    def _held(self, node: Node, interval: Interval, what: str = "a value") -> Interval:
        """The interval of what a node's format holds of the values it computes."""
        out, (low, high) = node.out, interval
        if out.low <= low and high <= out.high:
            return interval
        if node.name in self.loose and not isinstance(node, Extend):  # any value of the ring
            if out.nonnegative:
                known = known_sign_unfit(out.bits, *_ends(out))
                raise fail(node, f"may overflow, so its sign bit cannot be known to be 0: {known}")
            return _ends(out)
        if node.name in self.trusted and low <= out.high and high >= out.low:
            return max(low, out.low), min(high, out.high)
        raise _misfit(node, interval, what)

    def _computed(self, node: Node) -> Interval:
        """Where the values lie that a node computes of its sources', before they are fit to `out`."""
        source, out = self.graph.source(node), node.out
        low, high = self.known[node.sources[0]]
        if isinstance(node, (Conv, Dense)):
            return self._linear(node, source, (low, high))
        if isinstance(node, Requantize):
            return self._requantized(node, source)
        if isinstance(node, (Truncate, TruncateReduce)):
            return self._truncated(node, source)
        if isinstance(node, Narrow):
            same(node, source, out, ("scale",))
            if out.bits > source.bits:
                raise fail(
                    node, f"keeps low bits, but {source.bits} bits do not have {out.bits}: extend"
                )
            return self._low_bits(node, (low, high))
        if isinstance(node, Extend):
            _refuse(node, extend_unfit(source.bits, out.bits))
            same(node, source, out, ("scale",))
            return low, high
        if isinstance(node, ScaleUp):
            _declared(node, source.bits + node.shift, source.scale + node.shift)
            return low << node.shift, high << node.shift
        if isinstance(node, Clamp):
            same(node, source, out, ("scale",))
            known = source.signed and source.nonnegative
            limits = (node.low, node.high)
            _refuse(node, clamp_unfit(source.bits, source.signed, known, *limits, out.bits))
            return min(max(low, node.low), node.high), min(max(high, node.low), node.high)
        if isinstance(node, (MaxPool, ArgMax)):
            self._check_headroom(node, source, (low, high))
        if isinstance(node, ArgMax):
            return 0, source.n - 1
        return self._in_ring(node, source, (low, high))

    def _in_ring(self, node: Node, source: TensorType, interval: Interval) -> Interval:
        """Nodes that keep their source's ring."""
        low, high = interval
        if isinstance(node, Add):
            same(node, source, self.graph.source(node, 1), ("shape", "bits", "scale", "signed"))
        fields = ("bits", "signed") if isinstance(node, AvgPool) else ("bits", "scale", "signed")
        same(node, source, node.out, fields)
        if isinstance(node, Add):
            more = self.known[node.sources[1]]
            return low + more[0], high + more[1]
        if isinstance(node, AvgPool):
            _refuse(node, average_pool_unfit(source.bits, node.multiplier))
            area = node.window[0] * node.window[1] * node.multiplier
            return low * area, high * area
        if isinstance(node, Relu):
            _refuse(node, relu_unfit(source.signed))
            return max(low, 0), max(high, 0)
        if isinstance(node, Pad):
            return min(low, 0), max(high, 0)
        return low, high

    def _linear(self, node: Conv | Dense, source: TensorType, interval: Interval) -> Interval:
        out = node.out
        if out.scale != source.scale + node.weight_scale:
            raise fail(
                node,
                f"scale must be {source.scale} + {node.weight_scale} (input + weights), got {out.scale}",
            )
        if not out.signed or out.nonnegative:
            raise fail(node, "an accumulator is signed, and nothing is known about its sign")
        if node.widths == "worst":
            terms = source.n if isinstance(node, Dense) else (
                node.kernel[0] * node.kernel[1] * source.shape[2] // node.groups
            )  # fmt: skip
            low, high = _worst(node, interval, terms)
            if low < out.low or high > out.high:
                raise _misfit(node, (low, high), "the sum of products")
        if node.widths == "empirical":
            return out.low, out.high
        if self.weights is None:  # as wide as declared; the server, who has weights, checks
            return self.given.get(node.name, (out.low, out.high))
        return self._held(node, reach(node, interval, self.weights), "the sum of products and bias")

    def _rounded(
        self, node: Node, source: TensorType, shift: int, rounding: Rounding
    ) -> tuple[Interval, bool]:
        """Values after a rounding shift to the right, and whether the addition before may wrap."""
        low, high = self.known[node.sources[0]]
        half = rounding_half(shift, rounding)
        if half and high + half > source.high:
            if node.sources[0] in self.loose:
                low, high = _ends(source)
                return (low >> shift, high >> shift), True
            if node.sources[0] not in self.trusted:
                need = width_for(0, high + half, source.signed)
                raise fail(
                    node,
                    f"rounding adds {half} to values up to {high}, which needs a source of {need} "
                    f"bits, got {source.bits}: widen {node.sources[0]!r} to {need}",
                )
        return ((low + half) >> shift, (high + half) >> shift), False

    def _truncated(self, node: Truncate | TruncateReduce, source: TensorType) -> Interval:
        bits = source.bits
        if isinstance(node, TruncateReduce):
            bits = min(node.out.bits, bits - node.shift)
            _refuse(node, truncate_reduce_unfit(source.bits, node.shift, max(bits, 1)))
        else:
            _refuse(node, truncate_unfit(bits, node.shift, False, False))
        interval, wraps = self._rounded(node, source, node.shift, node.rounding)
        if isinstance(node, Truncate):
            known = source.signed and source.nonnegative
            _refuse(node, truncate_unfit(bits, node.shift, known, wraps))
        _declared(node, bits, source.scale - node.shift)
        return self._low_bits(node, interval) if isinstance(node, TruncateReduce) else interval

    def _low_bits(self, node: Node, interval: Interval) -> Interval:
        """Where values lie of which only the low bits are kept."""
        out = node.out
        if interval[0] >= out.low and interval[1] <= out.high:
            return interval
        if out.nonnegative:
            if node.name in self.trusted and node.name not in self.loose:
                return out.low, out.high
            raise fail(node, f"wraps {list(interval)}: its sign bit cannot be known to be 0")
        return out.low, out.high

    def _requantized(self, node: Requantize, source: TensorType) -> Interval:
        out, shift = node.out, source.scale - node.out.scale
        if shift >= source.bits:
            raise fail(node, f"shifts {source.bits} bits right by {shift}: nothing would be left")
        if shift <= -64:
            raise fail(node, f"shifts left by {-shift}: no value of 64 bits but 0 could hold that")
        if shift > 0:
            low, high = self._rounded(node, source, shift, node.rounding)[0]
        else:
            low, high = (end << -shift for end in self.known[node.sources[0]])
        for step in lower(node, source, node.sources[0] in self.loose):
            bits = step.out.bits + (not step.out.signed)
            if bits > 64:
                raise fail(
                    node,
                    f"takes {bits} signed bits on the way ({step.kind}), and 64 is the most: narrow "
                    f"{node.sources[0]!r} or shift by less",
                )
        if node.rule == "saturate":
            return min(max(low, out.low), out.high), min(max(high, out.low), out.high)
        return self._low_bits(node, (low, high))

    def _check_headroom(
        self, node: MaxPool | ArgMax, source: TensorType, interval: Interval
    ) -> None:
        """What is compared: differences must fit, or there must be a bit left to make them."""
        if not node.headroom:
            if source.bits >= 64 and not source.nonnegative:
                raise fail(node, "compares in one bit more than its source has, and 64 is the most")
            return
        if not self.trusted.isdisjoint(node.sources) and node.sources[0] not in self.loose:
            return
        _refuse(node, differences_unfit(source.bits, *interval))
