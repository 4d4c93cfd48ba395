"""What a graph declares of its filters' norms: true, held to the weights, and worth its bytes."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import random_network, run_both

import pqjax
from pqjax.errors import GraphError
from pqjax.graph import Graph, Linear, validate, with_norms
from pqjax.graph.norms import square_bits
from pqjax.graph.widths import widths_of, with_widths
from pqjax.planner import plan, read_plan
from pqjax.planner.plan import check_weights
from pqjax.planner.summary import summary


def linear(graph):
    return [node for node in graph if isinstance(node, Linear)]


def wider(graph, name, more):
    nodes = (
        dataclasses.replace(n, square_bits=n.square_bits + more) if n.name == name else n
        for n in graph
    )
    return Graph(tuple(nodes))


@given(
    st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2), min_size=1),
    st.integers(0, 63),
)
def test_the_bound_is_the_least_power_of_two_that_holds(rows, shift):
    weight = np.array(rows, np.int64) >> shift
    n = square_bits(weight)

    most = max(sum(int(x) ** 2 for x in column) for column in weight.T)
    assert most <= 1 << n and (n == 0 or most > 1 << n - 1)


@pytest.mark.parametrize("seed", range(3))
def test_declared_norms_are_the_weights_own_and_no_others_are_taken(seed):
    graph, weights, _ = random_network(seed)
    declared = with_norms(graph, weights)

    validate(declared, weights)
    assert Graph.from_tree(json.loads(declared.to_json())) == declared
    assert "square_bits" not in graph.to_json() and "square_bits" in declared.to_json()
    for node in linear(declared):
        validate(wider(declared, node.name, 1), weights)
        with pytest.raises(GraphError, match=f"{node.name}.*squares sum to at most"):
            validate(wider(declared, node.name, -1), weights)
    small = wider(declared, linear(declared)[0].name, -1)
    with pytest.raises(GraphError, match="squares sum to at most"):
        check_weights(plan(small), weights)


@pytest.mark.parametrize("protocol", ["pqjax", "hequant"])
def test_declared_norms_make_ciphertexts_shorter_and_answers_stay_exact(protocol):
    graph, weights, x = random_network(0)
    declared = with_norms(graph, weights)
    before, made = (plan(g, protocol, inferences=100) for g in (graph, declared))

    (_, trace0, _), (y, trace1, _) = run_both(made, weights, x)

    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
    assert read_plan(made.document).document == made.document
    assert summary(made)["linear_bytes"] < summary(before)["linear_bytes"]
    assert "in filters of norm at most" in made.explain(linear(declared)[0].name)
    assert "norm" not in before.explain(linear(graph)[0].name).split("protocol")[0]


def test_finer_weights_have_larger_norms():
    graph, weights, _ = random_network(2)
    declared = with_norms(graph, weights)
    widths = widths_of(declared)

    found = with_widths(
        declared,
        dataclasses.replace(widths, weights={k: bits + 2 for k, bits in widths.weights.items()}),
    )

    pairs = zip(linear(declared), linear(found), strict=True)
    assert all((a.square_bits or 0) + 4 == b.square_bits for a, b in pairs)
