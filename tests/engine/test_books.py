"""Every inference of a session is entered under its number and costs what was predicted."""

import copy
from typing import Any

import numpy as np
import pytest
from networks import random_network
from serving import GRAPH, WEIGHTS, X, serving

import pqjax
from pqjax.engine import ServedModel
from pqjax.errors import GraphError
from pqjax.planner import PRESETS
from pqjax.planner.plan import STOCK_LAYER
from pqjax.wire.handshake import Asked
from pqjax.wire.trace import Trace

ORDERS = ("iii", "ppipiip")  # p prepares; i infers, and prepares first where nothing is in store


def session_in(order, made):
    """A session: the results, the client's trace and the server's."""
    with serving(plan=made) as (address, ends):
        with pqjax.connect(address, plan=made) as session:
            steps = [session.prepare() if step == "p" else session.infer(X) for step in order]
        return [each for each in steps if each], session.trace, ends.get(timeout=60)


@pytest.fixture(scope="module", params=["pqjax", "sirnn"])
def made(request):
    return pqjax.plan(GRAPH, request.param)


@pytest.fixture(scope="module", params=ORDERS)
def run(request, made):
    return made, request.param, *session_in(request.param, made)


def lines(trace):
    return [(e.phase, e.layer) for e in trace.entries]


def test_every_inference_at_both_ends_costs_what_was_predicted(run):
    made, order, results, client, server = run

    for rank, trace in enumerate((server, client)):
        asked = trace.inferences[: order.count("i")]
        for number, each in enumerate(asked):
            assert lines(each) == [(line.phase, line.layer) for line in made.schedule(number)]
            assert made.differences(each, rank) == []
        assert made.differences(trace, rank) == []
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result.output, pqjax.reference(GRAPH, WEIGHTS, X))
        assert result.trace.entries == client.of(number).entries
        assert made.differences(result.trace, 1) == []


def test_what_was_prepared_and_not_asked_for_is_in_the_books(run):
    made, order, _, client, server = run

    for rank, trace in enumerate((server, client)):
        rest = trace.inferences[order.count("i") :]
        assert len(rest) == max(order.count("p") - order.count("i"), 0)
        for each in rest:
            assert {e.phase for e in each.entries} == {"offline"}
            missed = made.differences(each, rank)  # on its own it is no whole inference
            assert missed and all(
                "online" in text and "not in the trace" in text for text in missed
            )


def test_entries_of_a_session_are_numbered_and_nothing_is_in_two_inferences(run):
    *_, client, server = run

    for trace in (client, server):
        assert [e.number for e in trace.entries] == list(range(len(trace.entries)))
        assert [e.number for e in trace.entries if e.inference is None] == [len(trace.entries) - 1]
        parts = [e.number for each in trace.inferences for e in each.entries]
        assert sorted(parts) == list(range(len(trace.entries) - 1))


def test_any_bit_and_any_clock_that_departs_is_found(run):
    made, order, _, client, server = run

    for rank, session in enumerate((server, client)):
        for trace in (session, *session.inferences[: order.count("i")]):
            for at, entry in enumerate(trace.entries):
                if entry.inference is None:
                    continue
                for field in ("sent_bits", "received_bits", "clock_after"):
                    bent = Trace(copy.copy(e) for e in trace.entries)
                    setattr(bent.entries[at], field, getattr(entry, field) + 1)
                    found = made.differences(bent, rank)
                    if trace is session or entry.layer != "begin" or field != "clock_after":
                        name = f"inference {entry.inference}: " * (entry.inference > 0)
                        where = f"{name}{entry.phase} {entry.layer}: "
                        assert len(found) == 1 and found[0].startswith(where), (found, entry)
                    else:  # clocks count from there if what ran before is not in the trace
                        assert found, entry


def test_entries_that_are_missing_doubled_or_of_another_inference_are_found(run):
    made, _, _, client, server = run

    for rank, trace in enumerate((server, client)):
        for at, entry in enumerate(trace.entries[:-1]):
            before, after = trace.entries[:at], trace.entries[at + 1 :]
            other = copy.copy(entry)
            other.inference += 1
            for bent in (
                [*before, *after],
                [*before, entry, entry, *after],
                [*before, other, *after],
            ):
                assert made.differences(Trace(bent), rank), (entry, len(bent))
    assert made.differences(Trace(), 1)[0] == "setup ot: not in the trace"
    assert made.differences(Trace([*client.entries, client.entries[-2]]), 1)


@pytest.mark.parametrize("protocol", list(PRESETS))
def test_later_inferences_cost_the_same_without_the_setup(protocol):
    made = pqjax.plan(random_network(1)[0], protocol)

    assert made.schedule()[0].phase == "setup"
    pool, source = (0, 0), made.preset.source
    for number in range(9):  # pqjax's rounds leave some over, so that not every inference has one
        lines = made.schedule(number)[not number :]
        made_ots = [line.cost for line in lines if line.layer == STOCK_LAYER]
        cost, pool = source.fill(pool, made.rots)
        assert made_ots == [cost]
        others = [line for line in lines if line.layer != STOCK_LAYER]
        assert others == [line for line in made.schedule()[1:] if line.layer != STOCK_LAYER]
    assert source.fill(pool, (0, 0))[1] == pool


def test_a_served_model_is_checked_once_and_cannot_be_changed():
    made = pqjax.plan(GRAPH)
    model = ServedModel.of(made, WEIGHTS)
    name = next(iter(WEIGHTS))

    anything: Any = model
    layer = anything.own.layers[name.split("/")[0]]
    for array in (layer.encoded.weights, layer.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(TypeError):
        anything.own.layers[name] = layer
    with pytest.raises(AttributeError):
        anything.plan = made
    assert WEIGHTS[name].flags.writeable  # the caller's own array is left alone
    for bad in ({}, {**WEIGHTS, name: WEIGHTS[name][..., :-1]}):
        with pytest.raises(GraphError):
            ServedModel.of(made, bad)


def test_a_model_that_was_checked_is_served_as_it_is():
    model = ServedModel.of(pqjax.plan(GRAPH), WEIGHTS)
    server = pqjax.Server(model, None, "127.0.0.1:0")

    assert server._catalogue.find(Asked()) is model
    server.close()
    with pytest.raises(GraphError):
        pqjax.Server(model.plan, None, "127.0.0.1:0")
