"""Convolution in groups: exact in every variant and shape, cost as predicted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder, run_both
from pairs import INLINE, STOCKED, run_protocol, shares, stored

import pqjax
from pqjax.errors import PlanError
from pqjax.graph import Add, Conv, Flatten, Graph, Input, Requantize, TensorType, validate
from pqjax.planner import PRESETS, plan
from pqjax.protocols import grouped_ot
from pqjax.protocols.grouped_ot import (
    GroupedProduct,
    Window,
    grouped_bits_cost,
    multiply_grouped,
    multiply_grouped_cost,
)
from pqjax.protocols.linear_ot import VARIANTS, Product, product_bits_cost
from pqjax.protocols.resize import Forms
from pqjax.ring import Ring

FEW = settings(max_examples=25, deadline=None)


def slow_conv(x, w, window, groups):
    """Plain loops over outputs, of Python's integers."""
    padded = np.pad(x, (*window.padding, (0, 0)))
    fan_in, each = w.shape[2], w.shape[3] // groups
    y = np.zeros((*window.outputs, w.shape[3]), object)
    for o in range(y.shape[0]):
        for p in range(y.shape[1]):
            top, left = o * window.stride[0], p * window.stride[1]
            rows = [top + window.dilation[0] * i for i in range(w.shape[0])]
            seen = padded[np.ix_(rows, [left + window.dilation[1] * j for j in range(w.shape[1])])]
            for k in range(w.shape[3]):
                g = k // each
                part = seen[:, :, g * fan_in : (g + 1) * fan_in].astype(object)
                y[o, p, k] = (part * w[:, :, :, k].astype(object)).sum()
    return y


@st.composite
def windows(draw):
    side = st.integers(1, 6)
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    margin = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.tuples(margin, margin))
    dilation = draw(st.sampled_from([(1, 1), (2, 1), (3, 2)]))
    wide = [(kernel[i] - 1) * dilation[i] + 1 for i in (0, 1)]
    image = tuple(max(draw(side), wide[i] - sum(padding[i])) for i in (0, 1))
    window = Window(image, kernel, stride, padding, dilation)
    return window if window.taps else dataclasses.replace(window, padding=((0, 0), (0, 0)),
                                                          image=(7, 7))  # fmt: skip


def random_product(rng, window, groups, fan_in, outputs, variant, kind="signed", small=False):
    """A grouped product with its operands in the clear: p, weights, image."""
    w_bits, x_bits = (2, 3) if small else (int(rng.integers(2, 6)), int(rng.integers(2, 7)))
    d2 = window.kernel[0] * window.kernel[1] * fan_in
    bits = w_bits + x_bits + d2.bit_length()
    low, high = {
        "signed": (-(2 ** (x_bits - 1)), 2 ** (x_bits - 1)),
        "unsigned": (0, 2**x_bits),
        "nonnegative": (0, 2 ** (x_bits - 1)),
    }[kind]
    half = 2 ** (w_bits - 1)
    w = rng.integers(-half, half, (*window.kernel, fan_in, groups * outputs))
    x = rng.integers(low, high, (*window.image, groups * fan_in))
    d3 = int(np.prod(window.outputs))
    each = Product(
        outputs, d2, d3, w_bits, x_bits, kind != "unsigned", kind == "nonnegative", bits, variant
    )
    return GroupedProduct(each, groups, fan_in, window), w, x


def assert_exact(rng, p, w, x, source, forms=None):
    forms = forms or Forms()
    width = p.each.bits if p.each.variant.startswith("full") else p.each.x_bits
    x0, x1 = shares(rng, x, width)

    y = run_protocol(
        lambda party, w, s: multiply_grouped(party, p, w, s, forms), (w, x0), (None, x1), source,
        multiply_grouped_cost(source, p, forms),
    )  # fmt: skip

    wanted = slow_conv(x, w, p.window, p.groups).astype(np.int64)
    np.testing.assert_array_equal(Ring(p.each.bits).add(*y), Ring(p.each.bits).reduce(wanted))


@FEW
@given(
    windows(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from([*VARIANTS]),
    st.sampled_from(["signed", "unsigned", "nonnegative"]), st.integers(0, 999),
)  # fmt: skip
def test_any_shape_in_any_variant(window, groups, fan_in, outputs, variant, kind, seed):
    rng = np.random.default_rng(seed)
    p, w, x = random_product(rng, window, groups, fan_in, outputs, variant, kind)

    assert_exact(rng, p, w, x, STOCKED)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("forms", [Forms("choice", True), Forms("table", True)])
def test_every_variant_with_ots_made_inline(variant, forms):
    rng = np.random.default_rng(3)
    window = Window((5, 4), (3, 3), (2, 2), ((0, 1), (0, 1)))  # "SAME" of an even side
    p, w, x = random_product(rng, window, 6, 1, 1, variant, "nonnegative")

    assert_exact(rng, p, w, x, INLINE, forms)


@pytest.mark.parametrize("variant", ["full-choose-x", "full-choose-w", "1-extend-w-choose-x"])
def test_tiles_cut_groups_outputs_and_inputs(variant, monkeypatch):
    monkeypatch.setattr(grouped_ot, "_TILE", 40)
    rng = np.random.default_rng(4)
    window = Window((4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)))
    p, w, x = random_product(rng, window, 3, 3, 4, variant)
    tiles = list(p.tiles(16))

    assert len(tiles) > 3 and {s.stop - s.start for s in (t[2] for t in tiles)} == {2, 1}
    assert_exact(rng, p, w, x, STOCKED)


def test_what_lies_in_the_padding_costs_nothing():
    window = Window((7, 7), (3, 3), (1, 1), ((1, 1), (1, 1)))

    assert window.uses == (3 * 7 - 2) ** 2
    assert Window((224, 224), (3, 3), (2, 2), ((0, 1), (0, 1))).uses == (3 * 112 - 1) ** 2
    assert Window((9, 9), (1, 1), (2, 2), ((0, 0), (0, 0))).uses == 25
    assert window.slots == 9 and dataclasses.replace(window, stride=(2, 2)).slots == 4


@pytest.mark.parametrize("source", [INLINE, STOCKED])
def test_without_padding_the_cost_by_weights_is_that_of_as_many_products(source):
    window = Window((9, 9), (3, 3), (1, 1), ((0, 0), (0, 0)))
    each = Product(1, 9, 49, 4, 6, True, True, 16, "full-choose-w")

    whole = grouped_bits_cost(source, GroupedProduct(each, 8, 1, window))
    alone = product_bits_cost(source, each)

    assert whole.bits == 8 * alone.bits and whole.flows == alone.flows


def test_a_pixels_bits_choose_once_for_all_its_uses():
    window = Window((8, 8), (3, 3), (1, 1), ((1, 1), (1, 1)))
    each = Product(1, 9, 64, 4, 6, True, True, 16, "1-extend-w-choose-x")
    p = GroupedProduct(each, 5, 1, window)
    total = 6 * 16 - 15

    cost = grouped_bits_cost(INLINE, p)

    assert cost.bits == 5 * (64 * 6 * 128 + 22 * 22 * total)


def separable_network(seed, signed=False):
    """expand - depthwise - project with a sum, as in MobileNetV2, and a grouped layer."""
    rng = np.random.default_rng(seed)
    made = Builder(rng, (6, 5, 4), 5, signed)

    def grouped(channels, groups, stride, padding):
        h, w, c = made.last.out.shape
        sides = [(d + sum(p) - 3) // s + 1 for d, p, s in zip((h, w), padding, stride, strict=True)]
        made.linear(
            Conv, (*sides, channels), (3, 3, c // groups, channels), kernel=(3, 3), stride=stride,
            padding=padding, groups=groups,
        )  # fmt: skip

    def requantize(bits, positive):
        out = TensorType((1,), bits, made.last.out.scale - 3, nonnegative=positive)
        made.add(Requantize, dataclasses.replace(out, shape=made.last.out.shape), rule="saturate")

    made.conv_like(made.last)
    made.relu()
    requantize(5, True)
    skip = made.last
    grouped(4, 4, (1, 1), ((1, 1), (1, 1)))
    made.relu()
    requantize(5, True)
    made.conv_like(made.last)
    right = made.last.name
    narrow = TensorType(skip.out.shape, 8, skip.out.scale + 1)
    wide = dataclasses.replace(narrow, bits=9)
    up = []
    for name in (skip.name, right):
        clamped = made.add(Requantize, narrow, name, rule="saturate")
        up.append(made.add(Requantize, wide, clamped, rule="wrap"))
    made.add(Add, wide, *up)
    requantize(6, False)
    grouped(8, 2, (2, 2), ((0, 1), (0, 1)))
    made.add(Flatten, dataclasses.replace(made.last.out, shape=(made.last.out.n,)))
    graph = Graph(tuple(made.nodes))
    validate(graph, made.weights)
    first = graph.input.out
    return graph, made.weights, rng.integers(first.low, first.high + 1, first.shape)


@pytest.mark.parametrize("protocol", list(PRESETS))
@pytest.mark.parametrize("seed", range(2))
def test_separable_networks_are_exact_and_cost_what_was_predicted(seed, protocol):
    graph, weights, x = separable_network(seed, bool(seed))
    made = plan(graph, protocol)

    (_, trace0, party0), (y, trace1, _) = run_both(made, weights, x)

    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
    assert stored(party0) == (0, 0)


@pytest.mark.parametrize("variant", ["full-choose-x", "full-choose-w"])
def test_separable_networks_stream_and_obey(variant, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["pqjax.planner.plan"], "STREAM_ABOVE", 0)
    graph, weights, x = separable_network(2)
    layers = [node.name for node in graph if isinstance(node, Conv) and node.groups > 1]
    made = plan(graph, variants=dict.fromkeys(layers, variant))

    (_, trace0, _), (y, trace1, _) = run_both(made, weights, x)

    assert made.streamed
    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []


def test_the_planner_takes_the_cheaper_variant_of_a_depthwise_layer():
    graph, _, _ = separable_network(0)

    for node in (n for n in plan(graph).graph if isinstance(n, Conv) and n.groups > 1):
        costs = {
            v: plan(graph, variants={node.name: v}).cost().bits
            for v in ("full-choose-x", "full-choose-w")
        }
        chosen = next(s.variant for s in plan(graph).steps if s.node.name == node.name)
        assert costs[chosen] == min(costs.values())


def test_outputs_of_padding_alone_are_refused():
    out = TensorType((1, 1, 2), 9, 0)
    node = Conv("dw", ("x",), out, (1, 1), (2, 2), ((1, 0), (1, 0)), 2, 0, groups=2)
    graph = Graph((Input("x", (), TensorType((1, 1, 2), 4, 0)), node))

    with pytest.raises(PlanError, match="dw: its outputs read nothing but padding"):
        plan(graph)
