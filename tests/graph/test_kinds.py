"""What a node says of itself is true of the values it makes; tensors side by side, kernels apart."""

import collections
import dataclasses

import numpy as np
import pytest
from impolite import strange_graph
from interpreter import every_value_slowly
from pitfalls import BOTH, IMAGE, PITFALLS, fmt, graph, relu, twice

from pqjax.errors import GraphError
from pqjax.graph import (
    Concat,
    Extend,
    Graph,
    Input,
    Linear,
    Requantize,
    every_value,
    may_overflow,
    overflowing,
    validate,
)
from pqjax.graph import passes as all_passes
from pqjax.graph.ir import KINDS, fresh
from pqjax.graph.passes import LOWER
from pqjax.planner import PRESETS, plan
from pqjax.planner.price import pricing


def check_facts(made, node, values):
    """Holds a node to what its class says, by the values of one input."""
    x, y = [values[source].ravel() for source in node.sources], values[node.name].ravel()
    types = made.types(node)
    for field in node.same:
        assert len({getattr(out, field) for out in (*types, node.out)}) == 1, field
    if node.moves:
        assert set(y) <= set().union({0}, *x)
    if node.keeps_range:
        ends = [0, *(end for v in x for end in (v.min(), v.max()))]
        assert min(ends) <= y.min() and y.max() <= max(ends)
    carried = node.adds and any(may_overflow(made, source) for source in node.sources)
    if node.nonnegative(*types) and not carried:
        assert y.min() >= 0
    if may_overflow(made, node.name):
        assert node.overflows or (
            node.hands_on and any(may_overflow(made, source) for source in node.sources)
        )


def test_what_nodes_say_is_true_of_their_values():
    met = collections.Counter()
    for seed in range(250):
        made, weights, x, corners = strange_graph(seed)
        for given in (x, *corners):
            values = every_value_slowly(made, weights, given)
            for node in made.nodes[1:]:
                check_facts(made, node, values)
                met[node.kind] += 1

    assert set(met) == set(KINDS) - {"Input", "Unguard"}  # guard bits are in no graph of a user's


@pytest.mark.parametrize("seed", range(20))
def test_a_node_of_a_wider_source_is_the_same_or_says_that_it_would_not_be(seed):
    """`counts_width` and `free`: what may be widened computes the same values there."""
    made, weights, x, _ = strange_graph(seed)
    values, known = every_value_slowly(made, weights, x), validate(made, weights)

    for node in made.nodes[1:]:
        if node.out.bits < 64 and node.out.signed and node.free(known[node.name]):
            out = dataclasses.replace(node.out, bits=node.out.bits + 1)
            nodes = [*made.nodes[: made.nodes.index(node)], dataclasses.replace(node, out=out)]
            wider = Graph(tuple(nodes))
            validate(wider, {name: weights[name] for name in wider.parameters()})
            wide = every_value_slowly(wider, weights, x)[node.name]
            np.testing.assert_array_equal(wide, values[node.name])


def test_the_facts_of_a_kind_go_together():
    for name, kind in KINDS.items():
        assert kind.__name__ == name
        assert kind.arity[0] <= kind.arity[1] and (kind.arity == (0, 0)) == (kind is Input)
        assert set(kind.same) <= {"bits", "scale", "signed"}
        assert not kind.moves or (kind.keeps_range and kind.keeps_sign and "signed" in kind.same)
    assert {name for name, kind in KINDS.items() if issubclass(kind, Linear)} == {"Conv", "Dense"}


SIDE_BY_SIDE = [
    ("bits", [fmt(5), Extend("e", ("x",), fmt(6)), Concat("c", ("x", "e"), fmt(6, shape=BOTH))],
     r"c \(Concat\): bits must agree, got 5 and 6"),
    ("scale", [fmt(5), Requantize("q", ("x",), fmt(5, 1)), Concat("c", ("x", "q"), fmt(5, shape=BOTH))],
     "scale must agree, got 0 and 1"),
    ("signs", [fmt(5), Requantize("q", ("x",), fmt(5, kind="u")),
               Concat("c", ("x", "q"), fmt(5, shape=BOTH))], "signed must agree, got True and False"),
    ("result", [fmt(5), Concat("c", ("x", "x"), fmt(6, shape=BOTH))], "bits must agree, got 5 and 6"),
    ("sides", [fmt(5), Concat("c", ("x", "x"), fmt(5, shape=(2, 3, 3)))],
     r"makes a tensor of shape \(2, 3, 4\), but declares \(2, 3, 3\)"),
    ("other sides", [fmt(5), twice(9)[0], dataclasses.replace(
        twice(9, name="d")[0], stride=(2, 1), out=fmt(9, shape=(1, 3, 2))),
        Concat("c", ("conv", "d"), fmt(9, shape=BOTH))],
     r"all sides but the last must agree, got \(2, 3, 2\) and \(1, 3, 2\)"),
    ("a sign", [fmt(5), relu(5, "x", "r"), Concat("c", ("x", "r"), fmt(5, kind="n", shape=BOTH))],
     r"c \(Concat\): .*says that none is negative"),
    ("one", [fmt(5), Concat("c", ("x",), fmt(5))], "2 to 64 sources expected, got 1"),
    ("none", [fmt(5), Concat("c", (), fmt(5))], "2 to 64 sources expected, got 0"),
    ("many", [fmt(5), Concat("c", ("x",) * 65, fmt(5))], "2 to 64 sources expected, got 65"),
]  # fmt: skip


@pytest.mark.parametrize("case", SIDE_BY_SIDE, ids=[case[0] for case in SIDE_BY_SIDE])
def test_tensors_that_cannot_stand_side_by_side_are_named(case):
    _, (source, *nodes), text = case
    with pytest.raises(GraphError, match=text):
        validate(graph(source, *nodes)[0])


def test_a_concatenation_is_numpys_and_survives_json():
    made, weights, x = PITFALLS["tensors of different signs side by side"]

    both = every_value(made, weights, x)["both"][0]

    np.testing.assert_array_equal(both, np.concatenate([np.maximum(x, 0), x], -1))
    assert Graph.from_json(made.to_json()) == made
    assert validate(made, weights)["both"] == (-16, 15)


def test_a_concatenation_is_nonnegative_if_all_of_it_is_and_may_overflow_if_any_of_it_may():
    for first, known in (("r", True), ("x", False)):
        made, _, _ = graph(
            fmt(5), relu(5, "x", "r"), Concat("c", (first, "r"), fmt(5, shape=BOTH)),
            Extend("e", ("c",), fmt(8, shape=BOTH)),
        )  # fmt: skip
        signed = all_passes.SIGNS(made, lambda g, n: 0.0)
        assert [signed[name].out.nonnegative for name in "ce"] == [known, known]
    made = PITFALLS["what may overflow beside what may not"][0]
    assert overflowing(made) == {"conv", "both"}


def test_an_extension_moves_before_a_concatenation_where_a_known_sign_makes_that_cheaper():
    preset = PRESETS["pqjax"]
    forms = dataclasses.replace(preset.forms, flow_bits=0)
    price = pricing(dataclasses.replace(preset, forms=forms), None)
    for pair, saves in (("rx", True), ("xx", True), ("xy", False)):
        made, weights, x = graph(
            fmt(5), relu(5, "x", "r"), Requantize("y", ("x",), fmt(5)),
            Concat("both", tuple(pair), fmt(5, shape=BOTH)), Extend("e", ("both",), fmt(9, shape=BOTH)),
        )  # fmt: skip
        made = all_passes.SIGNS(LOWER(made, price), price)

        hoisted = all_passes.HOIST(made, price)

        assert (hoisted.output.kind == "Concat") == saves, pair
        assert isinstance(made.output, Extend)
        for after in (hoisted, all_passes.HOIST.at(made, "e")):
            validate(after, weights)
            wanted = every_value_slowly(made, weights, x)[made.output.name]
            got = every_value_slowly(after, weights, x)[after.output.name]
            np.testing.assert_array_equal(got, wanted)
            extended = [node for node in after if isinstance(node, Extend) and node.out.bits == 9]
            assert sum(node.out.n for node in extended) <= made.output.out.n
    once = all_passes.HOIST.at(PITFALLS["a tensor beside itself in a wider ring"][0], "e")
    assert [node.out.shape for node in once if isinstance(node, Extend)] == [IMAGE]


def test_taps_apart_read_every_other_pixel():
    made, weights, x = PITFALLS["taps apart"]
    conv = made["conv"]

    near = Graph((made.input, dataclasses.replace(conv, kernel=(2, 4), dilation=(1, 1))))

    assert '"dilation":[1,3]' in made.to_json() and '"dilation"' not in near.to_json()
    assert Graph.from_json(made.to_json()) == made and Graph.from_json(near.to_json()) == near
    spread = np.zeros((2, 4, 2, 2), int)
    spread[:, ::3] = weights["conv/weight"]
    wanted = every_value(near, {**weights, "conv/weight": spread}, x)["conv"]
    np.testing.assert_array_equal(every_value(made, weights, x)["conv"], wanted)
    with pytest.raises(GraphError, match=r"conv \(Conv\): makes a tensor of shape \(3, -1, 2\)"):
        validate(Graph((made.input, dataclasses.replace(conv, dilation=(1, 9)))))


def renamed(made, old, new):
    """A graph with another name for one of its nodes."""
    to = lambda name: new if name == old else name
    return Graph(
        tuple(
            dataclasses.replace(node, name=to(node.name), sources=tuple(map(to, node.sources)))
            for node in made
        )
    )


CLASHING = [*PITFALLS.values(), *(strange_graph(seed)[:3] for seed in range(25))]


@pytest.mark.parametrize("protocol", list(PRESETS))
def test_nodes_that_passes_make_get_names_that_nobody_has(protocol):
    """Every name that a pass gives is given to some other node before: plans differ by names only."""
    clashes = 0
    for made, weights, x in CLASHING:
        try:
            before = plan(made, protocol)
        except GraphError:
            continue
        own = {node.name for node in made}
        for name in [node.name for node in before.graph if node.name not in own]:
            # The input's name only: passes never look at it, and they name nothing after it.
            clash = renamed(made, made.input.name, name)
            after = plan(clash, protocol)
            clashes += 1
            assert [step.cost for step in after.steps] == [step.cost for step in before.steps]
            assert [n.kind for n in after.graph] == [n.kind for n in before.graph]
            assert f"{name}2" in after.graph
            got = every_value_slowly(after.graph, weights, x)[after.graph.output.name]
            wanted = every_value_slowly(made, weights, x)[made.output.name]
            np.testing.assert_array_equal(got, wanted)

    assert clashes > 20


def test_a_fresh_name_is_the_name_itself_or_has_the_first_number_that_nobody_has():
    assert fresh("a.tr", ()) == "a.tr"
    assert fresh("a.tr", {"a.tr", "a.tr2", "a.tr4"}) == "a.tr3"
