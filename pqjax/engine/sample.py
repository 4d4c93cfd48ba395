"""A network made to be timed: layers of many sizes, such as convolutional networks have."""

import numpy as np

from pqjax.graph import Conv, Dense, Flatten, Graph, Input, MaxPool, Relu, Requantize, TensorType
from pqjax.graph.ir import Weights
from pqjax.ring import Ring

_WEIGHT_BITS, _BITS = 3, 4
# Channels, kernel, stride; 0 channels are a pool of that window.
_LAYERS = (
    (8, 3, 1), (0, 2, 2), (32, 3, 1), (32, 3, 1), (64, 3, 2), (64, 1, 1), (128, 3, 2), (64, 1, 1),
    (64, 3, 2), (64, 1, 1), (64, 3, 1), (64, 1, 1),
)  # fmt: skip
_SIDE, _CLASSES = 64, 10


def sample_network() -> tuple[Graph, Weights]:
    """The graph and weights for it, always the same."""
    weights: dict[str, np.ndarray] = {}
    nodes: list = [Input("image", (), TensorType((_SIDE, _SIDE, 3), _BITS, 0, False))]

    def weigh(name: str, shape: tuple[int, ...]) -> int:
        """Weights of a layer; the bits of its sums."""
        ring, terms = Ring(_WEIGHT_BITS), int(np.prod(shape[:-1]))
        mixed = np.arange(terms * shape[-1], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        found = ring.signed(ring.reduce(mixed >> np.uint64(40)))
        weights[f"{name}/weight"] = found.reshape(shape).astype(np.int8)
        weights[f"{name}/bias"] = np.zeros(shape[-1], np.int64)
        return ((terms << _BITS) << _WEIGHT_BITS - 1).bit_length() + 1

    for i, (channels, kernel, stride) in enumerate(_LAYERS):
        source, (high, wide, inputs) = nodes[-1].name, nodes[-1].out.shape
        step = (stride, stride)
        if not channels:
            out = TensorType((high // stride, wide // stride, inputs), _BITS, 0, False)
            nodes.append(MaxPool(f"pool{i}", (source,), out, (kernel, kernel), step))
            continue
        pad = (kernel // 2, kernel // 2)
        shape = -(-high // stride), -(-wide // stride), channels
        bits = weigh(f"conv{i}", (kernel, kernel, inputs, channels))
        sums = TensorType(shape, bits, 2)
        nodes += [
            Conv(
                f"conv{i}", (source,), sums, weight_bits=_WEIGHT_BITS, weight_scale=2,
                kernel=(kernel, kernel), stride=step, padding=(pad, pad),
            ),
            Relu(f"relu{i}", (f"conv{i}",), TensorType(shape, bits, 2, nonnegative=True)),
            Requantize(f"act{i}", (f"relu{i}",), TensorType(shape, _BITS, 0, False), rule="saturate"),
        ]  # fmt: skip
    count = nodes[-1].out.n
    flat = TensorType((count,), _BITS, 0, False)
    nodes.append(Flatten("flat", (nodes[-1].name,), flat))
    bits = weigh("dense", (count, _CLASSES))
    sums = TensorType((_CLASSES,), bits, 2)
    nodes.append(Dense("dense", ("flat",), sums, weight_bits=_WEIGHT_BITS, weight_scale=2))
    return Graph(tuple(nodes)), weights
