"""Guard bits: where they are given, what may read them, and that every network with them is exact."""

import dataclasses
import json

import numpy as np
import pytest
from networks import ENCRYPTED, random_network, run_both

import pqjax
from pqjax.errors import GraphError, PlanError
from pqjax.graph import (
    Add,
    AvgPool,
    Clamp,
    Concat,
    Conv,
    Extend,
    Graph,
    Input,
    MaxPool,
    Narrow,
    Node,
    Relu,
    Requantize,
    TensorType,
    Truncate,
    TruncateReduce,
    reference,
    validate,
)
from pqjax.graph.guard import guarded
from pqjax.graph.ir import ArgMax, Flatten, ScaleUp, Unguard
from pqjax.planner import plan, read_plan

IMAGE = TensorType((6, 6, 2), 4, 2)
SUM = TensorType((6, 6, 2), 9, 4)


def conv(name, source="x", out=SUM):
    return Conv(name, (source,), out, (1, 1), (1, 1), ((0, 0), (0, 0)), 3, 2, widths="worst")


def graph(*nodes):
    return Graph((Input("x", (), IMAGE), *nodes))


def weights_of(made, rng):
    found = {}
    for name, (shape, bits) in made.parameters().items():
        half = 1 << (bits if name.endswith("weight") else 3) - 1
        found[name] = rng.integers(-half, half, shape)
    return found


def cut(source, name="cut", **fields):
    return TruncateReduce(name, (source,), TensorType((6, 6, 2), 6, 1, **fields), 3, "nearest")


def test_an_exact_truncation_takes_guard_bits_away():
    made = guarded(graph(conv("a"), cut("a")), {"a"})

    assert [node.out.guard for node in made] == [0, 1, 0]
    validate(made)


@pytest.mark.parametrize("reader", [
    AvgPool("r", ("a",), dataclasses.replace(SUM, shape=(3, 3, 2), scale=6), (2, 2), (2, 2)),
    Clamp("r", ("a",), dataclasses.replace(SUM, bits=4), -8, 7),
    Extend("r", ("a",), dataclasses.replace(SUM, bits=12)),
    ScaleUp("r", ("a",), dataclasses.replace(SUM, bits=11, scale=6), 2),
    Truncate("r", ("a",), dataclasses.replace(SUM, scale=1), 3),
], ids=lambda node: node.kind)  # fmt: skip
def test_what_cannot_read_guard_bits_reads_exact_values(reader):
    given = graph(conv("a"), reader)

    made = guarded(given, {"a"})

    assert [node.kind for node in made][1:3] == ["Conv", "Unguard"]
    assert made["r"].sources == ("a.exact",) and made["r"].out.guard == 0
    validate(made)
    with pytest.raises(GraphError, match=r"r \(.*guard bits as they are"):
        validate(Graph((*made.nodes[:2], dataclasses.replace(reader, out=reader.out))))


def test_an_index_is_found_among_exact_values():
    flat = dataclasses.replace(SUM, shape=(72,))
    last = ArgMax("r", ("f",), TensorType((1,), 7, 0, signed=False), headroom=True)
    made = guarded(graph(conv("a"), Flatten("f", ("a",), flat), last), {"a"})

    assert made["r"].sources == ("f.exact",)


def test_a_relu_takes_guard_bits_away_for_what_cannot_read_them_and_keeps_them_for_others():
    half = dataclasses.replace(SUM, shape=(3, 3, 2), scale=6, nonnegative=True)
    positive = dataclasses.replace(SUM, nonnegative=True)
    relu, pool = Relu("r", ("a",), positive), AvgPool("p", ("r",), half, (2, 2), (2, 2))
    for readers, guard in (((pool,), 0), ((), 0), ((cut("r"),), 1), ((pool, cut("r")), 1)):
        made = guarded(graph(conv("a"), relu, *readers), {"a"})

        assert (made["a"].out.guard, made["r"].out.guard) == (1, guard)
        validate(made)


@pytest.mark.parametrize("seed", range(3))
def test_a_relu_that_takes_guard_bits_away_is_exact(seed):
    wide = dataclasses.replace(SUM, bits=11)
    half = dataclasses.replace(wide, shape=(3, 3, 2), scale=6, nonnegative=True)
    made = graph(
        conv("a", out=wide), Relu("r", ("a",), dataclasses.replace(wide, nonnegative=True)),
        AvgPool("p", ("r",), half, (2, 2), (2, 2)),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    weights, x = weights_of(made, rng), rng.integers(-8, 8, IMAGE.shape)
    run = plan(made, ENCRYPTED)

    assert [node.out.guard for node in run.graph if node.kind in ("Conv", "Relu")] == [1, 0]
    (_, trace0, _), (y, trace1, _) = run_both(run, weights, x)

    np.testing.assert_array_equal(y, reference(made, weights, x))
    assert run.differences(trace0, 0) == [] and run.differences(trace1, 1) == []


@pytest.mark.parametrize("keeper", [
    Narrow("r", ("a",), dataclasses.replace(SUM, bits=5)),
    MaxPool("r", ("a",), dataclasses.replace(SUM, shape=(5, 5, 2)), (2, 2), (1, 1), headroom=True),
    Concat("r", ("a", "a"), dataclasses.replace(SUM, shape=(6, 6, 4))),
], ids=lambda node: node.kind)  # fmt: skip
def test_what_compares_or_moves_keeps_guard_bits(keeper):
    made = guarded(graph(conv("a"), keeper), {"a"})

    assert [(node.kind, node.out.guard) for node in made][2:] == [(keeper.kind, 1), ("Unguard", 0)]
    validate(made)


@pytest.mark.parametrize("count, bits", [(2, 2), (3, 2), (4, 3)])
def test_sums_of_guarded_layers_have_as_many_bits_as_their_errors_take(count, bits):
    names = [f"c{i}" for i in range(count)]
    wide, last = dataclasses.replace(SUM, bits=12), names[0]
    nodes: list[Node] = [conv(name, out=wide) for name in names]
    for name in names[1:]:
        nodes.append(Add(f"{last}+", (last, name), nodes[0].out))
        last = f"{last}+"
    made = guarded(graph(*nodes, dataclasses.replace(
        cut(last), out=TensorType((6, 6, 2), 9, 1))), set(names))  # fmt: skip

    assert {made[name].out.guard for name in names} == {bits}
    validate(made)
    fewer = [
        dataclasses.replace(node, out=dataclasses.replace(node.out, guard=bits - 1))
        if node.out.guard else node for node in made
    ]  # fmt: skip
    with pytest.raises(GraphError, match="do not hold the .* units"):
        validate(Graph(tuple(fewer)))


def test_what_has_no_guard_bits_is_added_to_what_has():
    wide = dataclasses.replace(SUM, bits=10)
    up = ScaleUp("s", ("x",), TensorType((6, 6, 2), 6, 4), 2)
    last = dataclasses.replace(cut("sum"), out=TensorType((6, 6, 2), 7, 1))
    nodes = up, Extend("e", ("s",), wide), conv("a", out=wide), Add("sum", ("a", "e"), wide), last

    made = guarded(graph(*nodes), {"a"})

    assert [made[name].out.guard for name in ("e", "a", "sum", "cut")] == [0, 1, 1, 0]
    validate(made)


def branches(count):
    """Convolutions that are added up before anything is shifted, and a residual among them."""
    wide = dataclasses.replace(SUM, bits=12)
    nodes: list[Node] = [conv(f"c{i}", out=wide) for i in range(count)]
    last = nodes[0].name
    for node in nodes[1:]:
        nodes.append(Add(f"{last}+", (last, node.name), wide))
        last = nodes[-1].name
    nodes.append(Relu("relu", (last,), dataclasses.replace(wide, nonnegative=True)))
    nodes.append(Requantize("cut", ("relu",), TensorType((6, 6, 2), 4, 2, signed=False)))
    nodes.append(conv("last", "cut", dataclasses.replace(SUM, bits=10)))
    return graph(*nodes)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(2))
def test_sums_of_several_layers_are_exact(count, seed):
    rng = np.random.default_rng(seed)
    made = branches(count)
    weights = weights_of(made, rng)
    x = rng.integers(-8, 8, IMAGE.shape)
    run = plan(made, ENCRYPTED)

    assert run.step("c0").node.out.guard == count.bit_length()
    (_, trace0, _), (y, trace1, _) = run_both(run, weights, x)

    np.testing.assert_array_equal(y, reference(made, weights, x))
    assert run.differences(trace0, 0) == [] and run.differences(trace1, 1) == []


def test_graphs_with_guard_bits_are_not_for_users():
    guardless = graph(conv("a"), cut("a"))
    given = guarded(guardless, {"a"})

    with pytest.raises(GraphError, match="a .Conv.: guard bits are the planner's to give"):
        plan(given)
    with pytest.raises(GraphError, match="no guard bits to take away"):
        validate(graph(conv("a"), Unguard("u", ("a",), SUM)))
    assert Graph.from_json(given.to_json()) == given
    assert '"guard"' not in guardless.to_json()


def test_a_plan_whose_guard_bits_are_not_its_layers_is_none():
    document = json.loads(plan(branches(2), ENCRYPTED).document)
    for name, change in (("c0", 0), ("c0", 3), ("c0+", 0)):
        tree = json.loads(json.dumps(document))
        node = next(n for n in tree["graph"]["nodes"] if n["name"] == name)
        node["out"]["guard"] = change
        with pytest.raises(PlanError):
            read_plan(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())
    by_ot = json.loads(plan(branches(2), "pqjax-ot").document)
    tree = json.loads(json.dumps(document))
    tree["choices"] = by_ot["choices"]
    with pytest.raises(PlanError, match="no guard bits, but declares 2"):
        read_plan(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize("seed", range(6))
def test_guarded_random_networks_open_no_guard_bit(seed):
    made = plan(random_network(seed)[0], ENCRYPTED)

    assert any(node.out.guard for node in made.graph)
    for node in made.graph:
        if node.out.guard:
            readers = made.graph.readers[node.name]
            assert readers and all(r.keeps_guard or r.drops_guard for r in readers)
    assert made.graph.output.out.guard == 0
    assert pqjax.validate(made.graph) is not None
