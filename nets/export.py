"""From the trained network to the integer graph that two parties execute, and its accuracy.

Accumulator widths come from the actual weights: the smallest signed width that holds every sum any
input can reach, per output channel, with room for the 2x2 sum before a pool and for the rounding
addition.
"""

import jax.numpy as jnp
import numpy as np

from nets.data import INPUT_SCALE_BITS, integer_input
from nets.quantized import QuantMiniONN
from nets.quantizer import exact_scale
from pqjax.errors import GraphError
from pqjax.graph import (
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    Input,
    Node,
    Relu,
    Requantize,
    TensorType,
    every_value,
    reach,
    reference,
    validate,
    width_for,
    wrap_rates,
)

_EXACT_BITS = 24  # signed width up to which f32 training arithmetic is exact


def export(net: QuantMiniONN) -> tuple[Graph, dict[str, np.ndarray]]:
    """Writes the network as a validated graph and int64 weights by parameter name.

    Raises:
      GraphError: an accumulator is too wide for training arithmetic to have been exact.
    """
    source = TensorType((32, 32, 3), bits=8, scale=INPUT_SCALE_BITS)
    nodes: list[Node] = [Input("input", (), source)]
    weights: dict[str, np.ndarray] = {}
    interval = (source.low, source.high)
    for layer in net.layers:
        name = layer.layer.name
        kernel, bias, _ = layer.integers(jnp.float32(source.scale), False)
        weights[f"{name}/weight"] = np.asarray(kernel).astype(np.int64)
        weights[f"{name}/bias"] = np.asarray(bias).astype(np.int64)
        if layer.layer.window:
            added, interval = _block(net, layer, source, interval, nodes[-1].name, weights)
        else:
            added = _classifier(layer, source, interval, nodes[-1].name, weights)
        nodes += added
        source = nodes[-1].out
    graph = Graph(tuple(nodes))
    validate(graph, weights)
    return graph, weights


def _block(net, layer, source, interval, previous, weights) -> tuple[list[Node], tuple[int, int]]:
    """Conv, relu, [pool], act (the requantize), with the accumulator's width."""
    spec, bits = layer.layer, net.widths.activations
    weight_scale, out_scale = (exact_scale(s[...]) for s in (layer.weight_scale, layer.out_scale))
    scale = source.scale + weight_scale
    side = source.shape[0]
    shape = (side, side, spec.out_channels)
    margin = (spec.window // 2,) * 2
    node = Conv(
        spec.name, (previous,), TensorType(shape, 64, scale), (spec.window,) * 2, (1, 1),
        (margin, margin), layer.bits, weight_scale,
    )  # fmt: skip
    low, high = reach(node, interval, weights)
    top = max(high, 0) * (4 if spec.pool else 1)
    shift = scale + (2 if spec.pool else 0) - out_scale
    half = (1 << shift) >> 1 if shift > 0 else 0
    acc_bits = max(width_for(low, high), width_for(0, top + half))
    _check_exact(spec.name, acc_bits)
    acc = TensorType(shape, acc_bits, scale)
    positive = TensorType(shape, acc_bits, scale, nonnegative=True)
    number = spec.name.removeprefix("conv")
    relu = f"relu{number}"
    nodes: list[Node] = [
        Conv(spec.name, (previous,), acc, node.kernel, node.stride, node.padding, node.weight_bits,
             weight_scale),
        Relu(relu, (spec.name,), positive),
    ]  # fmt: skip
    if spec.pool:
        shape = (side // 2, side // 2, spec.out_channels)
        pooled = TensorType(shape, acc_bits, scale + 2, nonnegative=True)
        nodes.append(AvgPool(f"pool{number}", (relu,), pooled, (2, 2), (2, 2)))
    out = TensorType(shape, bits, out_scale, signed=False)
    nodes.append(Requantize(f"act{number}", (nodes[-1].name,), out, rule=net.widths.rule))
    reached = (top + half) >> shift if shift >= 0 else top << -shift
    return nodes, (0, min(reached, out.high))


def _classifier(layer, source, interval, previous, weights) -> list[Node]:
    """Flatten -> FC; its accumulator is the output."""
    spec, weight_scale = layer.layer, exact_scale(layer.weight_scale[...])
    flat = TensorType((source.n,), source.bits, source.scale, signed=source.signed)
    scale = source.scale + weight_scale
    wide = TensorType((spec.out_channels,), 64, scale)
    low, high = reach(
        Dense(spec.name, ("flatten",), wide, layer.bits, weight_scale), interval, weights
    )
    bits = width_for(low, high)
    _check_exact(spec.name, bits)
    acc = TensorType((spec.out_channels,), bits, scale)
    return [
        Flatten("flatten", (previous,), flat),
        Dense(spec.name, ("flatten",), acc, layer.bits, weight_scale),
    ]


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
