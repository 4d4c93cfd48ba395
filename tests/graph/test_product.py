"""Products of two shared tensors: what they mean, what graphs of them declare, how they run."""

import dataclasses

import numpy as np
import pytest
from interpreter import every_value_slowly
from networks import EXACT, random_network

import pqjax
from pqjax.errors import GraphError, PlanError
from pqjax.graph import (
    Add,
    Graph,
    Input,
    Product,
    Relu,
    Requantize,
    TensorType,
    reference,
    validate,
)
from pqjax.planner import find_preset, plan, read_plan


def attention(tokens=3, heads=2, width=4, bits=5, unsigned=False):
    """(Q K^T) V of one requantized image, which is Q, K and V at once, at different formats."""
    shape, scores = (tokens, 1, heads * width), (tokens, 1, heads * tokens)
    q = TensorType(shape, bits, 3)
    k = TensorType(shape, bits - 1, 2, signed=not unsigned)
    sums, out = TensorType(scores, 2 * bits + 3, 5), TensorType(shape, 2 * bits + 5, 5)
    return Graph((
        Input("x", (), TensorType(shape, 8, 4)),
        Requantize("q", ("x",), q, rounding="floor"),
        Requantize("k", ("x",), k, rounding="floor"),
        Product("scores", ("q", "k"), sums, heads, True),
        Requantize("p", ("scores",), TensorType(scores, bits, 3)),
        Product("values", ("p", "k"), out, heads),
        Requantize("y", ("values",), TensorType(shape, 8, 3)),
    ))  # fmt: skip


def image(graph, seed=0):
    first = graph.input.out
    return np.random.default_rng(seed).integers(first.low, first.high + 1, first.shape)


@pytest.mark.parametrize("unsigned", [False, True])
def test_a_product_is_numpys_head_by_head(unsigned):
    graph = attention(unsigned=unsigned)
    x = image(graph)
    values = every_value_slowly(graph, {}, x)

    q, k, p = (values[name].astype(int).reshape(3, 2, -1) for name in ("q", "k", "p"))
    scores = np.einsum("mhc,nhc->mhn", q, k).reshape(3, 1, 6)
    np.testing.assert_array_equal(values["scores"].astype(int), scores)
    sums = np.einsum("mht,thc->mhc", p, k).reshape(3, 1, 8)
    np.testing.assert_array_equal(values["values"].astype(int), sums)
    np.testing.assert_array_equal(reference(graph, {}, x), values["y"].astype(int))
    np.testing.assert_array_equal(
        reference(graph, {}, np.stack([x, -x - 1]))[0], reference(graph, {}, x)
    )


def test_sums_too_wide_for_floats_are_exact():
    x = Input("x", (), TensorType((2, 2, 3), 30, 0))
    graph = Graph((x, Product("y", ("x", "x"), TensorType((2, 2, 4), 62, 0), 1, True)))
    low = np.full((2, 2, 3), -(1 << 29))
    low[1] += 7

    found = reference(graph, {}, low)

    np.testing.assert_array_equal(found, every_value_slowly(graph, {}, low)["y"].astype(np.int64))


@pytest.mark.parametrize("protocol", EXACT)
@pytest.mark.parametrize("unsigned", [False, True])
def test_networks_of_products_run_exactly_and_as_priced(protocol, unsigned):
    graph = attention(unsigned=unsigned)
    x = image(graph, 1)
    made = plan(graph, protocol)

    result = pqjax.run_local(made, {}, x)

    np.testing.assert_array_equal(result.output, reference(graph, {}, x))
    assert made.differences(result.trace, 1) == []
    assert read_plan(made.document).document == made.document
    assert Graph.from_json(graph.to_json()) == graph


@pytest.mark.parametrize("last", ["requantized", "added", "through a relu", "as it is"])
def test_products_on_ciphertexts_leave_guard_bits_that_readers_take_away(last):
    graph = attention()
    preset = find_preset("pqjax")
    encrypted = tuple(c for c in preset.products if c.method == "shared-rlwe")
    values = graph["values"]
    wide = dataclasses.replace(values.out, bits=values.out.bits + 1)
    nodes = {
        "requantized": [graph["y"]],
        "added": [
            dataclasses.replace(values, out=wide),
            dataclasses.replace(values, name="again", out=wide),
            Add("y", ("values", "again"), wide),
        ],
        "through a relu": [
            Relu("y", ("values",), dataclasses.replace(values.out, nonnegative=True))
        ],
        "as it is": [],
    }[last]
    kept = [node for node in graph.nodes if node.name not in {"y", *(n.name for n in nodes)}]
    graph = Graph((*kept, *nodes))
    x = image(graph, 2)

    made = plan(graph, dataclasses.replace(preset, products=encrypted))

    result = pqjax.run_local(made, {}, x)
    np.testing.assert_array_equal(result.output, reference(graph, {}, x))
    assert made.differences(result.trace, 1) == []
    assert read_plan(made.document).document == made.document
    assert {s.task.choice.method for s in made.steps if s.task.choice} == {"shared-rlwe"}
    assert made.graph["values"].out.guard == (2 if last == "added" else 1)


def changed(**fields):
    graph = attention()
    nodes = [dataclasses.replace(n, **fields) if n.name == "scores" else n for n in graph]
    return Graph(tuple(nodes))


SUMS = attention()["scores"].out
WRONG = [
    ({"heads": 3}, "3 heads do not divide 8 and 8 channels"),
    ({"transposed": False}, "sums 4 products of its first source, 3 of the other"),
    ({"sources": ("q", "k", "k")}, "2 sources expected, got 3"),
    ({"out": dataclasses.replace(SUMS, scale=6)}, r"scale must be 3 \+ 2, got 6"),
    ({"out": dataclasses.replace(SUMS, signed=False)}, "an accumulator is signed"),
    ({"out": dataclasses.replace(SUMS, bits=9)}, "which takes 11 bits"),
    ({"out": dataclasses.replace(SUMS, shape=(3, 1, 8))}, "makes a tensor of shape"),
    ({"heads": 0}, "heads"),
]


@pytest.mark.parametrize("fields,text", WRONG)
def test_products_that_do_not_go_are_named(fields, text):
    with pytest.raises(GraphError, match=text):
        validate(changed(**fields))


def test_a_choice_of_the_other_kind_is_refused():
    both = plan(attention(), "pqjax"), plan(random_network(0)[0], "pqjax")
    chosen = [
        next((s.node.name, s.task.choice) for s in made.steps if s.task.choice) for made in both
    ]
    for made, (name, _), (_, other) in zip(both, chosen, chosen[::-1], strict=True):
        with pytest.raises(PlanError, match="shared operands|the server's weights"):
            plan(made.source, "pqjax", variants={name: other})
