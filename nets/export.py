"""From the trained network to the integer graph that two parties execute, and its accuracy.

Accumulator widths come from the actual weights: the smallest signed width that holds every sum any
input can reach, per output channel, with room for a residual, for the sum before a pool and for the
rounding addition.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from nets.architecture import INPUT, Average, Largest, Layer, Shortcut
from nets.data import INPUT_SCALE_BITS, integer_input
from nets.quantized import QuantLayer, QuantNet
from nets.quantizer import exact_scale
from pqjax.errors import GraphError
from pqjax.graph import (
    Add,
    AvgPool,
    Clamp,
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
    Truncate,
    every_value,
    reach,
    reference,
    validate,
    width_for,
    wrap_rates,
)

_EXACT_BITS = 25  # signed width up to which f32 training arithmetic is exact: 24 and a sign


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor of the network as a node of the graph."""

    node: str
    out: TensorType
    low: int
    high: int


class _Export:
    """The nodes made so far, and where each of the network's tensors is among them."""

    def __init__(self, net: QuantNet):
        self.net, self.architecture, self.widths = net, net.architecture, net.widths
        side = net.architecture.side
        source = TensorType((side, side, 3), bits=8, scale=INPUT_SCALE_BITS)
        self.nodes: list[Node] = [Input(INPUT, (), source)]
        self.weights: dict[str, np.ndarray] = {}
        self.tensors = {INPUT: _Tensor(INPUT, source, source.low, source.high)}
        self.operands: dict[str, _Tensor] = {}

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        return node.name

    def operand(self, name: str) -> _Tensor:
        """What a weight layer reads: of a residual the top bits, cut once for all its readers."""
        tensor = self.tensors[name]
        drop = self.net.cut
        if name not in self.architecture.residuals or not drop:
            return tensor
        if name not in self.operands:
            out = dataclasses.replace(
                tensor.out, bits=self.widths.activations, scale=tensor.out.scale - drop
            )
            cut = Requantize(part_name(name, "act"), (tensor.node,), out, rounding="floor")
            self.operands[name] = _Tensor(
                self.add(cut), out, tensor.low >> drop, tensor.high >> drop
            )
        return self.operands[name]

    def shortcut(self, node: Shortcut) -> None:
        tensor = self.tensors[node.source]
        h, w, c = tensor.out.shape
        half = dataclasses.replace(
            tensor.out, shape=(-(-h // node.stride), -(-w // node.stride), c)
        )
        at = self.add(
            Subsample(f"{node.name}.half", (tensor.node,), half, (node.stride, node.stride))
        )
        out = dataclasses.replace(half, shape=(*half.shape[:2], node.out_channels))
        self.add(Pad(node.name, (at,), out, ((0, 0), (0, 0), (node.margin, node.margin))))
        self.tensors[node.name] = _Tensor(node.name, out, tensor.low, tensor.high)

    def largest(self, node: Largest) -> None:
        tensor = self.tensors[node.source]
        h, w, c = tensor.out.shape
        m = node.window // 2
        padded = dataclasses.replace(tensor.out, shape=(h + 2 * m, w + 2 * m, c))
        margins = ((m, m), (m, m), (0, 0))
        at = self.add(Pad(f"{node.name}.pad", (tensor.node,), padded, margins))
        shape = tuple((d + 2 * m - node.window) // node.stride + 1 for d in (h, w))
        out = dataclasses.replace(tensor.out, shape=(*shape, c))
        square, stride = (node.window, node.window), (node.stride, node.stride)
        self.add(MaxPool(node.name, (at,), out, square, stride))
        self.tensors[node.name] = _Tensor(node.name, out, tensor.low, tensor.high)

    def average(self, node: Average) -> None:
        """Widen, sum times multiplier, shift back: exact, and the residual's format again."""
        tensor = self.tensors[node.source]
        top = tensor.high * node.side**2 * node.multiplier + (1 << node.shift >> 1)
        wide = dataclasses.replace(tensor.out, bits=width_for(0, top, tensor.out.signed))
        _check_exact(node.name, wide.bits)
        at = self.add(Requantize(f"{node.name}.wide", (tensor.node,), wide, rule="wrap"))
        shape = (1, 1, wide.shape[2])
        total = dataclasses.replace(wide, shape=shape, scale=wide.scale + node.shift)
        square = (node.side, node.side)
        at = self.add(AvgPool(f"{node.name}.sum", (at,), total, square, square, node.multiplier))
        out = dataclasses.replace(tensor.out, shape=shape)
        self.add(Requantize(node.name, (at,), out))
        self.tensors[node.name] = _Tensor(node.name, out, 0, min(top >> node.shift, out.high))

    def layer(self, layer: QuantLayer) -> None:
        """conv, [align, add], relu, [pool], and the requantization; with the accumulator's width."""
        spec, source = layer.layer, self.operand(layer.layer.source)
        name, weight_scale = spec.name, exact_scale(layer.weight_scale[...])
        scale = source.out.scale + weight_scale
        kernel, bias, _ = layer.integers(jnp.float32(source.out.scale), False)
        self.weights[f"{name}/weight"] = np.asarray(kernel).astype(np.int64)
        self.weights[f"{name}/bias"] = np.asarray(bias).astype(np.int64)
        if not spec.window:
            self._classifier(layer, source, scale, weight_scale)
            return
        side = spec.out_side(source.out.shape[0])
        shape = (side, side, spec.out_channels)
        margin = spec.padding
        wide = Conv(
            name, (source.node,), TensorType(shape, 64, scale), (spec.window, spec.window),
            (spec.stride, spec.stride), (margin, margin), layer.bits, weight_scale,
            spec.groups,
        )  # fmt: skip
        low, high = reach(wide, (source.low, source.high), self.weights)
        plus = self.tensors[spec.plus] if spec.plus else None
        if plus is not None:
            up = scale - plus.out.scale
            if up < 0:
                raise GraphError(
                    f"{name}: the residual {plus.node} has scale {plus.out.scale}, finer than the "
                    f"accumulator's {scale}, and cannot be aligned"
                )
            low, high = low + (plus.low << up), high + (plus.high << up)
        top = max(high, 0) * spec.pool**2
        pool_bits = 2 * (spec.pool.bit_length() - 1)
        out_scale = exact_scale(layer.out_scale[...])
        shift = scale + pool_bits - out_scale
        half = (1 << shift) >> 1 if shift > 0 else 0
        bits = max(width_for(low, high), width_for(0, top + half))
        _check_exact(name, bits)
        acc = TensorType(shape, bits, scale)
        at = self.add(dataclasses.replace(wide, out=acc))
        if layer.cap is not None:
            self._capped(layer, at, acc, out_scale)
            return
        if plus is not None:
            aligned = self.add(Requantize(part_name(name, "align"), (plus.node,), acc, rule="wrap"))
            at = self.add(Add(part_name(name, "add"), (at, aligned), acc))
        if spec.relu:
            positive = dataclasses.replace(acc, nonnegative=True)
            at = self.add(Relu(part_name(name, "relu"), (at,), positive))
        if spec.pool > 1:
            windows = (shape[0] // spec.pool, shape[1] // spec.pool, shape[2])
            pooled = dataclasses.replace(
                acc, shape=windows, scale=scale + pool_bits, nonnegative=spec.relu
            )
            square = (spec.pool, spec.pool)
            at = self.add(AvgPool(part_name(name, "pool"), (at,), pooled, square, square))
            shape = windows
        signed = self.architecture.signed or not spec.relu
        width = self.widths.out_bits(self.architecture, spec)
        out = TensorType(shape, width, out_scale, signed, signed and spec.relu)
        part = "res" if name in self.architecture.residuals else "act"
        self.add(Requantize(part_name(name, part), (at,), out, rule=self.widths.rule))
        reached = (top + half) >> shift if shift >= 0 else top << -shift
        bottom = 0 if spec.relu else out.low
        self.tensors[name] = _Tensor(part_name(name, part), out, bottom, min(reached, out.high))

    def _capped(self, layer: QuantLayer, at: str, acc: TensorType, out_scale: int) -> None:
        """Shift and clamp to [0, cap]: a requantization would saturate at the top of its format."""
        spec, cap = layer.layer, layer.cap
        assert cap is not None and spec.relu and spec.plus is None and spec.pool == 1
        shifted = dataclasses.replace(acc, scale=out_scale)
        if acc.scale > out_scale:
            shift = acc.scale - out_scale
            name = part_name(spec.name, "shift")
            at = self.add(Truncate(name, (at,), shifted, shift=shift, rounding="nearest"))
        signed = self.architecture.signed
        out = TensorType(
            acc.shape, self.widths.out_bits(self.architecture, spec), out_scale, signed, signed
        )
        part = "res" if spec.name in self.architecture.residuals else "act"
        cap = min(cap, acc.high)  # nothing is larger, and a limit lies within its source's range
        name = self.add(Clamp(part_name(spec.name, part), (at,), out, low=0, high=cap))
        self.tensors[spec.name] = _Tensor(name, out, 0, cap)

    def _classifier(
        self, layer: QuantLayer, source: _Tensor, scale: int, weight_scale: int
    ) -> None:
        spec: Layer = layer.layer
        flat = dataclasses.replace(source.out, shape=(source.out.n,))
        at = self.add(Flatten("flatten", (source.node,), flat))
        wide = Dense(
            spec.name, (at,), TensorType((spec.out_channels,), 64, scale), layer.bits, weight_scale
        )
        bits = width_for(*reach(wide, (source.low, source.high), self.weights))
        _check_exact(spec.name, bits)
        self.add(dataclasses.replace(wide, out=dataclasses.replace(wide.out, bits=bits)))


def part_name(name: str, part: str) -> str:
    """The name of another step of a layer: conv3 and relu make relu3."""
    return name.replace("conv", part) if "conv" in name else f"{name}.{part}"


def export(net: QuantNet) -> tuple[Graph, dict[str, np.ndarray]]:
    """Writes the network as a validated graph and int64 weights by parameter name.

    Raises:
      GraphError: an accumulator is too wide for training arithmetic to have been exact, or a residual
        cannot be aligned to one.
    """
    made = _Export(net)
    layers = iter(net.layers)
    for node in net.architecture.nodes:
        if isinstance(node, Shortcut):
            made.shortcut(node)
        elif isinstance(node, Largest):
            made.largest(node)
        elif isinstance(node, Average):
            made.average(node)
        else:
            made.layer(next(layers))
    graph = Graph(tuple(made.nodes))
    validate(graph, made.weights)
    return graph, made.weights


def _check_exact(name: str, bits: int) -> None:
    if bits > _EXACT_BITS:
        raise GraphError(
            f"{name}: its accumulator takes {bits} bits, but training is exact up to "
            f"{_EXACT_BITS}: use fewer weight or activation bits"
        )


def top1(graph: Graph, weights: dict, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of uint8 images that the integer reference classifies as labelled."""
    right = 0
    for i in range(0, len(labels), 250):
        logits = reference(graph, weights, integer_input(images[i : i + 250]))
        right += int((np.asarray(logits).argmax(1) == labels[i : i + 250]).sum())
    return right / len(labels)


def overflow_rates(graph: Graph, weights: dict, images: np.ndarray) -> dict[str, float]:
    """Share of values that leave the range at every requantize, over uint8 images."""
    batches = [images[i : i + 250] for i in range(0, len(images), 250)]
    total: dict[str, float] = {}
    for batch in batches:
        values = every_value(graph, weights, integer_input(batch))
        for name, rate in wrap_rates(graph, values).items():
            total[name] = total.get(name, 0.0) + rate * len(batch) / len(images)
    return total
