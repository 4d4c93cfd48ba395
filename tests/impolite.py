"""Random small graphs from a generator that does not know what is allowed: `validate` decides.

Formats, kinds, signs and facts are drawn with little regard to what fits; what is refused is drawn
again. So whatever `validate` accepts may come, above all what nobody would write.
"""

import dataclasses

import numpy as np

from pqjax.errors import GraphError
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
    Product,
    Relu,
    Requantize,
    Saturate,
    ScaleUp,
    Subsample,
    Take,
    TensorType,
    Truncate,
    TruncateReduce,
    reach,
    validate,
    width_for,
)

WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16, 17, 20, 32, 33, 37, 38, 63, 64)
_KINDS = (
    Conv, Conv, Dense, Dense, Relu, Relu, Requantize, Requantize, Requantize, Add, Add, MaxPool,
    AvgPool, Flatten, ArgMax, Subsample, Pad, Take, Concat, Extend, Narrow, ScaleUp, Truncate,
    TruncateReduce, Clamp, Saturate,
)  # fmt: skip
SHAPES = ((2, 3, 2), (2, 2, 2), (2, 3, 4), (12,), (8,))  # few: every shape is compiled


class Strange:
    """One graph in the making."""

    def __init__(self, seed, widths=WIDTHS):
        self.rng = np.random.default_rng(seed)
        self.widths = widths
        self.kinds = (*_KINDS, Product, Product) if seed % 5 == 4 else _KINDS
        self.weights = {}
        shape = SHAPES[self.one((0, 0, 3))]
        self.nodes = [Input("x", (), self.format(shape, self.width(16)))]

    def one(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, p):
        return bool(self.rng.random() < p)

    def width(self, most=64):
        few = self.widths[: max(1, len(self.widths) * 2 // 3)]
        fit = [b for b in (few if self.chance(0.85) else self.widths) if b <= most]
        return self.one(fit or [1])

    def format(self, shape, bits, scale=None, signed=None):
        signed = self.chance(0.75) if signed is None else signed
        scale = int(self.rng.integers(-2, 9)) if scale is None else scale
        return TensorType(shape, bits, scale, signed, signed and self.chance(0.3))

    def like(self, source, **changes):
        """A source's format, now and then with another sign or another fact about it."""
        out = dataclasses.replace(source, **changes)
        signed = out.signed != self.chance(0.05)
        known = signed and (out.nonnegative != self.chance(0.15))
        return dataclasses.replace(out, signed=signed, nonnegative=known)

    def grow(self, nodes, tries=60):
        """Adds up to so many nodes that `validate` accepts."""
        for _ in range(nodes * tries):
            if len(self.nodes) > nodes:
                break
            kind = self.one(self.kinds)
            far = self.chance(0.35)
            source = self.one(self.nodes) if far else self.nodes[-1]
            made = getattr(self, kind.__name__.lower())(f"n{len(self.nodes)}", source)
            if made is None:
                continue
            node, weights = made if isinstance(made, tuple) else (made, {})
            try:
                validate(Graph((*self.nodes, node)), {**self.weights, **weights})
            except GraphError:
                continue
            self.nodes.append(node)
            self.weights.update(weights)
        return Graph(tuple(self.nodes)), self.weights

    def linear(self, kind, name, source, shape, weight_shape, **fields):
        x = source.out
        bits = self.one((1, 2, 3, 4, 8))
        weight = self.rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), weight_shape)
        if self.chance(0.2):
            weight = np.abs(weight) & ((1 << (bits - 1)) - 1)
        bias = self.rng.integers(-5, 6, weight_shape[-1])
        weights = {f"{name}/weight": weight, f"{name}/bias": bias}
        scale = int(self.rng.integers(0, 3))
        widths = self.one(("weights", "weights", "worst", "empirical", "empirical"))
        out = TensorType(shape, self.width(24), x.scale + scale)
        node = kind(
            name, (source.name,), out, weight_bits=bits, weight_scale=scale, widths=widths, **fields
        )
        if widths != "empirical":
            interval = validate(Graph(tuple(self.nodes)), self.weights)[source.name]
            wide = width_for(*reach(node, interval, weights))
            if widths == "worst":
                most = max(abs(e) for e in interval) * int(np.prod(weight_shape[:-1]))
                wide = max(wide, width_for(-(most << (bits - 1)), most << (bits - 1)))
            if wide > 64:
                return None
            wider = next(b for b in (*self.widths, 64) if b >= wide)
            node = dataclasses.replace(
                node, out=dataclasses.replace(out, bits=wide if self.chance(0.4) else wider)
            )
        return node, weights

    def conv(self, name, source):
        if len(source.out.shape) != 3:
            return None
        h, w, c = source.out.shape
        groups = self.one((1, 1, c))
        k = self.one((1, 2))
        padding = ((0, 0), (0, 0)) if k == 1 else self.one((((1, 0), (0, 1)), ((0, 0), (1, 1))))
        stride = self.one(((1, 1), (1, 1), (1, 2)))
        dilation = self.one(((1, 1), (1, 1), (1, 2), (2, 1)))
        geometry = zip((h, w), padding, stride, dilation, strict=True)
        sides = [(side + sum(p) - 1 - (k - 1) * d) // s + 1 for side, p, s, d in geometry]
        if min(sides) < 1:
            return None
        return self.linear(
            Conv, name, source, (*sides, c), (k, k, c // groups, c), kernel=(k, k), stride=stride,
            padding=padding, groups=groups, dilation=dilation,
        )  # fmt: skip

    def dense(self, name, source):
        if len(source.out.shape) != 1:
            return None
        n = source.out.shape[0]
        return self.linear(Dense, name, source, (8,), (n, 8))

    def relu(self, name, source):
        return Relu(name, (source.name,), self.like(source.out, nonnegative=source.out.signed))

    def requantize(self, name, source):
        x = source.out
        shift = int(self.rng.integers(-4, min(x.bits, 9)))
        near = max(1, min(64, x.bits - shift + int(self.rng.integers(-3, 3))))
        out = self.format(x.shape, near if self.chance(0.5) else self.width(), x.scale - shift)
        rule, rounding = self.one(("saturate", "wrap")), self.one(("nearest", "nearest", "floor"))
        return Requantize(name, (source.name,), out, rule=rule, rounding=rounding)

    def add(self, name, source):
        key = lambda n: (n.out.shape, n.out.bits, n.out.scale, n.out.signed)
        other = self.one([n for n in self.nodes if key(n) == key(source)])
        both = source.out.nonnegative and other.out.nonnegative
        return Add(name, (source.name, other.name), self.like(source.out, nonnegative=both))

    def concat(self, name, source):
        x = source.out
        key = lambda n: (n.out.shape[:-1], n.out.bits, n.out.scale, n.out.signed)
        fit = [n for n in self.nodes if key(n) == key(source)]
        others = [self.one(fit) for _ in range(self.one((1, 1, 2)))]
        last = x.shape[-1] + sum(n.out.shape[-1] for n in others)
        both = all(n.out.nonnegative for n in (source, *others))
        out = self.like(x, shape=(*x.shape[:-1], last), nonnegative=both)
        return Concat(name, (source.name, *(n.name for n in others)), out) if out.n <= 36 else None

    def window(self, source):
        if len(source.out.shape) != 3:
            return None
        h, w, c = source.out.shape
        sides, stride = self.one(((1, 1), (1, 2), (2, 2), (2, 1))), self.one(((1, 1), (2, 2)))
        shape = ((h - sides[0]) // stride[0] + 1, (w - sides[1]) // stride[1] + 1, c)
        return None if min(shape) < 1 else (shape, {"window": sides, "stride": stride})

    def maxpool(self, name, source):
        found = self.window(source)
        if found is None:
            return None
        out, headroom = self.like(source.out, shape=found[0]), self.chance(0.3)
        return MaxPool(name, (source.name,), out, **found[1], headroom=headroom)

    def avgpool(self, name, source):
        found = self.window(source)
        if found is None:
            return None
        scale = source.out.scale + int(self.rng.integers(0, 4))
        out = self.like(source.out, shape=found[0], scale=scale)
        multiplier, window = self.one((1, 1, 2, 3, 7)), found[1]["window"]
        padding = ((0, 0), (0, 0))
        if self.chance(0.3) and window != (1, 1):
            padding = ((window[0] - 1, 0), (window[1] - 1, 0))
            sides = (
                (n - 1) // s + 1 for n, s in zip(source.out.shape, found[1]["stride"], strict=False)
            )
            out = dataclasses.replace(out, shape=(*sides, source.out.shape[2]))
        return AvgPool(
            name, (source.name,), out, **found[1], multiplier=multiplier, padding=padding
        )

    def flatten(self, name, source):
        return Flatten(name, (source.name,), self.like(source.out, shape=(source.out.n,)))

    def argmax(self, name, source):
        out = self.format((1,), self.one((3, 4, 5)), 0)
        return ArgMax(name, (source.name,), out, headroom=self.chance(0.3))

    def subsample(self, name, source):
        if len(source.out.shape) != 3:
            return None
        h, w, c = source.out.shape
        stride = self.one(((1, 2), (2, 2)))
        shape = (-(-h // stride[0]), -(-w // stride[1]), c)
        return Subsample(name, (source.name,), self.like(source.out, shape=shape), stride)

    def pad(self, name, source):
        if len(source.out.shape) != 3 or source.out.n > 24:
            return None
        margins = self.one((((0, 0), (0, 0), (1, 1)), ((0, 0), (0, 1), (0, 0))))
        shape = tuple(d + sum(m) for d, m in zip(source.out.shape, margins, strict=True))
        out = self.like(source.out, shape=shape)
        return Pad(name, (source.name,), out, margins, self.chance(0.4))

    def take(self, name, source):
        *sides, c = source.out.shape
        channels = tuple(int(i) for i in self.rng.integers(0, c, self.one((c, c, 2))))
        out = self.like(source.out, shape=(*sides, len(channels)))
        return Take(name, (source.name,), out, channels)

    def extend(self, name, source):
        x = source.out
        bits = (
            max(x.bits, self.width()) if self.chance(0.5) else min(64, x.bits + self.one((0, 1, 3)))
        )
        return Extend(name, (source.name,), self.like(x, bits=bits))

    def narrow(self, name, source):
        x = source.out
        return Narrow(name, (source.name,), self.format(x.shape, self.width(x.bits), x.scale))

    def scaleup(self, name, source):
        x, shift = source.out, int(self.rng.integers(1, 7))
        out = self.like(x, bits=x.bits + shift, scale=x.scale + shift)
        return ScaleUp(name, (source.name,), out, shift)

    def shift(self, source):
        return int(self.rng.integers(1, min(source.out.bits, 9))) if source.out.bits > 1 else None

    def truncate(self, name, source):
        x, shift = source.out, self.shift(source)
        if shift is None:
            return None
        out = self.like(x, scale=x.scale - shift)
        return Truncate(name, (source.name,), out, shift, self.one(("nearest", "floor")))

    def truncatereduce(self, name, source):
        x, shift = source.out, self.shift(source)
        if shift is None:
            return None
        bits = x.bits - shift if self.chance(0.7) else self.width(x.bits - shift)
        out = self.like(x, bits=bits, scale=x.scale - shift)
        return TruncateReduce(name, (source.name,), out, shift, self.one(("nearest", "floor")))

    def clamp(self, name, source):
        x = source.out
        bits = self.width(x.bits) if self.chance(0.6) else x.bits
        out = self.format(x.shape, bits, x.scale)
        low, high = self.one((0, out.low, -3, 2 * x.low)), self.one((out.high, 3, 0, 2 * x.high))
        return Clamp(name, (source.name,), out, low, high)

    def saturate(self, name, source):
        x, shift = source.out, int(self.rng.integers(0, min(source.out.bits, 9)))
        kept = int(self.rng.integers(1, max(2, x.bits - shift)))
        low = self.one((0, -1 << (kept - 1)))
        high = low + (1 << kept) - 1
        out = self.format(x.shape, self.width(), x.scale - shift)
        return Saturate(name, (source.name,), out, shift, low, high, self.one(("nearest", "floor")))

    def product(self, name, source):
        x, transposed = source.out, self.chance(0.6)
        images = [n for n in self.nodes if len(n.out.shape) == 3]
        other = self.one(images).out if images else None
        if len(x.shape) != 3 or other is None:
            return None
        heads = self.one((1, 1, 2))
        rows = other.shape[0] * other.shape[1]
        channels = heads * rows if transposed else other.shape[2]
        second = next(n.name for n in images if n.out is other)
        wide = x.bits + other.bits + self.one((2, 3, 4))
        out = TensorType((*x.shape[:2], channels), min(64, wide), x.scale + other.scale)
        return Product(name, (source.name, second), out, heads, transposed)


def strange_graph(seed, nodes=7, widths=WIDTHS):
    """A graph that `validate` accepts, its weights, and inputs from corner to corner."""
    made = Strange(seed, widths)
    graph, weights = made.grow(int(made.rng.integers(1, nodes + 1)))
    out = graph.input.out
    corners = [out.low, out.high, 0, min(1, out.high), max(-1, out.low), out.high // 2 + 1]
    rng = made.rng
    x = rng.integers(out.low, out.high, out.shape, endpoint=True)
    some = np.array([corners[i] for i in rng.integers(0, len(corners), out.n)]).reshape(out.shape)
    x = np.where(rng.random(out.shape) < 0.6, np.minimum(some, out.high), x)
    return graph, weights, x, [np.full(out.shape, v) for v in (out.low, out.high)]
