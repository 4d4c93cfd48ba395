"""Small graphs that protocols, passes or the reference once got wrong, with weights and an input."""

import dataclasses
import typing

import numpy as np

from pqjax.graph import (
    Add,
    ArgMax,
    AvgPool,
    Clamp,
    Concat,
    Conv,
    Dense,
    Extend,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Narrow,
    Pad,
    Relu,
    Requantize,
    TensorType,
    Truncate,
    TruncateReduce,
)
from pqjax.graph.nodes import Widths

IMAGE = (2, 3, 2)
ONE = {"kernel": (1, 1), "stride": (1, 1), "padding": ((0, 0), (0, 0))}


class Window(typing.TypedDict):
    """What a pool reads at a time."""

    window: tuple[int, int]
    stride: tuple[int, int]


def fmt(bits, scale=0, kind="s", shape=IMAGE):
    """A format: signed, unsigned or nonnegative by a letter."""
    return TensorType(shape, bits, scale, kind != "u", kind == "n")


def twice(bits, widths: Widths = "empirical", source="x", weight=2, **fields):
    """A 1x1 convolution that multiplies by `weight`, and its weights."""
    name = fields.pop("name", "conv")
    kernel = np.zeros((1, 1, 2, 2), int)
    kernel[..., 0, 0] = kernel[..., 1, 1] = weight
    node = Conv(
        name, (source,), fmt(bits), **ONE, weight_bits=fields.pop("weight_bits", 4), weight_scale=0,
        widths=widths,
    )  # fmt: skip
    return node, {f"{name}/weight": kernel, f"{name}/bias": np.zeros(2, int)}


def graph(source, *nodes):
    """A graph with its weights, and an input from one end of the format to the other."""
    made, weights = [Input("x", (), source)], {}
    for node in nodes:
        node, more = node if isinstance(node, tuple) else (node, {})
        made.append(node)
        weights.update(more)
    ends = [source.low, source.high, source.high - 1, 0, source.high // 2, source.low // 2 - 1]
    x = np.resize(np.clip(ends, source.low, source.high), source.shape)
    return Graph(tuple(made)), weights, x


def relu(bits, source="conv", name="relu"):
    return Relu(name, (source,), fmt(bits, kind="n"))


def dense(source, n, bits, widths: Widths = "weights"):
    """A dense layer of n inputs with small weights of either sign, and its weights."""
    weights = {"fc/weight": np.arange(8 * n).reshape(n, 8) % 8 - 4, "fc/bias": np.arange(8)}
    return Dense("fc", (source,), fmt(bits, shape=(8,)), 3, 0, widths), weights


def apart(source, groups, out, **fields):
    """A 2x2 convolution whose taps lie apart, and its weights."""
    padding = ((1, 1), (1, 2))
    node = Conv("conv", (source,), out, (2, 2), (1, 2), padding, 3, 0, groups, **fields)
    weight = np.arange(8 // groups * 2).reshape(2, 2, 2 // groups, 2) % 8 - 4
    return node, {"conv/weight": weight, "conv/bias": np.array([1, -2])}


BOTH = (2, 3, 4)
POOL: Window = {"window": (2, 2), "stride": (1, 1)}
SMALL = (1, 2, 2)
PITFALLS = {
    "a rounding loses its carry": graph(
        fmt(7), twice(7, weight=1), relu(7), Requantize("q", ("relu",), fmt(6, -2, "n"), rule="saturate")
    ),
    "a rounding loses its carry and wraps": graph(
        fmt(7), twice(7, weight=1), relu(7), Requantize("q", ("relu",), fmt(5, -2), rule="wrap")
    ),
    "a rounding without a known sign loses its carry": graph(
        fmt(7), twice(7, weight=1), Relu("relu", ("conv",), fmt(7)),
        Truncate("q", ("relu",), fmt(7, -2), 2, "nearest"),
    ),
    "a pool widens what overflows": graph(
        fmt(6), twice(6), relu(6), MaxPool("max", ("relu",), fmt(6, kind="n", shape=SMALL), **POOL),
        Requantize("q", ("max",), fmt(4, -2, "u", SMALL)),
    ),
    "a pool without a known sign before a rounding": graph(
        fmt(6), twice(6), MaxPool("max", ("conv",), fmt(6, shape=SMALL), **POOL),
        Requantize("q", ("max",), fmt(4, -2, "s", SMALL)),
    ),
    "an alignment widens what overflows": graph(
        fmt(6), twice(6), Extend("wide", ("conv",), fmt(9)), Extend("r", ("x",), fmt(9)),
        Add("sum", ("wide", "r"), fmt(9)),
    ),
    "an addition wraps around": graph(
        fmt(6), twice(6), Add("sum", ("conv", "x"), fmt(6)), relu(6, "sum"),
        Requantize("q", ("relu",), fmt(4, -2, "u")),
    ),
    "an average of nonnegative values wraps around": graph(
        fmt(6), twice(6), relu(6), AvgPool("avg", ("relu",), fmt(6, 2, "s", SMALL), **POOL),
        Extend("q", ("avg",), fmt(12, 2, "s", SMALL)),
    ),
    "an addition of a tensor to itself": graph(
        fmt(5), Extend("e", ("x",), fmt(6)), Add("sum", ("e", "e"), fmt(6))
    ),
    "the largest of unsigned values": graph(
        fmt(5, kind="u"), MaxPool("max", ("x",), fmt(5, kind="u", shape=SMALL), **POOL)
    ),
    "the place of the largest unsigned value is read on": graph(
        fmt(5, kind="u", shape=(12,)), ArgMax("at", ("x",), fmt(4, kind="u", shape=(1,))),
        Extend("wide", ("at",), fmt(6, shape=(1,))),
    ),
    "unsigned values shifted into a signed format": graph(
        fmt(7, kind="u"), Truncate("t", ("x",), fmt(7, -3), 3)
    ),
    "low bits read with another sign": graph(
        fmt(7, kind="u"), TruncateReduce("t", ("x",), fmt(4, -3), 3), Extend("e", ("t",), fmt(8, -3))
    ),
    "an operand wider than its accumulator": graph(fmt(12), twice(8, weight=3)),
    "an unsigned operand wider than its accumulator": graph(fmt(12, kind="u"), twice(8, weight=3)),
    "weights wider than their accumulator": graph(fmt(4), twice(5, weight=-100, weight_bits=8)),
    "a clamp of an extension with limits beyond it": graph(
        fmt(8), Extend("e", ("x",), fmt(14)), Clamp("c", ("e",), fmt(8), -600, 100)
    ),
    "a shift between an accumulator and its clamp": graph(
        fmt(6), twice(10, "weights"), Truncate("t", ("conv",), fmt(10, -2), 2, "nearest"),
        Clamp("c", ("t",), fmt(6, -2, "n"), 0, 6),
    ),
    "an accumulator is widened after its operand": graph(
        fmt(4), relu(4, "x", "first"), twice(8, "weights", "first", weight=3),
        Extend("wide", ("conv",), fmt(9)), Extend("r", ("x",), fmt(9)),
        Add("sum", ("wide", "r"), fmt(9)),
    ),
    "an accumulator gets headroom after its operand": graph(
        fmt(6), Narrow("first", ("x",), fmt(4)), twice(8, "weights", "first", weight=3), relu(8),
        MaxPool("max", ("relu",), fmt(8, kind="n", shape=SMALL), **POOL),
    ),
    "an accumulator is widened after its padded operand": graph(
        fmt(4), Pad("pad", ("x",), fmt(4, shape=(4, 5, 2)), ((1, 1), (1, 1), (0, 0))),
        (dataclasses.replace(twice(8, "weights", "pad", 3)[0], out=fmt(8, shape=(4, 5, 2))),
         twice(8, "weights", weight=3)[1]),
        Relu("relu", ("conv",), fmt(8, kind="n", shape=(4, 5, 2))),
        MaxPool("max", ("relu",), fmt(8, kind="n", shape=(3, 4, 2)), **POOL),
    ),
    "sums of more than 32 bits in a small ring": graph(fmt(33), twice(12, weight=7)),
    "the same bits read anew": graph(
        fmt(6), twice(6), Narrow("n", ("conv",), fmt(6, kind="u")),
        MaxPool("max", ("n",), fmt(6, kind="u", shape=SMALL), **POOL),
        Requantize("q", ("max",), fmt(5, -1, "u", SMALL), rule="saturate"),
    ),
    "a dense layer of nonnegative values of full width": graph(
        fmt(8, kind="n", shape=(12,)),
        dense("x", 12, 8, "empirical"),
    ),
    "tensors of different signs side by side": graph(
        fmt(5), relu(5, "x", "r"), Concat("both", ("r", "x"), fmt(5, shape=BOTH)),
        Flatten("flat", ("both",), fmt(5, shape=(24,))), dense("flat", 24, 14),
    ),
    "a tensor beside itself in a wider ring": graph(
        fmt(5), Concat("both", ("x", "x"), fmt(5, shape=BOTH)),
        Extend("e", ("both",), fmt(9, shape=BOTH)),
        Concat("all", ("e", "e", "e"), fmt(9, shape=(2, 3, 12))),
        MaxPool("max", ("all",), fmt(9, shape=(1, 2, 12)), **POOL),
    ),
    "what may overflow beside what may not": graph(
        fmt(6), twice(6), Concat("both", ("conv", "x"), fmt(6, shape=BOTH)),
        Requantize("q", ("both",), fmt(4, -2, "u", BOTH)),
    ),
    "unsigned tensors side by side, one a clamp": graph(
        fmt(7), Clamp("c", ("x",), fmt(4, kind="u"), 0, 15), Narrow("n", ("x",), fmt(4, kind="u")),
        Concat("both", ("c", "n"), fmt(4, kind="u", shape=BOTH)),
        Flatten("flat", ("both",), fmt(4, kind="u", shape=(24,))), dense("flat", 24, 13),
    ),
    "taps apart": graph(
        fmt(4), apart("x", 1, fmt(9, shape=(3, 2, 2)), dilation=(1, 3)),
        Requantize("q", ("conv",), fmt(4, -2, "u", (3, 2, 2))),
    ),
    "taps apart in groups that may overflow": graph(
        fmt(4), apart("x", 2, fmt(5, shape=(2, 2, 2)), dilation=(2, 3), widths="empirical"),
        Requantize("q", ("conv",), fmt(4, -2, "u", (2, 2, 2))),
    ),
}  # fmt: skip
