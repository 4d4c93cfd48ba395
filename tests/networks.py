"""Small random networks whose widths hold their values, and both parties' view of running them."""

import dataclasses

import numpy as np

from pqjax.engine.commands import INFER, PREPARE, ask, hear
from pqjax.engine.execute import Own, infer, prepare
from pqjax.engine.installing import Installation, announce_hints, send_hints
from pqjax.engine.model import ServedModel
from pqjax.graph import (
    Add,
    ArgMax,
    AvgPool,
    Concat,
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
    reach,
    validate,
    width_for,
)
from pqjax.planner import PRESETS, find_preset
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
        d = int(self.rng.choice([1, 2])) if min(h, w) > 4 else 1
        sides = [(side + sum(p[0]) - 1 - (k - 1) * d) // s + 1 for side in (h, w)]
        self.linear(
            Conv,
            (*sides, channels),
            (k, k, c, channels),
            room,
            kernel=(k, k),
            stride=(s, s),
            padding=p,
            dilation=(d, d),
        )

    def conv_like(self, skip):
        """A 1x1 convolution that keeps the shape."""
        h, w, c = skip.out.shape
        self.linear(
            Conv, (h, w, c), (1, 1, c, c), kernel=(1, 1), stride=(1, 1), padding=((0, 0), (0, 0))
        )

    def plus(self, skip, bits):
        """The sum with an earlier node; both are cut to so many bits, and it has one more."""
        narrow = TensorType(skip.out.shape, bits, skip.out.scale + 1)
        wide, up = dataclasses.replace(narrow, bits=bits + 1), []
        for name in (skip.name, self.last.name):
            clamped = self.add(Requantize, narrow, name, rule="saturate")
            up.append(self.add(Requantize, wide, clamped, rule="wrap"))
        self.add(Add, wide, *up)

    def relu(self):
        self.add(Relu, dataclasses.replace(self.last.out, nonnegative=True))

    def average(self, side, multiplier, more):
        """Averages windows of side x side; the scale grows by `more`."""
        h, w, c = self.last.out.shape
        s = int(self.rng.choice([1, side]))
        shape, scale = ((h - side) // s + 1, (w - side) // s + 1, c), self.last.out.scale + more
        out = dataclasses.replace(self.last.out, shape=shape, scale=scale)
        self.add(AvgPool, out, window=(side, side), stride=(s, s), multiplier=multiplier)

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
    # Windows of 4 values average by shifting, windows of 9 by 7/64, near enough to 1/9.
    side, multiplier, more = ((1, 1, 0), (2, 1, 2), (3, 7, 6))[int(rng.integers(3))]
    made.conv(4, room=side * side * multiplier)
    if rng.random() < 0.6:
        made.relu()
    if side > 1 and min(made.last.out.shape[:2]) >= side:
        made.average(side, multiplier, more)
    made.requantize(some_format(rng, made.last.out.scale - int(rng.integers(1, 6))))
    if rng.random() < 0.5 and min(made.last.out.shape[:2]) >= 2:
        h, w, c = made.last.out.shape
        out = dataclasses.replace(made.last.out, shape=(h - 1, w - 1, c))
        made.add(MaxPool, out, window=(2, 2), stride=(1, 1))
    if rng.random() < 0.6:  # a residual block of wider format
        skip = made.last
        made.conv_like(skip)
        made.plus(skip, 11)
        made.relu()
        made.requantize(some_format(rng, made.last.out.scale - 2))
    if rng.random() < 0.4:  # two branches side by side
        skip = made.last
        made.conv_like(skip)
        made.requantize(dataclasses.replace(skip.out, nonnegative=False))
        both = dataclasses.replace(
            made.last.out, shape=(*skip.out.shape[:2], 2 * skip.out.shape[2])
        )
        made.add(Concat, both, skip.name, made.last.name)
    if rng.random() < 0.3:  # up, in width and in scale
        last = made.last.out
        made.requantize(dataclasses.replace(last, bits=last.bits + 3, scale=last.scale + 2))
    made.add(Flatten, dataclasses.replace(made.last.out, shape=(made.last.out.n,)))
    made.linear(Dense, (5,), (made.last.out.n, 5))
    if rng.random() < 0.4:
        made.add(ArgMax, TensorType((1,), 4, 0, signed=False))
    graph = Graph(tuple(made.nodes))
    validate(graph, made.weights)
    first = graph.input.out
    return graph, made.weights, rng.integers(first.low, first.high + 1, first.shape)


def mini_onn(weight_bits=(4, 2, 2, 2, 2, 2, 2, 4), bits=4, seed=0):
    """MiniONN's shape (7 convolutions, 2 average pools, one dense layer) with random weights."""
    rng = np.random.default_rng(seed)
    made = Builder(rng, (32, 32, 3), 8, True)
    made.nodes = [Input("image", (), TensorType((32, 32, 3), 8, 8))]

    def weigh(name, shape, width):
        half = 2 ** (width - 1)
        made.weights[f"{name}/weight"] = rng.integers(-half, half, shape) * (
            rng.random(shape) < 0.5
        )
        made.weights[f"{name}/bias"] = rng.integers(-20, 20, shape[-1])

    def tight(node, interval, room, extra):
        low, high = reach(node, interval, made.weights)
        wide = width_for(low * room, high * room + extra)
        made.nodes.append(dataclasses.replace(node, out=dataclasses.replace(node.out, bits=wide)))

    layers = [(3, 64, 7), (3, 64, 7), (3, 64, 5), (3, 64, 7), (3, 64, 5), (1, 64, 4), (1, 16, 7)]
    for i, (k, channels, shift) in enumerate(layers, 1):
        side, _, c = made.last.out.shape
        interval = made.interval
        weigh(f"conv{i}", (k, k, c, channels), weight_bits[i - 1])
        out = TensorType((side, side, channels), 40, made.last.out.scale + 2)
        p = ((k // 2, k // 2), (k // 2, k // 2))
        node = Conv(f"conv{i}", (made.last.name,), out, (k, k), (1, 1), p, weight_bits[i - 1], 2)
        pooled = i in (2, 4)
        tight(node, interval, 4 if pooled else 1, 1 << shift >> 1)
        made.relu()
        if pooled:
            half = dataclasses.replace(
                made.last.out, shape=(side // 2, side // 2, channels), scale=made.last.out.scale + 2
            )
            made.add(AvgPool, half, window=(2, 2), stride=(2, 2))
        last = made.last.out
        made.add(Requantize, TensorType(last.shape, bits, last.scale - shift, signed=False))
    made.add(Flatten, dataclasses.replace(made.last.out, shape=(made.last.out.n,)))
    interval = made.interval
    weigh("fc", (made.last.out.n, 10), weight_bits[7])
    out = TensorType((10,), 40, made.last.out.scale + 2)
    tight(Dense("fc", (made.last.name,), out, weight_bits[7], 2), interval, 1, 0)
    graph = Graph(tuple(made.nodes))
    validate(graph, made.weights)
    return graph, made.weights, rng.integers(-128, 128, (32, 32, 3))


PQJAX = find_preset("pqjax")
# Others' answers differ now and then: they are counted (tests/linear/test_by_reply.py), not compared.
EXACT = {name: preset for name, preset in PRESETS.items() if preset.exact}
# All linear layers on ciphertexts; small ones are cheaper otherwise, and the planner would say so.
ENCRYPTED = dataclasses.replace(
    PQJAX, choices=tuple(c for c in PQJAX.choices if c.method == "rlwe"), otherwise=()
)
# Hints merged wherever they can be.
MERGED = dataclasses.replace(
    ENCRYPTED,
    choices=tuple(c for c in find_preset("pqjax-merged").choices if c.variant == "merged-hints"),
    otherwise=ENCRYPTED.choices,
)


def owned(party, plan, model):
    """What either party alone has of a model; the client is sent its hints."""
    if model.hints is None:
        return model.own if party.rank == 0 else Own()
    if party.rank == 0:
        announce_hints(party, model.hints)
        send_hints(party, plan, model.hints, hear(party)[1], None)
        return model.own
    found = Installation(party, plan, None, None).complete(None)
    return Own(found.by_layer(plan), found.seed)


def run_both(plan, weights, x, deadline_s=120.0):
    """One preparation and one inference: the answer and both parties' traces."""
    model = ServedModel.of(plan, weights)

    def side(rank):
        def run(wire):
            party = make_party(wire, rank, plan.preset.source, tuning=plan.preset.tuning)
            mine = owned(party, plan, model)
            hear(party) if rank == 0 else ask(party, PREPARE, 0)
            ready = prepare(party, plan, mine)
            hear(party) if rank == 0 else ask(party, INFER, 0)
            y = infer(party, plan, mine, ready, x if rank == 1 else None)
            return y, party.messenger.trace, party

        return run

    return run_pair(side(0), side(1), deadline_s)


def resnet32(weight_bits=3, bits=6, residual_bits=8, seed=0, blocks=5, stages=(16, 32, 64)):
    """ResNet32's shape for CIFAR-100 (31 convolutions, one dense layer) with random weights."""
    rng = np.random.default_rng(seed)
    side = 32
    nodes: list[Node] = [Input("image", (), TensorType((side, side, 3), 8, 8))]
    weights = {}

    def add(kind, name, sources, out, **fields):
        nodes.append(kind(name, sources, out, **fields))
        return out

    def conv(name, source, x, channels, stride, width, interval, more=0):
        """A convolution whose ring holds its sums, `more` on top and a rounding."""
        shape = (3, 3, x.shape[2], channels)
        half = 2 ** (width - 1)
        weights[f"{name}/weight"] = rng.integers(-half, half, shape) * (rng.random(shape) < 0.4)
        weights[f"{name}/bias"] = rng.integers(-9, 9, channels)
        size = -(-x.shape[0] // stride)
        out = TensorType((size, size, channels), 40, x.scale + 3)
        margin = ((1, 1), (1, 1)) if stride == 1 or x.shape[0] % 2 else ((0, 1), (0, 1))
        node = Conv(name, (source,), out, (3, 3), (stride, stride), margin, width, 3)
        low, high = reach(node, interval, weights)
        wide = dataclasses.replace(out, bits=width_for(low - more, high + more + 64))
        nodes.append(dataclasses.replace(node, out=wide))
        return wide

    def relu(name, source, x):
        return add(Relu, name, (source,), dataclasses.replace(x, nonnegative=True))

    def positive(shape, width, scale):
        return TensorType(shape, width, scale, nonnegative=True)

    x = conv("conv1", "image", nodes[0].out, stages[0], 1, max(weight_bits, 4), (-128, 127))
    relu("relu1", "conv1", x)
    r, at = positive(x.shape, residual_bits, 4), "res1"
    add(Requantize, at, ("relu1",), r)
    for stage, channels in enumerate(stages):
        for block in range(blocks):
            name = f"s{stage + 1}b{block + 1}"
            stride = 2 if stage and not block else 1
            a = positive(r.shape, bits, r.scale - (residual_bits - bits))
            add(Requantize, f"{name}.in", (at,), a, rounding="floor")
            x = conv(f"{name}.conv1", f"{name}.in", a, channels, stride, weight_bits, (0, a.high))
            relu(f"{name}.relu1", f"{name}.conv1", x)
            h = positive(x.shape, bits, 2)
            add(Requantize, f"{name}.mid", (f"{name}.relu1",), h)
            scale = h.scale + 3
            top = r.high << (scale - r.scale)
            x = conv(f"{name}.conv2", f"{name}.mid", h, channels, 1, weight_bits, (0, h.high), top)
            short = at
            if stride == 2:
                half = dataclasses.replace(r, shape=(x.shape[0], x.shape[1], r.shape[2]))
                add(Subsample, f"{name}.half", (at,), half, stride=(2, 2))
                side = (channels - r.shape[2]) // 2
                short = f"{name}.pad"
                out = dataclasses.replace(half, shape=x.shape)
                add(Pad, short, (f"{name}.half",), out, margins=((0, 0), (0, 0), (side, side)))
            add(Requantize, f"{name}.short", (short,), x, rule="wrap")
            add(Add, f"{name}.add", (f"{name}.conv2", f"{name}.short"), x)
            relu(f"{name}.relu2", f"{name}.add", x)
            r, at = positive(x.shape, residual_bits, r.scale), f"{name}.out"
            add(Requantize, at, (f"{name}.relu2",), r)
    side = r.shape[0]
    more = 2 * (side.bit_length() - 1)
    add(Requantize, "wide", (at,), positive(r.shape, residual_bits + more, r.scale), rule="wrap")
    pooled = positive((1, 1, r.shape[2]), residual_bits + more, r.scale + more)
    add(AvgPool, "pool", ("wide",), pooled, window=(side, side), stride=(side, side))
    add(Requantize, "pooled", ("pool",), positive(pooled.shape, 8, r.scale))
    add(Flatten, "flatten", ("pooled",), positive((pooled.n,), 8, r.scale))
    fc = max(weight_bits, 4)
    weights["fc/weight"] = rng.integers(-(2 ** (fc - 1)), 2 ** (fc - 1), (pooled.n, 100))
    weights["fc/bias"] = rng.integers(-9, 9, 100)
    node = Dense("fc", ("flatten",), TensorType((100,), 40, r.scale + 3), fc, 3)
    wide = width_for(*reach(node, (0, 127), weights))
    nodes.append(dataclasses.replace(node, out=dataclasses.replace(node.out, bits=wide)))
    graph = Graph(tuple(nodes))
    validate(graph, weights)
    return graph, weights, rng.integers(-128, 128, (32, 32, 3))
