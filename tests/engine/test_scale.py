"""Large networks: steps run in tiles, and random OTs are made where they are used."""

import dataclasses

import numpy as np
import pytest
from networks import EXACT, Builder, random_network, resnet32, run_both
from pairs import left_over, stored

import pqjax
from pqjax.graph import Graph, MaxPool, TensorType
from pqjax.ot.silent import Silent
from pqjax.ot.stocked import Stocked
from pqjax.ot.tuning import Tuning
from pqjax.planner import PRESETS, plan, read_plan

STREAMED = Tuning(stream_above=0)


def tuned(protocol, tuning):
    return dataclasses.replace(PRESETS[protocol], tuning=tuning)


def residual(seed):
    """Sums of what was cut and widened."""
    return resnet32(3, seed=seed, blocks=1, stages=(4, 4, 8))


def pooled(seed):
    """Maxima over windows that overlap."""
    rng = np.random.default_rng(seed)
    made = Builder(rng, (40, 36, 3), 5, True)
    made.conv_like(made.last)
    made.requantize(TensorType((1,), 5, made.last.out.scale - 3, nonnegative=seed == 3))
    out = dataclasses.replace(made.last.out, shape=(39, 35, 3))
    made.add(MaxPool, out, window=(2, 2), stride=(1, 1))
    return Graph(tuple(made.nodes)), made.weights, rng.integers(-16, 16, (40, 36, 3))


@pytest.mark.parametrize("protocol", list(EXACT))
@pytest.mark.parametrize("seed", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "network,kinds",
    [(residual, ({"Clamp", "Extend", "Relu"}, {"Saturate"})), (pooled, ({"MaxPool"}, {"MaxPool"}))],
)
def test_tiles_and_streams_are_exact_and_cost_what_was_predicted(network, kinds, seed, protocol):
    graph, weights, x = network(seed)
    made = plan(graph, tuned(protocol, dataclasses.replace(STREAMED, tile_elements=1 << 10)))

    stocked = isinstance(PRESETS[protocol].source, Stocked)
    tile = made.setting.tuning.tile_elements
    assert kinds[stocked] <= {s.node.kind for s in made.steps if s.node.out.n > 3 * tile}
    (_, trace0, party0), (y, trace1, _) = run_both(made, weights, x)

    assert made.streamed is stocked
    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
    assert read_plan(made.document).schedule() == made.schedule()
    assert stored(party0) == left_over(made, party0)


def test_streaming_sends_as_many_bits_and_stores_none_ahead():
    graph, _, _ = resnet32(3, blocks=1)
    preset = dataclasses.replace(PRESETS["pqjax"], source=Silent(("b11", "b10")))
    streamed = plan(graph, dataclasses.replace(preset, tuning=STREAMED))

    ahead = plan(graph, preset)
    assert not ahead.streamed and streamed.rots == ahead.rots
    assert streamed.cost("offline", "random ots").bits == 0
    assert streamed.cost("online", "random ots") == ahead.cost("offline", "random ots")
    assert streamed.cost().bits == ahead.cost().bits


def test_small_networks_are_not_streamed():
    made = plan(random_network(1)[0])

    assert not made.streamed and sum(made.rots) > 0
