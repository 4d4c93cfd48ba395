"""Small random networks whose widths hold their values, and both parties' view of running them."""

import dataclasses

import numpy as np

from pqjax.engine.execute import command, infer, prepare
from pqjax.graph import (
    Add,
    ArgMax,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Relu,
    Requantize,
    TensorType,
    reach,
    validate,
    width_for,
)
from pqjax.protocols.party import make_party, run_pair


class Builder:
    """Adds nodes one by one, always with widths that hold what reaches them."""

    def __init__(self, rng, shape, bits, signed):
        self.rng = rng
        self.nodes = [Input("image", (), TensorType(shape, bits, 4, signed))]
        self.weights = {}

    @property
    def last(self):
        return self.nodes[-1]

    @property
    def interval(self):
        return validate(Graph(tuple(self.nodes)), self.weights)[self.last.name]

    def add(self, kind, out, *sources, **fields):
        name = f"{kind.__name__.lower()}{len(self.nodes)}"
        sources = sources or (self.last.name,)
        self.nodes.append(kind(name, tuple(sources), out, **fields))
        return name

    def linear(self, kind, shape, weight_shape, room=1, **fields):
        bits = int(self.rng.integers(2, 9))
        weight = self.rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), weight_shape)
        source, interval = self.last.out, self.interval
        name = f"{kind.__name__.lower()}{len(self.nodes)}"
        self.weights[f"{name}/weight"] = weight
        self.weights[f"{name}/bias"] = self.rng.integers(-9, 10, weight_shape[-1])
        out = TensorType(shape, 40, source.scale + 2)
        fields = {**fields, "weight_bits": bits, "weight_scale": 2}
        node = kind(name, (self.last.name,), out, **fields)
        low, high = reach(node, interval, self.weights)
        # Room for a window's sum and for the rounding of a requantization that may follow.
        wide = width_for(low * room - 64, high * room + 64)
        self.nodes.append(dataclasses.replace(node, out=dataclasses.replace(out, bits=wide)))

    def conv(self, channels, room=1):
        h, w, c = self.last.out.shape
        k = int(self.rng.choice([1, 3])) if min(h, w) >= 3 else 1
        p = ((k // 2, k // 2), (k // 2, k // 2)) if self.rng.random() < 0.7 else ((0, 0), (0, 0))
        s = int(self.rng.choice([1, 2])) if min(h, w) > 4 else 1
        sides = [(side + sum(p[0]) - k) // s + 1 for side in (h, w)]
        self.linear(
            Conv,
            (*sides, channels),
            (k, k, c, channels),
            room,
            kernel=(k, k),
            stride=(s, s),
            padding=p,
        )

    def conv_like(self, skip):
        """A 1x1 convolution that keeps the shape."""
        h, w, c = skip.out.shape
        self.linear(
            Conv, (h, w, c), (1, 1, c, c), kernel=(1, 1), stride=(1, 1), padding=((0, 0), (0, 0))
        )

    def relu(self):
        self.add(Relu, dataclasses.replace(self.last.out, nonnegative=True))

    def requantize(self, out):
        out = dataclasses.replace(out, shape=self.last.out.shape)
        rule = "saturate" if out.nonnegative else str(self.rng.choice(["wrap", "saturate"]))
        self.add(Requantize, out, rule=rule)


def some_format(rng, scale):
    kind = int(rng.integers(3))
    bits = int(rng.integers(3, 7))
    return TensorType((1,), bits, scale, kind != 1, kind == 2)


def random_network(seed):
    """A graph with its weights and one input, all drawn from `seed`."""
    rng = np.random.default_rng(seed)
    signed = bool(rng.integers(2))
    made = Builder(rng, (int(rng.integers(5, 8)), 6, int(rng.integers(1, 4))), 5, signed)
    made.conv(4, room=4)
    if rng.random() < 0.6:
        made.relu()
    if rng.random() < 0.5 and min(made.last.out.shape[:2]) >= 2:
        h, w, c = made.last.out.shape
        scale, shape = made.last.out.scale + 2, (h // 2, w // 2, c)
        out = dataclasses.replace(made.last.out, shape=shape, scale=scale)
        made.add(AvgPool, out, window=(2, 2), stride=(2, 2))
    made.requantize(some_format(rng, made.last.out.scale - int(rng.integers(1, 6))))
    if rng.random() < 0.5 and min(made.last.out.shape[:2]) >= 2:
        h, w, c = made.last.out.shape
        out = dataclasses.replace(made.last.out, shape=(h - 1, w - 1, c))
        made.add(MaxPool, out, window=(2, 2), stride=(1, 1))
    if rng.random() < 0.6:  # a residual block of wider format
        skip = made.last
        made.conv_like(skip)
        right = made.last.name
        narrow = TensorType(skip.out.shape, 11, skip.out.scale + 1)
        wide = dataclasses.replace(narrow, bits=12)
        up = []
        for name in (skip.name, right):
            clamped = made.add(Requantize, narrow, name, rule="saturate")
            up.append(made.add(Requantize, wide, clamped, rule="wrap"))
        made.add(Add, wide, *up)
        made.relu()
        made.requantize(some_format(rng, made.last.out.scale - 2))
    made.add(Flatten, dataclasses.replace(made.last.out, shape=(made.last.out.n,)))
    made.linear(Dense, (5,), (made.last.out.n, 5))
    if rng.random() < 0.4:
        made.add(ArgMax, TensorType((1,), 4, 0, signed=False))
    graph = Graph(tuple(made.nodes))
    validate(graph, made.weights)
    first = graph.input.out
    return graph, made.weights, rng.integers(first.low, first.high + 1, first.shape)


def run_both(plan, weights, x, deadline_s=120.0):
    """One preparation and one inference: the answer and both parties' traces."""

    def side(rank):
        def run(wire):
            party = make_party(wire, rank, plan.preset.scheme)
            mine = weights if rank == 0 else None
            command(party, "offline", 1)
            ready = prepare(party, plan, mine)
            command(party, "online", 2)
            y = infer(party, plan, mine, ready, x if rank == 1 else None)
            return y, party.messenger.trace, party

        return run

    return run_pair(side(0), side(1), deadline_s)
