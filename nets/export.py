"""From the trained network to the integer graph that two parties execute, and its accuracy.

Accumulator widths come from the actual weights: the smallest signed width that holds every sum any
input can reach, per output channel, with room for a residual, for the sum before a pool and for the
rounding addition.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from nets import ops
from nets.data import INPUT_SCALE_BITS, integer_input
from nets.ops import INPUT, PIXEL_ZERO, Op, part_name, walk
from nets.quantized import EXACT, QuantNet
from nets.quantizer import Rule, exact_scale
from nets.steps import Average, Capped, Cut, Fit, Joined
from pqjax.errors import GraphError
from pqjax.graph import (
    Add,
    AvgPool,
    Clamp,
    Concat,
    Conv,
    Dense,
    Graph,
    Input,
    Node,
    Relu,
    Requantize,
    ScaleUp,
    TensorType,
    Truncate,
    every_value,
    reach,
    reference,
    validate,
    width_for,
    wrap_rates,
)
from pqjax.graph.bounds import Shape
from pqjax.graph.ir import KINDS, fresh

_EXACT_BITS = EXACT.bit_length()  # signed width up to which training arithmetic is exact
_OPEN = 64  # bits of a sum until its block ends and they are known


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor of the network as a node of the graph."""

    node: str
    out: TensorType
    low: int
    high: int


class _Export:
    """The nodes made so far, and the accumulator that is not yet closed."""

    def __init__(self, net: QuantNet, exact: bool = True):
        self.net, self.widths, self.exact = net, net.widths, exact
        negative = net.architecture.zero > 0
        source = TensorType(net.architecture.image, 8, INPUT_SCALE_BITS, signed=negative)
        self.nodes: list[Node] = [Input(INPUT, (), source)]
        self.weights: dict[str, np.ndarray] = {}
        self.input = _Tensor(INPUT, source, source.low, source.high)
        self.taken = {INPUT, *(step.name for step in net.steps)}
        self.first = 0  # node of the accumulator's block
        self.reached: list[tuple[int, int]] = []  # intervals that the accumulator must hold

    def rules(self) -> ops.Rules[_Tensor]:
        carried = (ops.MaxPool, ops.Flatten, ops.Subsample, ops.Pad, ops.Take)
        return {
            **dict.fromkeys(carried, self.carried),
            ops.Conv: self.product,
            ops.Dense: self.product,
            ops.Add: self.sum,
            ops.Relu: self.relu,
            ops.AvgPool: self.total,
            Average: self.average,
            Capped: self.capped,
            Joined: self.joined,
            Cut: self.cut,
            Fit: self.fit,
        }

    def add(self, node: Node, low: int, high: int) -> _Tensor:
        self.nodes.append(node)
        if node.out.bits == _OPEN:
            self.reached.append((low, high))
        return _Tensor(node.name, node.out, low, high)

    def check_exact(self, name: str, bits: int) -> None:
        """Whether f32 has sums of so many bits, where it must."""
        if self.exact and bits > _EXACT_BITS:
            raise GraphError(
                f"{name}: its accumulator takes {bits} bits, but training is exact up to "
                f"{_EXACT_BITS}: use fewer weight or activation bits"
            )

    def named(self, name: str) -> str:
        """A name that no step or other node has."""
        found = fresh(name, self.taken)
        self.taken.add(found)
        return found

    def carried(self, op: Op, x: _Tensor) -> _Tensor:
        """Kinds that the graph has, too: their fields are the same."""
        out = dataclasses.replace(x.out, shape=op.shape(x.out.shape))
        own = [f.name for f in dataclasses.fields(op) if f.name not in ("name", "sources")]
        fields = {name: getattr(op, name) for name in own}
        return self.add(KINDS[op.kind](op.name, (x.node,), out, **fields), x.low, x.high)

    def product(self, op: ops.Linear, x: _Tensor) -> _Tensor:
        layer = self.net.layer(op.name)
        weight_scale = exact_scale(layer.weight_scale[...])
        kernel, bias, _ = layer.integers(jnp.float32(x.out.scale), False)
        self.weights[f"{op.name}/weight"] = np.asarray(kernel).astype(np.int64)
        self.weights[f"{op.name}/bias"] = np.asarray(bias).astype(np.int64)
        self.first, self.reached = len(self.nodes), []
        wide = TensorType(op.shape(x.out.shape), _OPEN, x.out.scale + weight_scale)
        place = op.name, (x.node,), wide
        if isinstance(op, ops.Dense):
            node = Dense(*place, layer.bits, weight_scale)
        else:
            shape = op.window, op.stride, op.padding
            bits = layer.bits, weight_scale
            node = Conv(*place, *shape, *bits, op.groups, dilation=op.dilation)
        return self.add(node, *reach(node, (x.low, x.high), self.weights))

    def sum(self, op: ops.Add, acc: _Tensor, plus: _Tensor) -> _Tensor:
        """The summand, shifted left to the accumulator's scale (or it to the summand's), and the sum."""
        up = plus.out.scale - acc.out.scale
        if up > 0:
            out = dataclasses.replace(acc.out, scale=plus.out.scale)
            node = ScaleUp(self.named(f"{op.name}.finer"), (acc.node,), out, up)
            acc, up = self.add(node, acc.low << up, acc.high << up), 0
        out = dataclasses.replace(acc.out, nonnegative=False)
        name = self.named(part_name(op.name, "align", "add"))
        aligned = Requantize(name, (plus.node,), out, rule="wrap")
        self.nodes.append(aligned)
        node = Add(op.name, (acc.node, aligned.name), out)
        return self.add(node, acc.low + (plus.low << -up), acc.high + (plus.high << -up))

    def relu(self, op: ops.Relu, x: _Tensor) -> _Tensor:
        if op.cap is not None or not x.out.signed:
            return x  # `fit` sees to it, or nothing is negative
        out = dataclasses.replace(x.out, nonnegative=True)
        return self.add(Relu(op.name, (x.node,), out), max(x.low, 0), max(x.high, 0))

    def total(self, op: ops.AvgPool, x: _Tensor) -> _Tensor:
        scale = x.out.scale + op.area.bit_length() - 1
        out = dataclasses.replace(x.out, shape=op.shape(x.out.shape), scale=scale)
        node = AvgPool(op.name, (x.node,), out, op.window, op.stride)
        return self.add(node, x.low * op.area, x.high * op.area)

    def average(self, op: Average, x: _Tensor) -> _Tensor:
        """Widen, sum times multiplier, shift back: exact, and the source's format again."""
        factor, half = op.growth, (1 << op.shift) >> 1
        low, high = x.low * factor, x.high * factor
        ends = x.out.low * factor, x.out.high * factor + half  # clients know the format only
        wide = dataclasses.replace(x.out, bits=width_for(*ends, x.out.signed))
        self.check_exact(op.name, wide.bits)
        name = self.named(f"{op.name}.wide")
        at = self.add(Requantize(name, (x.node,), wide, rule="wrap"), x.low, x.high)
        shape = op.shape(x.out.shape)
        total = dataclasses.replace(wide, shape=shape, scale=wide.scale + op.shift)
        name = self.named(f"{op.name}.sum")
        window = op.window, op.stride, op.multiplier, op.padding
        node = AvgPool(name, (at.node,), total, *window)
        at = self.add(node, low, high)
        out = dataclasses.replace(x.out, shape=shape)
        low, high = ((each + half) >> op.shift for each in (low, high))
        node = Requantize(op.name, (at.node,), out)
        return self.add(node, max(low, out.low), min(high, out.high))

    def capped(self, op: Capped, x: _Tensor) -> _Tensor:
        """A clamp to [0, cap] at the tensor's own scale; unsigned ones get a sign bit for it."""
        cap = int(np.floor(np.float32(op.cap) * np.float32(2.0**x.out.scale) + np.float32(0.5)))
        if cap >= x.high:
            return self.relu(ops.Relu(op.name, op.sources), x)
        at, out = x.node, x.out
        if not out.signed:
            at = self.named(f"{op.name}.signed")
            wide = dataclasses.replace(out, bits=out.bits + 1, signed=True, nonnegative=True)
            self.nodes.append(Requantize(at, (x.node,), wide, rule="wrap"))
        else:
            out = dataclasses.replace(out, nonnegative=True)
        return self.add(Clamp(op.name, (at,), out, low=0, high=cap), 0, max(cap, 0))

    def joined(self, op: Joined, *x: _Tensor) -> _Tensor:
        """All in one format, of which a sum leaves a bit free; then one node."""
        scale = exact_scale(self.net.join_scale(op)[...])
        out = self.format(op.fit, op.shape(*(each.out.shape for each in x)), scale)
        parts = [self.part(op, each, out) for each in x]
        sources = tuple(part.node for part in parts)
        if op.spare:
            out = dataclasses.replace(out, nonnegative=False)
            low, high = sum(part.low for part in parts), sum(part.high for part in parts)
            return self.add(Add(op.name, sources, out), low, high)
        low, high = min(part.low for part in parts), max(part.high for part in parts)
        return self.add(Concat(op.name, sources, out), low, high)

    def part(self, op: Joined, x: _Tensor, out: TensorType) -> _Tensor:
        """One source in the format of all: widened, rounded, and widened again for a sum."""
        shift, low, high = x.out.scale - out.scale, x.low, x.high
        out = dataclasses.replace(out, shape=x.out.shape)
        fitted = dataclasses.replace(out, bits=out.bits - op.spare)
        if shift > 0:
            half = 1 << (shift - 1)
            # Of its format, not of its values: clients, who plan the same, know no more.
            bits = width_for(x.out.low, max(x.out.high + half, 2 * half), x.out.signed)
            x = self.recast(op, x, dataclasses.replace(x.out, bits=bits), low, high)
            low, high = (low + half) >> shift, (high + half) >> shift
        else:
            low, high = low << -shift, high << -shift
        low, high = max(low, fitted.low), min(high, fitted.high)
        x = self.recast(op, x, fitted, low, high, "saturate")
        return self.recast(op, x, out, x.low, x.high)

    def recast(
        self, op: Op, x: _Tensor, out: TensorType, low: int, high: int, rule: Rule = "wrap"
    ) -> _Tensor:
        """The tensor in another format, if it is another."""
        if out == x.out:
            return x
        return self.add(Requantize(self.named(f"{op.name}.fit"), (x.node,), out, rule), low, high)

    def format(self, fit: Fit, shape: Shape, scale: int) -> TensorType:
        """Of a tensor, as it is for what reads it."""
        signed = self.net.architecture.signed or fit.negative
        return TensorType(
            shape, self.widths.bits(fit.role), scale, signed, signed and not fit.negative
        )

    def cut(self, op: Cut, x: _Tensor) -> _Tensor:
        drop = self.widths.cut
        if not drop:
            return x
        bits, scale = self.widths.activations, x.out.scale - drop
        out = dataclasses.replace(x.out, bits=bits, scale=scale)
        node = Requantize(op.name, (x.node,), out, rounding="floor")
        return self.add(node, x.low >> drop, x.high >> drop)

    def closed(self, layer: str, x: _Tensor, half: int = 0, least: int = 1) -> _Tensor:
        """Gives all nodes of a layer's block the width that its sums and a rounding addition need.

        And what follows: a clamp makes at most as many bits as it reads.
        """
        intervals = [*self.reached, (x.low, x.high + half)]
        bits = max(least, *(width_for(low, high) for low, high in intervals))
        self.check_exact(layer, bits)
        width = bits
        for at in reversed(range(self.first, len(self.nodes))):
            node = self.nodes[at]
            out = dataclasses.replace(node.out, bits=width)
            self.nodes[at] = dataclasses.replace(node, out=out)
            width -= node.shift if isinstance(node, ScaleUp) else 0  # as many bits less before it
        return dataclasses.replace(x, out=dataclasses.replace(x.out, bits=bits))

    def fit(self, op: Fit, x: _Tensor) -> _Tensor:
        """[ReLU with a cap,] shift with rounding, and the format of the output."""
        layer, magnitude = self.net.layer(op.layer), self.net.magnitude(op)
        out_scale = exact_scale(layer.out_scale[...])
        shift = x.out.scale - out_scale
        half = (1 << shift) >> 1 if shift > 0 else 0
        out = self.format(op, x.out.shape, out_scale)
        acc = self.closed(op.layer, x, half, out.bits if op.capped else 1)
        if op.capped is not None:
            cap = int(layer.high(jnp.float32(out_scale), magnitude))
            if cap < 2**magnitude - 1 or self.widths.rule == "wrap":
                return self.clamped(op, acc, out, shift, cap)
            acc = self.relu(dataclasses.replace(op.capped, cap=None), acc)
        self.nodes.append(Requantize(op.name, (acc.node,), out, rule=self.widths.rule))
        low, top = (
            (each + half) >> shift if shift >= 0 else each << -shift
            for each in (acc.low, max(acc.high, 0))
        )
        wrapped = self.widths.rule == "wrap" and low < out.low  # to anything
        return _Tensor(op.name, out, out.low, out.high if wrapped else min(top, out.high))

    def clamped(self, op: Fit, acc: _Tensor, out: TensorType, shift: int, cap: int) -> _Tensor:
        """Shift and clamp to [0, cap]: a requantization would saturate at the top of its format."""
        if shift < 0:
            raise GraphError(f"{op.layer}: its output's scale is finer than its sum's")
        at = acc.node
        if shift:
            shifted = dataclasses.replace(acc.out, scale=out.scale)
            name = self.named(part_name(op.layer, "shift"))
            at = Truncate(name, (at,), shifted, shift=shift, rounding="nearest")
            at = self.add(at, acc.low, acc.high).node
        cap = min(
            cap, acc.out.high
        )  # a limit lies within its source's range, which holds all values
        return self.add(Clamp(op.name, (at,), out, low=0, high=cap), 0, cap)


def export(net: QuantNet, exact: bool = True) -> tuple[Graph, dict[str, np.ndarray]]:
    """Writes the network as a validated graph and int64 weights by parameter name.

    Args:
      net: the network.
      exact: whether the graph must say what the training form says, bit for bit. Of a network that is
        quantized after training the graph alone counts: its sums may be wider than f32 is exact.

    Raises:
      GraphError: an accumulator is too wide for training arithmetic to have been exact.
    """
    made = _Export(net, exact)
    last = walk(net.steps, made.rules(), {INPUT: made.input})
    if last.out.bits == _OPEN:
        made.closed(net.steps[-1].name, last)
    graph = Graph(tuple(made.nodes))
    validate(graph, made.weights)
    return graph, made.weights


def _input(graph: Graph, images: np.ndarray) -> np.ndarray:
    return integer_input(images, PIXEL_ZERO if graph.input.out.signed else 0)


def top1(graph: Graph, weights: dict, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of uint8 images that the integer reference classifies as labelled."""
    right = 0
    for i in range(0, len(labels), 250):
        logits = reference(graph, weights, _input(graph, images[i : i + 250]))
        right += int((np.asarray(logits).argmax(1) == labels[i : i + 250]).sum())
    return right / len(labels)


def overflow_rates(graph: Graph, weights: dict, images: np.ndarray) -> dict[str, float]:
    """Share of values that leave the range at every requantize, over uint8 images."""
    batches = [images[i : i + 250] for i in range(0, len(images), 250)]
    total: dict[str, float] = {}
    for batch in batches:
        values = every_value(graph, weights, _input(graph, batch))
        for name, rate in wrap_rates(graph, values).items():
            total[name] = total.get(name, 0.0) + rate * len(batch) / len(images)
    return total
