"""Plans: their sums, tables, documents and digests, and the published figures they must meet."""

import dataclasses
import json

import numpy as np
import pytest
from networks import mini_onn, random_network

from pqjax.errors import PlanError
from pqjax.graph import Conv, Dense, Graph, reference
from pqjax.ot.tuning import Tuning
from pqjax.planner import PRESETS, plan, read_plan
from pqjax.protocols.forms import Forms
from pqjax.wire.cost import total
from pqjax.wire.link import Link
from pqjax.wire.trace import PHASES

GIB = 2**33  # bits
WIDE = Link(mbps=200, rtt_ms=13)


@pytest.mark.parametrize("protocol", sorted(PRESETS))
@pytest.mark.parametrize("seed", range(4))
def test_a_plan_costs_the_sum_of_its_layers_and_phases(seed, protocol):
    made = plan(random_network(seed)[0], protocol)

    layers = list(dict.fromkeys(line.layer for line in made.schedule()))

    assert made.cost() == total([line.cost for line in made.schedule()])
    assert made.cost().bits == sum(made.cost(layer=layer).bits for layer in layers)
    assert made.cost().bits == sum(made.cost(p).bits for p in PHASES)
    assert made.cost().bits == sum(made.cost().sent)


@pytest.mark.parametrize("protocol", sorted(PRESETS))
def test_the_table_has_a_line_for_every_layer_and_a_total(protocol):
    made = plan(random_network(5)[0], protocol, WIDE)

    lines = made.table().splitlines()

    for node in made.graph:
        assert sum(line.split()[:1] == [node.name] for line in lines) == 1, node.name
    assert lines[-1].split()[0] == "total"
    assert lines[-1].split()[-1] == f"{made.predicted(inference=0)['online']:.3f}"
    assert len(lines) >= 2 + len(made.graph.nodes)


def test_seconds_need_a_link():
    made = plan(random_network(1)[0])

    with pytest.raises(PlanError, match="no link"):
        made.seconds()
    assert made.seconds(WIDE) > made.seconds(Link(mbps=1000, rtt_ms=1)) > 0


@pytest.mark.parametrize("protocol", sorted(PRESETS))
@pytest.mark.parametrize("link", [None, WIDE])
@pytest.mark.parametrize("seed", range(3))
def test_the_document_makes_the_same_plan_again(seed, link, protocol):
    made = plan(random_network(seed)[0], protocol, link)

    again = read_plan(made.document)

    assert again.document == made.document and again.digest == made.digest
    assert again == made and again.schedule() == made.schedule()
    assert again.source == again.graph == made.graph


def test_the_digest_changes_with_anything():
    graph, _, _ = random_network(4)
    linear = next(node for node in graph if isinstance(node, (Conv, Dense)))
    wider = dataclasses.replace(linear, weight_bits=linear.weight_bits + 1)
    chosen = plan(graph).step(linear.name).variant
    other = next(v for v in ("full-choose-x", "full-choose-w") if v != chosen)
    renamed = Graph.from_json(graph.to_json().replace('"image"', '"picture"'))
    plans = [
        plan(graph),
        plan(graph, "privquant"),
        plan(graph, link=WIDE),
        plan(graph, link=dataclasses.replace(WIDE, rtt_ms=14)),
        plan(graph, variants={linear.name: other}),
        plan(graph, dataclasses.replace(PRESETS["pqjax"], tuning=Tuning(tile_elements=1 << 16))),
        plan(graph, dataclasses.replace(PRESETS["pqjax"], forms=Forms("choice"))),
        plan(Graph(tuple(wider if node is linear else node for node in graph))),
        plan(renamed),
        plan(graph, classes=list("abcde")),
    ]

    assert len({made.digest for made in plans}) == len(plans)
    assert plan(graph).digest == plans[0].digest


@pytest.mark.parametrize("seed", range(3))
def test_damaged_documents_are_no_plans(seed):
    document = plan(random_network(seed)[0]).document
    tree = json.loads(document)
    altered = [
        {**tree, "format": 1},
        {**tree, "classes": [1]},
        {**tree, "protocol": []},
        {**tree, "link": {"mbps": 1}},
        {**tree, "graph": {}},
        {**tree, "graph": []},
        {**tree, "choices": {}},
        {
            **tree,
            "choices": {**tree["choices"], "no such layer": next(iter(tree["choices"].values()))},
        },
        {**tree, "version": "9.9.9", "cost": {"bits": [0, 0], "flows": 0}},
        {key: value for key, value in tree.items() if key != "graph"},
        {**tree, "extra": 1},
        {**tree, "shorter": 1 << 40},
    ]
    documents = [json.dumps(t, sort_keys=True, separators=(",", ":")).encode() for t in altered]
    documents += [document[:-1], document + b" ", b"\xff\xfe", b"null", b"[" * 100_000]

    for damaged in documents:
        with pytest.raises(PlanError):
            read_plan(damaged)


def test_minionn_costs_what_is_published_and_ours_at_most_a_quarter_gib():
    graph, _, _ = mini_onn()

    published, ours = (plan(graph, name).cost().bits / GIB for name in ("privquant", "pqjax"))

    assert published == pytest.approx(0.42, rel=0.05)
    assert ours <= 0.25


def test_lowering_keeps_the_reference_of_minionn():
    graph, weights, x = mini_onn()
    wanted = reference(graph, weights, x)

    for protocol in PRESETS:
        lowered = plan(graph, protocol).graph
        np.testing.assert_array_equal(reference(lowered, weights, x), wanted)
