"""Walks over graphs are linear and do not recurse; edits are as if the graph had been made anew."""

import dataclasses
import time
import typing

import pytest
from hostile import refused
from networks import random_network

from pqjax.errors import GraphError, PlanError
from pqjax.graph import (
    Add,
    Conv,
    Dense,
    Extend,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Node,
    Relu,
    Requantize,
    TensorType,
    TruncateReduce,
    validate,
)
from pqjax.graph import passes as all_passes
from pqjax.graph.draft import Draft, Edit, Trial
from pqjax.graph.passes import LOWER, own_input
from pqjax.graph.rewrite import Pass
from pqjax.graph.widths import widths_of, with_widths
from pqjax.planner import PRESETS, plan, read_plan

PROTOCOLS = list(PRESETS)
SITES = [p for p in vars(all_passes).values() if isinstance(p, Pass) and p.site]


def rebuilt(graph, edit):
    """The slow twin of a draft: the whole graph made anew for one edit."""
    nodes = []
    for node in graph:
        if node.name in edit.replace:
            nodes += edit.replace[node.name]
        else:
            sources = tuple(edit.redirect.get(source, source) for source in node.sources)
            nodes.append(dataclasses.replace(node, sources=sources))
    return Graph(tuple(nodes))


@pytest.mark.parametrize("seed", range(12))
def test_a_draft_is_edited_as_if_the_graph_were_made_anew(seed):
    graph = LOWER(random_network(seed)[0], lambda g, n: 0.0)
    draft, edits = Draft(graph), 0

    for _ in range(2):
        for each in SITES:
            assert each.site is not None
            for name in [node.name for node in graph]:
                edit = each.site(typing.cast(Graph, draft), draft[name]) if name in draft else ""
                if isinstance(edit, str):
                    continue
                trial = Trial(draft, edit)
                draft.make(edit)
                graph = rebuilt(graph, edit)
                edits += 1
                assert draft.graph() == graph and draft.output == graph.output
                assert (
                    draft.input == graph.input
                    and {name: tuple(nodes) for name, nodes in draft.readers.items()}
                    == graph.readers
                )
                for node in graph:
                    assert trial[node.name] == node
                    assert [trial.source(node, i) for i in range(len(node.sources))] == [
                        graph.source(node, i) for i in range(len(node.sources))
                    ]
                names = [node.name for node in graph]
                assert all(draft.before(a, b) for a, b in zip(names, names[1:], strict=False))
    assert edits


def test_a_draft_reads_all_that_a_graph_does():
    graph = random_network(0)[0]
    written = {"nodes", "tree", "to_json", "from_json", "from_tree", "check_bounds", "parameters"}

    reading = {name for name in dir(graph) if not name.startswith("_")} - written

    assert reading <= set(dir(Draft(graph)))


def test_an_edit_that_would_give_two_nodes_one_name_or_ask_for_what_is_gone_is_refused():
    graph = LOWER(random_network(0)[0], lambda g, n: 0.0)
    first, second = graph.nodes[1:3]

    with pytest.raises(GraphError, match="unique"):
        Draft(graph).make(Edit({second.name: (dataclasses.replace(second, name=first.name),)}))
    with pytest.raises(GraphError, match="no node named 'nobody'"):
        Draft(graph).make(Edit({"nobody": ()}))
    dropped = Draft(graph)
    dropped.make(Edit({first.name: ()}))
    with pytest.raises(GraphError, match="not an earlier node"):
        dropped.graph()


def test_a_dropped_output_leaves_the_node_before_it():
    graph = LOWER(random_network(0)[0], lambda g, n: 0.0)
    draft = Draft(graph)

    draft.make(Edit({graph.output.name: ()}))

    assert draft.output == draft.graph().output == graph.nodes[-2]


def test_what_a_walk_remembers_ends_with_the_structure_it_was_true_of():
    graph = LOWER(random_network(0)[0], lambda g, n: 0.0)
    node = graph.nodes[1]
    draft = Draft(graph)
    draft.memo["x"] = 1

    wider = dataclasses.replace(node, out=dataclasses.replace(node.out, bits=60))
    draft.make(Edit({node.name: (wider,)}))
    assert draft.memo
    draft.make(Edit({node.name: (dataclasses.replace(node, widths="empirical"),)}))
    assert not draft.memo


def test_an_edit_that_needs_a_65th_bit_is_not_made():
    wide = TensorType((4, 4, 2), 64, 3)
    nodes = [
        Input("x", (), TensorType((4, 4, 2), 8, 0)),
        Conv("c", ("x",), wide, (1, 1), (1, 1), ((0, 0), (0, 0)), 4, 3),
        Relu("r", ("c",), dataclasses.replace(wide, nonnegative=True)),
        MaxPool(
            "p",
            ("r",),
            dataclasses.replace(wide, shape=(2, 2, 2), nonnegative=True),
            (2, 2),
            (2, 2),
        ),
    ]

    made = plan(Graph(tuple(nodes)), "pqjax")

    assert max(node.out.bits for node in made.graph) == 64


WIDE = TensorType((4,), 14, 4)
OPEN = Graph(
    (Input("x", (), TensorType((4,), 6, 2)), Dense("d", ("x",), WIDE, 4, 2, widths="empirical"))
).nodes


def behind(n, make):
    """n nodes behind an accumulator that may overflow, and a truncation that asks about all of them."""
    nodes = list(OPEN)
    for i in range(n):
        nodes.append(make(f"n{i}", nodes[-1].name))
    short = dataclasses.replace(nodes[-1].out, bits=10, scale=0)
    nodes.append(TruncateReduce("tr", (nodes[-1].name,), short, 4))
    return Graph(tuple(nodes))


CHAINS = {
    "doubled": lambda name, x: Add(name, (x, x), WIDE),
    "flattened": lambda name, x: Flatten(name, (x,), WIDE),
    "relu": lambda name, x: Relu(name, (x,), WIDE),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", list(CHAINS))
def test_long_chains_are_planned(kind, protocol):
    """45 doublings once took 2^45 steps; a thousand nodes more than Python recurses."""
    graph = behind(1100, CHAINS[kind])
    validate(graph)
    if any(
        "uniform" in each.name for each in PRESETS[protocol].passes
    ):  # that ring would make other values of what may overflow
        with pytest.raises(GraphError, match="is measured"):
            plan(graph, protocol)
        return

    made = plan(graph, protocol)

    assert len(made.graph.nodes) >= 1000 and refused(made.document) is None


def layered(n):
    """Convolutions, ReLUs and requantizations, about n nodes; widths repeat every few layers."""
    nodes: list[Node] = [Input("x", (), TensorType((4, 4, 2), 6, 2))]
    while len(nodes) < n - 2:
        i = len(nodes)
        acc = TensorType((4, 4, 2), 12 + i // 3 % 2, 4)
        margins = ((0, 0), (0, 0))
        nodes.append(Conv(f"c{i}", (nodes[-1].name,), acc, (1, 1), (1, 1), margins, 4, 2))
        nodes.append(Relu(f"r{i}", (f"c{i}",), dataclasses.replace(acc, nonnegative=True)))
        nodes.append(Requantize(f"q{i}", (f"r{i}",), nodes[0].out))
    return Graph(tuple(nodes))


def residual(n):
    """Additions of what is narrowed and widened again, about n nodes."""
    wide = TensorType((4,), 7, 2)
    nodes = [
        Input("x", (), dataclasses.replace(wide, bits=6)),
        Requantize("w", ("x",), wide, "wrap"),
    ]
    while len(nodes) < n - 2:
        i, last = len(nodes), nodes[-1].name
        nodes.append(Requantize(f"h{i}", (last,), nodes[0].out))
        nodes.append(Requantize(f"v{i}", (f"h{i}",), wide, "wrap"))
        nodes.append(Requantize(f"w{i}", (f"h{i}",), wide, "wrap"))
        nodes.append(Add(f"a{i}", (f"v{i}", f"w{i}"), wide))
    return Graph(tuple(nodes))


def fanned(n):
    """Extensions of extensions, sixty of each."""
    nodes: list[Node] = [Input("x", (), TensorType((4,), 6, 2))]
    for i in range(n - 1):
        source = nodes[i // 60]
        out = dataclasses.replace(source.out, bits=min(64, source.out.bits + 1 + i % 7))
        nodes.append(Extend(f"e{i}", (source.name,), out))
    return Graph(tuple(nodes))


def test_networks_of_2000_nodes_are_read_within_the_deadline():
    """A generous one: quadratic passes took half a minute."""
    for graph, protocol in (
        (layered(2000), "pqjax"),
        (residual(2000), "privquant"),
        (fanned(2000), "pqjax"),
    ):
        made = plan(graph, protocol)

        assert refused(made.document, deadline_s=20.0) is None


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shape", [layered, residual, fanned])
def test_networks_of_4000_nodes_take_seconds(shape, protocol):
    document = plan(shape(4000), protocol).document
    before = time.process_time()

    assert refused(document) is None

    assert time.process_time() - before < 8


def test_planning_ends_at_its_deadline():
    document = plan(layered(500)).document

    assert refused(document, deadline_s=None) is None
    with pytest.raises(PlanError, match="planning takes longer than the 0.01 s allowed"):
        read_plan(document, deadline_s=0.01)


def test_a_chain_of_a_thousand_flattens_is_the_clients_own_input():
    vector = TensorType((4,), 6, 2)
    nodes = [Input("x", (), vector)]
    nodes += [
        Flatten(f"f{i}", (nodes[-1].name if not i else f"f{i - 1}",), vector) for i in range(1500)
    ]
    graph = Graph((*nodes, Dense("d", ("f1499",), TensorType((4,), 14, 4), 4, 2)))

    assert own_input(graph, graph["d"])


def test_a_residual_that_is_aligned_a_thousand_nodes_later_can_be_given_other_widths():
    narrow, acc = TensorType((2, 2, 2), 6, 2), TensorType((2, 2, 2), 16, 4)
    nodes = [
        Input("x", (), narrow),
        Requantize("r", ("x",), narrow),
        Requantize("short", ("r",), acc),
    ]
    for i in range(600):
        source = "r" if not i else f"q{i - 1}"
        nodes.append(Conv(f"c{i}", (source,), acc, (1, 1), (1, 1), ((0, 0), (0, 0)), 4, 2))
        nodes.append(Requantize(f"q{i}", (f"c{i}",), narrow))
    nodes[-1] = Add("sum", ("c599", "short"), acc)
    graph = Graph(tuple(nodes))
    widths = widths_of(graph)

    made = with_widths(graph, widths)

    assert made == graph
    loop = [*nodes[:3], Relu("after", ("short",), acc), Add("sum", ("short", "after"), acc)]
    with pytest.raises(GraphError, match="aligned to what is made of it"):
        with_widths(Graph(tuple(loop)), widths_of(Graph(tuple(loop))))
