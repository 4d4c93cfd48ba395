"""The light models of the package onnx, and small ones: imported, agreeing, quantized, planned, run."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from light_models import PLAIN, SIDE, WITH_NORMALISATION, light
from networks import run_both
from onnx_models import NETWORKS

from nets.data import integer_input
from nets.export import export
from nets.importing.agreement import check_agreement, random_inputs
from nets.importing.onnx import read_onnx
from nets.quantized import QuantNet, Widths, calibrate
from pqjax.graph import reference
from pqjax.planner import plan


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PLAIN, *WITH_NORMALISATION])
def test_all_light_models_agree_with_their_runtime(name):
    """Those with LRN without it, on both sides."""
    net = read_onnx(light(name), replace=("LRN",))

    assert net.architecture.image == (SIDE, SIDE, 3) and net.architecture.classes == 1000
    assert ("replaced" in net.source) == (name in WITH_NORMALISATION)
    check_agreement(net, random_inputs(net, 1))


@functools.cache
def integers(name, side):
    """A model's graph and weights, and pictures. Sums of 4,608 terms take 26 bits, which f32 has not."""
    model = NETWORKS[name](13) if name in NETWORKS else light(name, side)
    net = read_onnx(model)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *net.architecture.image))
    x = integer_input(pixels.astype(np.uint8), net.architecture.zero)
    student = QuantNet(net.architecture, Widths.parse("W8A8", net.architecture))
    calibrate(student, net.of_integers(), jnp.asarray(x))
    graph, weights = export(student, exact=False)
    wanted = net.outputs(net.pixels.real(pixels[:2]))
    found = reference(graph, weights, x[:2]) * 2.0**-graph.output.out.scale
    assert np.corrcoef(np.ravel(found), np.ravel(wanted))[0, 1] > 0.98
    return graph, weights, np.asarray(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_light_models_without_lrn_are_quantized_and_planned(name):
    graph, _, _ = integers(name, 64)

    assert plan(graph, "pqjax").cost().bits > 0


def test_shuffled_and_joined_channels_are_nodes_of_the_graph():
    kinds = {node.kind for node in integers("branched", 32)[0]}

    assert {"Take", "Concat", "Pad", "MaxPool", "Add"} <= kinds


@pytest.mark.slow
@pytest.mark.parametrize("name", ["branched", "squeezenet", "shufflenet"])
def test_networks_with_shuffled_and_joined_channels_run_between_two_parties(name):
    """Both parties' answer is the integers' own, bit for bit."""
    graph, weights, x = integers(name, 32)

    _, (y, *_) = run_both(plan(graph, "pqjax"), weights, x[0], deadline_s=600.0)

    np.testing.assert_array_equal(y, reference(graph, weights, x[0]))
