"""Networks with convolutions in groups: exact, cost as predicted, the cheaper variant taken."""

import dataclasses

import numpy as np
import pytest
from networks import EXACT, Builder, mini_onn, run_both
from pairs import left_over, stored

import pqjax
from pqjax.errors import GraphError
from pqjax.graph import Conv, Flatten, Graph, Input, Requantize, TensorType, validate
from pqjax.ot.tuning import Tuning
from pqjax.planner import PRESETS, plan, read_plan


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
    made.plus(skip, 8)
    requantize(6, False)
    grouped(8, 2, (2, 2), ((0, 1), (0, 1)))
    made.add(Flatten, dataclasses.replace(made.last.out, shape=(made.last.out.n,)))
    graph = Graph(tuple(made.nodes))
    validate(graph, made.weights)
    first = graph.input.out
    return graph, made.weights, rng.integers(first.low, first.high + 1, first.shape)


@pytest.mark.parametrize("protocol", list(EXACT))
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_separable_networks_are_exact_and_cost_what_was_predicted(seed, protocol):
    graph, weights, x = separable_network(seed, bool(seed))
    made = plan(graph, protocol)

    (_, trace0, party0), (y, trace1, _) = run_both(made, weights, x)

    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
    assert stored(party0) == left_over(made, party0)


@pytest.mark.parametrize("variant", ["full-choose-x", "full-choose-w"])
def test_separable_networks_stream_and_obey(variant: str):
    preset = dataclasses.replace(PRESETS["pqjax"], tuning=Tuning(stream_above=0))
    graph, weights, x = separable_network(2)
    layers = [node.name for node in graph if isinstance(node, Conv) and node.groups > 1]
    made = plan(graph, preset, variants=dict.fromkeys(layers, variant))

    (_, trace0, _), (y, trace1, _) = run_both(made, weights, x)

    assert made.streamed
    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []


def test_the_planner_takes_the_cheaper_variant_of_a_depthwise_layer():
    graph, _, _ = separable_network(0)

    for node in (n for n in plan(graph, "pqjax-ot").graph if isinstance(n, Conv) and n.groups > 1):
        costs = {
            v: plan(graph, "pqjax-ot", variants={node.name: v}).cost().bits
            for v in ("full-choose-x", "full-choose-w")
        }
        chosen = next(s.variant for s in plan(graph, "pqjax-ot").steps if s.node.name == node.name)
        assert chosen is not None and costs[chosen] == min(costs.values())


def test_outputs_of_padding_alone_are_refused():
    out = TensorType((1, 1, 2), 9, 0)
    node = Conv("dw", ("x",), out, (1, 1), (2, 2), ((1, 0), (1, 0)), 2, 0, groups=2)
    graph = Graph((Input("x", (), TensorType((1, 1, 2), 4, 0)), node))

    with pytest.raises(GraphError, match=r"dw \(Conv\): reads nothing but padding: .*pad it less"):
        validate(graph)


@pytest.mark.parametrize("protocol", ["pqjax-ot", "privquant"])
def test_any_convolution_can_be_asked_to_leave_its_padding_out(protocol):
    graph, weights, x = mini_onn()
    preset = PRESETS[protocol]
    least = dataclasses.replace(preset, choices=(*preset.choices, *preset.otherwise), otherwise=())
    layers = {s.node.name: s.task.choice for s in plan(graph, least).steps if s.task.choice}

    asked = plan(graph, protocol, variants=layers)

    assert "pixels" in {choice.form for choice in layers.values()}
    assert read_plan(asked.document) == asked
    assert asked.cost().bits < 0.96 * plan(graph, protocol).cost().bits
    (_, trace0, _), (y, trace1, _) = run_both(asked, weights, x)
    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert asked.differences(trace0, 0) == [] and asked.differences(trace1, 1) == []
