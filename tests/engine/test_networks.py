"""execute == reference and meter == cost, on random networks with both presets."""

import numpy as np
import pytest
from networks import ENCRYPTED, EXACT, MERGED, random_network, run_both
from pairs import left_over, stored

import pqjax
from pqjax.engine.execute import Preparation
from pqjax.errors import InputError, OutOfCorrelations
from pqjax.planner import plan

RUNS = {**EXACT, "encrypted": ENCRYPTED, "merged": MERGED}


@pytest.mark.parametrize("run", list(RUNS))
@pytest.mark.parametrize("seed", range(2))
def test_random_networks_are_exact_and_cost_what_was_predicted(seed, run):
    graph, weights, x = random_network(seed)
    made = plan(graph, RUNS[run])

    (_, trace0, party0), (y, trace1, party1) = run_both(made, weights, x)

    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
    for party in (party0, party1):
        assert stored(party) == left_over(made, party)
        sent, _ = party.messenger.trace.bytes()
        assert sent == party.messenger.wire.sent_bytes


@pytest.mark.slow
@pytest.mark.parametrize("run", list(RUNS))
@pytest.mark.parametrize("seed", range(2, 30))
def test_many_more_random_networks(seed, run):
    test_random_networks_are_exact_and_cost_what_was_predicted(seed, run)


def test_random_networks_have_layers_whose_hints_are_merged():
    merged = [plan(random_network(seed)[0], MERGED).secrets.merging for seed in range(4)]

    assert all(merged)


def test_run_local_gives_the_reference_and_a_trace():
    graph, weights, x = random_network(3)
    made = pqjax.plan(graph, "pqjax", pqjax.Link(mbps=200, rtt_ms=13))

    result = pqjax.run_local(made, weights, x)

    np.testing.assert_array_equal(result.output, pqjax.reference(graph, weights, x))
    assert made.differences(result.trace, 1) == []
    assert made.seconds() > 0 and "total" in made.table()


def test_differences_are_found():
    graph, weights, x = random_network(2)
    made = plan(graph, "pqjax")
    (_, _, _), (_, trace, _) = run_both(made, weights, x)

    trace.entries[-2].sent_bits += 1
    trace.entries[3].clock_after += 1

    assert len(made.differences(trace, 1)) == 2


def test_a_preparation_is_used_once():
    made = Preparation()
    made.put("conv1", np.zeros(1))

    made.take("conv1")

    with pytest.raises(OutOfCorrelations, match="conv1"):
        made.take("conv1")


@pytest.mark.parametrize("protocol", ["pqjax", "privquant"])
def test_the_input_does_not_change_what_is_sent(protocol):
    graph, weights, x = random_network(1)
    made = plan(graph, protocol)
    zeros = {name: np.zeros_like(w) for name, w in weights.items()}

    runs = [run_both(made, w, v) for w, v in ((weights, x), (zeros, np.zeros_like(x)))]

    for rank in (0, 1):
        views = [
            [(e.layer, e.phase, e.sent_bits, e.received_bits, e.messages, e.clock_after)
             for e in run[rank][1].entries] for run in runs
        ]  # fmt: skip
        assert views[0] == views[1]


def test_bad_inputs_are_refused_before_anything_is_sent():
    graph, weights, x = random_network(0)
    made = plan(graph)

    for bad, text in (
        (x[:-1], "shape"),
        (x.astype(float), "dtype"),
        (np.full_like(x, 1000), "values must lie in"),
    ):
        with pytest.raises(InputError, match=text):
            pqjax.run_local(made, weights, bad)
    with pytest.raises(InputError, match="weights do not fit"):
        pqjax.run_local(made, {}, x)
