"""Every pass keeps the reference and never costs more, on random networks and on named cases."""

import dataclasses

import numpy as np
import pytest
from networks import Builder, random_network

from pqjax.errors import GraphError
from pqjax.graph import (
    Add,
    AvgPool,
    Clamp,
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
    ScaleUp,
    Subsample,
    Take,
    TensorType,
    Truncate,
    TruncateReduce,
    every_value,
    reference,
    validate,
)
from pqjax.graph import passes as all_passes
from pqjax.graph.baselines import EXTENDED_RESIDUALS, WORST_CASE_WIDTHS, uniform_ring
from pqjax.graph.passes import LOWER, OPERANDS
from pqjax.graph.rewrite import Pass
from pqjax.planner import PRESETS
from pqjax.planner.price import pricing
from pqjax.wire.link import Link

SITES = [p for p in vars(all_passes).values() if isinstance(p, Pass) and p.site]
WHOLE = [LOWER, OPERANDS, WORST_CASE_WIDTHS, EXTENDED_RESIDUALS, uniform_ring(37)]


def names(passes):
    return [p.name for p in passes]


def total(graph, price):
    return sum(price(graph, node) for node in graph)


def same_answer(graph, other, weights, x):
    np.testing.assert_array_equal(reference(other, weights, x), reference(graph, weights, x))


@pytest.mark.parametrize("seed", range(25))
def test_whole_passes_keep_the_reference(seed):
    graph, weights, x = random_network(seed)

    for each in WHOLE[:-1]:
        same_answer(graph, each(graph, lambda g, n: 0.0), weights, x)
    lowered = LOWER(graph, lambda g, n: 0.0)
    same_answer(graph, WHOLE[-1](lowered, lambda g, n: 0.0), weights, x)


@pytest.mark.parametrize("seed", range(25))
def test_rewrites_wherever_they_apply_keep_every_reference(seed):
    graph, weights, x = random_network(seed)
    graph = LOWER(graph, lambda g, n: 0.0)
    wanted = reference(graph, weights, x)
    made = 0

    for _ in range(2):  # a second round meets what the first one made
        for each in SITES:
            assert each.site is not None
            for name in [node.name for node in graph]:
                if name in graph and not isinstance(each.site(graph, graph[name]), str):
                    graph = each.at(graph, name)
                    validate(graph)
                    np.testing.assert_array_equal(reference(graph, weights, x), wanted)
                    made += 1
    assert made


@pytest.mark.parametrize("protocol", list(PRESETS))
@pytest.mark.parametrize("seed", range(12))
def test_no_rewrite_ever_costs_more(seed, protocol):
    graph, _, _ = random_network(seed)
    price = pricing(PRESETS[protocol], None)
    graph = LOWER(graph, price)

    for each in SITES * 2:
        before = total(graph, price)
        graph = each(graph, price)
        assert total(graph, price) <= before, each.name


@pytest.mark.parametrize("protocol", list(PRESETS))
def test_a_preset_lowers_everything_and_keeps_every_value_that_remains(protocol):
    graph, weights, x = random_network(7)
    lowered = graph
    for each in PRESETS[protocol].passes:
        lowered = each(lowered, pricing(PRESETS[protocol], None))

    assert not any(isinstance(node, Requantize) for node in lowered)
    before, after = every_value(graph, weights, x), every_value(lowered, weights, x)
    for name in set(before) & set(after) - {n.name for n in graph if isinstance(n, Relu)}:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def chain(*nodes):
    """A graph in which every node reads the one before."""
    made = [Input("x", (), T)]
    for kind, out, fields in nodes:
        name = f"{kind.__name__.lower()}{len(made)}"
        made.append(kind(name, (made[-1].name,), out, **fields))
    graph = Graph(tuple(made))
    validate(graph)
    return graph


def kinds(graph):
    return [node.kind for node in graph]


T = TensorType((2, 2, 4), 12, 4)
POSITIVE = dataclasses.replace(T, nonnegative=True)
SHORT = dataclasses.replace(POSITIVE, bits=9, scale=1)
ABSORBED = dataclasses.replace(SHORT, bits=4, signed=False, nonnegative=False)
ONE = [
    ("trunc-by-tr", (Truncate, dataclasses.replace(T, scale=1), {"shift": 3}),
     ["TruncateReduce", "Extend"]),
    ("merge-extensions", (Extend, dataclasses.replace(T, bits=14), {}),
     (Extend, dataclasses.replace(T, bits=20), {}), ["Extend"]),
    ("merge-extensions", (Extend, dataclasses.replace(T, bits=14), {}),
     (Narrow, dataclasses.replace(T, bits=9), {}), ["Narrow"]),
    ("merge-extensions", (Extend, dataclasses.replace(T, bits=14), {}),
     (Clamp, dataclasses.replace(T, bits=5), {"low": -3, "high": 9}), ["Clamp"]),
    ("merge-extensions", (Extend, dataclasses.replace(T, bits=20), {}),
     (Relu, dataclasses.replace(POSITIVE, bits=20), {}), ["Relu", "Extend"]),
    ("extend-before-padding", (Pad, dataclasses.replace(T, shape=(2, 2, 7)),
     {"margins": ((0, 0), (0, 0), (1, 2))}),
     (Extend, dataclasses.replace(T, shape=(2, 2, 7), bits=20), {}), ["Extend", "Pad"]),
    ("cut-before-shift", (TruncateReduce, dataclasses.replace(T, bits=9, scale=1), {"shift": 3}),
     (Narrow, dataclasses.replace(T, bits=4, scale=1), {}), ["TruncateReduce"]),
    ("relu-after-shift", (Relu, POSITIVE, {}), (TruncateReduce, SHORT, {"shift": 3}),
     ["TruncateReduce", "Relu"]),
    ("absorb-relu", (Relu, POSITIVE, {}),
     (Clamp, dataclasses.replace(T, bits=4, signed=False), {"low": 0, "high": 15}), ["Clamp"]),
]  # fmt: skip


@pytest.mark.parametrize("case", ONE, ids=[f"{i}-{case[0]}" for i, case in enumerate(ONE)])
def test_each_identity_is_made_where_it_saves(case):
    name, *nodes, wanted = case
    graph = chain(*nodes)
    rewrite = next(p for p in SITES if p.name == name)
    # Absorbing a ReLU saves waiting, not bits.
    link = Link(mbps=1000, rtt_ms=50) if name == "absorb-relu" else None
    price = pricing(PRESETS["privquant"], link)
    x = np.random.default_rng(0).integers(-2048, 2040, T.shape)

    made = rewrite(graph, price)

    assert kinds(made)[1:] == wanted
    assert total(made, price) <= total(graph, price)
    same_answer(graph, made, {}, x)


def test_a_relu_waits_for_the_pool_behind_it():
    acc, pooled = TensorType((6, 6, 3), 12, 5), TensorType((2, 2, 3), 12, 5, nonnegative=True)
    conv = Conv("conv", ("x",), acc, (1, 1), (1, 1), ((0, 0), (0, 0)), 3, 1)
    relu = Relu("relu", ("conv",), dataclasses.replace(acc, nonnegative=True))
    rng = np.random.default_rng(3)
    weights = {"conv/weight": rng.integers(-4, 4, (1, 1, 4, 3)), "conv/bias": np.zeros(3, int)}
    source = TensorType((6, 6, 4), 6, 4)
    pool = MaxPool("pool", ("relu",), pooled, (3, 3), (2, 2))
    x = rng.integers(-32, 32, source.shape)
    for first in (
        (conv,),
        (Requantize("conv", ("x",), dataclasses.replace(acc, shape=(6, 6, 4))),),
    ):
        shape = first[0].out.shape
        nodes = [dataclasses.replace(n, out=dataclasses.replace(n.out, shape=s))
                 for n, s in ((relu, shape), (pool, (2, 2, shape[2])))]  # fmt: skip
        graph = Graph((Input("x", (), source), *first, *nodes))
        given = weights if first[0] is conv else {}
        price = pricing(PRESETS["pqjax"], None)

        made = all_passes.POOL_BEFORE_RELU.at(graph, "pool")

        assert kinds(made)[-3:] == ["MaxPool", "Narrow", "Relu"]
        same_answer(graph, made, given, x)
        lowered = LOWER(graph, price)
        assert total(all_passes.POOL_BEFORE_RELU(lowered, price), price) <= total(lowered, price)


def test_signs_are_propagated_but_not_through_additions():
    graph = Graph(
        (
            Input("x", (), T),
            Relu("relu", ("x",), T),
            Extend("wide", ("relu",), dataclasses.replace(T, bits=20)),
            Add("sum", ("wide", "wide"), dataclasses.replace(T, bits=20)),
            Subsample("half", ("sum",), dataclasses.replace(T, bits=20, shape=(1, 1, 4)), (2, 2)),
        )
    )

    made = all_passes.SIGNS(graph, lambda g, n: 0.0)

    assert [node.out.nonnegative for node in made] == [False, True, True, False, False]


def test_signs_stop_where_a_measured_width_may_overflow():
    acc = TensorType((3,), 12, 2)
    nodes = [
        Input("x", (), TensorType((2,), 4, 0)),
        Dense("fc", ("x",), acc, 3, 2, widths="empirical"),
        Relu("relu", ("fc",), dataclasses.replace(acc, nonnegative=True)),
        TruncateReduce("tr", ("relu",), dataclasses.replace(acc, bits=10, scale=0), 2, "nearest"),
    ]

    for widths, known in (("empirical", False), ("weights", True)):
        nodes[1] = dataclasses.replace(nodes[1], widths=widths)
        made = all_passes.SIGNS(Graph(tuple(nodes)), lambda g, n: 0.0)
        assert made["tr"].out.nonnegative is known


def test_a_residual_is_added_in_the_accumulators_ring():
    x = TensorType((4, 4, 2), 6, 2)
    acc = TensorType((4, 4, 2), 14, 5)
    wide = dataclasses.replace(acc, bits=15)
    conv = Conv("conv", ("x",), acc, (3, 3), (1, 1), ((1, 1), (1, 1)), 3, 3)
    graph = Graph(
        (
            Input("x", (), x), conv, Extend("left", ("conv",), wide),
            Requantize("right", ("x",), wide, rule="wrap"), Add("sum", ("left", "right"), wide),
        )
    )  # fmt: skip
    rng = np.random.default_rng(1)
    weights = {"conv/weight": rng.integers(-4, 4, (3, 3, 2, 2)), "conv/bias": np.zeros(2, int)}
    price = pricing(PRESETS["privquant"], None)
    lowered = LOWER(graph, price)

    made = all_passes.ALIGN(lowered, price)

    assert "left" not in made and made["conv"].out.bits == 15
    assert total(made, price) < total(lowered, price)
    same_answer(graph, made, weights, rng.integers(-32, 32, x.shape))


def test_extensions_of_one_tensor_are_shared():
    at = lambda bits: dataclasses.replace(T, bits=bits)  # noqa: E731
    graph = Graph(
        (
            Input("x", (), T), Extend("a", ("x",), at(14)), Extend("b", ("x",), at(20)),
            Narrow("c", ("b",), at(14)), Add("d", ("a", "c"), at(14)),
        )
    )  # fmt: skip

    made = all_passes.SHARE(graph, pricing(PRESETS["pqjax"], None))

    assert [n.kind for n in made if n.name in "ab"] == ["Extend", "Narrow"]
    same_answer(graph, made, {}, np.arange(16).reshape(2, 2, 4) - 8)


def test_a_pass_says_why_it_does_not_apply():
    graph = chain((Relu, POSITIVE, {}), (TruncateReduce, SHORT, {"shift": 3}))

    with pytest.raises(GraphError, match="truncatereduce2.*trunc-by-tr.*needs a truncation"):
        all_passes.TRUNC.at(graph, "truncatereduce2")
    with pytest.raises(GraphError, match="no node named 'nobody'"):
        all_passes.TRUNC.at(graph, "nobody")
    with pytest.raises(GraphError, match="whole graphs"):
        LOWER.at(graph, "relu1")


def test_a_uniform_ring_refuses_what_does_not_fit():
    graph = chain((ScaleUp, dataclasses.replace(T, bits=22, scale=14), {"shift": 10}))

    with pytest.raises(GraphError, match="scaleup1.*22 bits.*16"):
        uniform_ring(16)(graph, lambda g, n: 0.0)


BAD = [
    ("rounding", (TruncateReduce, dataclasses.replace(T, bits=9, scale=1),
                  {"shift": 3, "rounding": "nearest"}), "rounding adds 4"),
    ("width", (Truncate, dataclasses.replace(T, bits=9, scale=1), {"shift": 3}), "12 bits at scale 1"),
    ("shift", (Truncate, dataclasses.replace(T, scale=4), {"shift": 0}), "shift in 1..63"),
    ("all", (TruncateReduce, dataclasses.replace(T, bits=1, scale=-8), {"shift": 12}), "nothing"),
    ("scale", (Narrow, dataclasses.replace(T, bits=9, scale=1), {}), "scale must agree"),
    ("wider", (Narrow, dataclasses.replace(T, bits=19), {}), "do not have 19"),
    ("sign", (Narrow, dataclasses.replace(T, bits=9, nonnegative=True), {}), "cannot be known"),
    ("limits", (Clamp, dataclasses.replace(T, bits=9), {"low": 1, "high": 4}), "around 0"),
    ("range", (Clamp, dataclasses.replace(T, bits=3), {"low": 0, "high": 9}), "takes 5 bits"),
    ("extend", (Extend, dataclasses.replace(T, bits=9), {}), "at least its source.s 12 bits"),
    ("up", (ScaleUp, dataclasses.replace(T, scale=6), {"shift": 2}), "14 bits at scale 6"),
    ("pad", (Pad, T, {"margins": ((0, 0), (0, 0), (-1, 1))}), "margins.* in 0.."),
    ("pad2", (Pad, T, {"margins": ((0, 0), (0, 0), (1, 1))}), "shape"),
    ("subsample", (Subsample, T, {"stride": (2, 2)}), "shape"),
    ("take", (Take, T, {"channels": (0, 1, 4)}), "takes channel 4 of 4"),
    ("take2", (Take, T, {"channels": (0, -1, 2)}), "channels.* in 0.."),
    ("average", (AvgPool, T, {"window": (2, 2), "stride": (1, 1), "padding": ((2, 0), (0, 0))}),
     "nothing but padding"),
    ("mode", (Requantize, T, {"rounding": "up"}), "nearest or floor"),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=[case[0] for case in BAD])
def test_steps_that_do_not_hold_together_are_named(case):
    _, node, text = case
    with pytest.raises(GraphError, match=f"{node[0].__name__.lower()}1.*{text}"):
        chain(node)


def test_graphs_with_every_kind_survive_json():
    rng = np.random.default_rng(0)
    made = Builder(rng, (4, 4, 2), 8, True)
    shape = dataclasses.replace(made.last.out, shape=(4, 4, 4))
    made.add(Pad, shape, margins=((0, 0), (0, 0), (1, 1)))
    made.add(Subsample, dataclasses.replace(shape, shape=(2, 2, 4)), stride=(2, 2))
    made.add(Requantize, TensorType((2, 2, 4), 6, 1), rounding="floor")
    made.add(Take, TensorType((2, 2, 3), 6, 1), channels=(2, 1, 2))
    made.add(Pad, TensorType((3, 3, 3), 6, 1), margins=((1, 0), (0, 1), (0, 0)), edge=True)
    graph = LOWER(Graph(tuple(made.nodes)), lambda g, n: 0.0)

    assert Graph.from_json(graph.to_json()) == graph
    x = rng.integers(-128, 128, (4, 4, 2))
    wanted = np.pad(x, ((0, 0), (0, 0), (1, 1)))[::2, ::2] >> 3
    wanted = np.pad(wanted[..., [2, 1, 2]], ((1, 0), (0, 1), (0, 0)), "edge")
    np.testing.assert_array_equal(reference(graph, {}, x), wanted)


def test_averages_at_edges_are_of_what_lies_in_the_image():
    made = Builder(np.random.default_rng(0), (5, 4, 2), 8, True)
    made.add(Requantize, TensorType((5, 4, 2), 20, 4))
    fields = {"window": (3, 3), "stride": (2, 2), "multiplier": 28, "padding": ((1, 1), (1, 1))}
    made.add(AvgPool, TensorType((3, 2, 2), 20, 12), **fields)
    graph = Graph(tuple(made.nodes))
    validate(graph)

    assert Graph.from_json(graph.to_json()) == graph
    x = np.random.default_rng(1).integers(-128, 128, (5, 4, 2))
    means = [
        [x[max(i, 0) : i + 3, max(j, 0) : j + 3].mean((0, 1)) for j in (-1, 1)] for i in (-1, 1, 3)
    ]
    np.testing.assert_allclose(reference(graph, {}, x) / 256, means, rtol=0.02, atol=0.01)


def test_the_average_of_a_flattened_clamp_keeps_its_known_sign():
    """`known-sign` walks through plain nodes, and stops at those that need the unsigned format."""
    clamp = dataclasses.replace(T, bits=4, signed=False)
    graph = chain(
        (Clamp, clamp, {"low": 0, "high": 15}),
        (Flatten, dataclasses.replace(clamp, shape=(16,)), {}),
        (Extend, TensorType((16,), 11, 4), {}),
    )
    summed = chain(
        (Clamp, clamp, {"low": 0, "high": 3}),
        (
            AvgPool,
            dataclasses.replace(clamp, shape=(1, 1, 4)),
            {"window": (2, 2), "stride": (2, 2)},
        ),
        (Extend, TensorType((1, 1, 4), 11, 4), {}),
    )
    price = pricing(PRESETS["pqjax"], None)

    made = all_passes.KNOWN_SIGN(graph, price)

    assert made["clamp1"].out.nonnegative and made["flatten2"].out.bits == 5
    assert total(made, price) < total(graph, price)
    assert all_passes.KNOWN_SIGN(summed, price) == summed
