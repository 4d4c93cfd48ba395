"""ResNet32's shape: what it costs under every preset, and that both parties agree with the plan."""

import pathlib

import numpy as np
import pytest
from networks import resnet32, run_both

import pqjax
from pqjax.planner import PRESETS

CHECKPOINTS = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"
GRAPH, WEIGHTS, X = resnet32(3)


def gibibytes(protocol):
    return pqjax.plan(GRAPH, protocol).cost().bits / 8 / 2**30


def test_w3a6_stays_below_the_limits():
    assert gibibytes("privquant") <= 0.90
    assert gibibytes("pqjax") <= 0.60


def test_the_committed_network_stays_below_the_limits():
    graph, _, _ = pqjax.load_model(CHECKPOINTS / "resnet32_w3a6.npz")

    assert pqjax.plan(graph, "privquant").cost().bits <= 0.90 * 8 * 2**30
    assert pqjax.plan(graph, "pqjax").cost().bits <= 0.60 * 8 * 2**30


def test_each_system_costs_less_than_the_one_before():
    costs = [gibibytes(p) for p in ("cryptflow2", "sirnn-choice1", "sirnn", "privquant", "pqjax")]

    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("protocol", list(PRESETS))
def test_passes_keep_the_reference_of_a_whole_network(protocol):
    made = pqjax.plan(GRAPH, protocol)

    np.testing.assert_array_equal(
        pqjax.reference(made.graph, WEIGHTS, X), pqjax.reference(GRAPH, WEIGHTS, X)
    )


@pytest.mark.slow
@pytest.mark.parametrize("protocol", list(PRESETS))
def test_both_parties_agree_with_plan_and_reference(protocol):
    made = pqjax.plan(GRAPH, protocol)

    (_, trace0, _), (y, trace1, _) = run_both(made, WEIGHTS, X, deadline_s=300.0)

    np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
