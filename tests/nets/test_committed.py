"""The networks in nets/checkpoints: readable, small, and of the architecture they claim."""

import json
import os
import pathlib

import numpy as np
import pytest
from flax import nnx

from nets.architecture import ARCHITECTURES
from nets.data import integer_input, load_cifar
from nets.pretrain import FloatRecipe, float_task, load_float, warm_started
from nets.quantized import Widths
from nets.restore import restored
from pqjax.graph import load_model, reference

FOLDER = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"
QUANTIZED = sorted(p for p in FOLDER.glob("*.npz") if "float" not in p.name)


@pytest.mark.parametrize("path", QUANTIZED, ids=lambda p: p.name)
def test_a_quantized_network_is_small_and_runs(path):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)

    graph, weights, meta = load_model(path)

    assert path.stat().st_size < 300_000
    architecture = ARCHITECTURES[path.name.split("_")[0]]
    layers = [node for node in graph if node.kind in ("Conv", "Dense")]
    assert [node.name for node in layers] == [layer.name for layer in architecture.layers]
    assert [node.weight_bits for node in layers] == meta["config"]["widths"]["weights"]
    answers = reference(graph, weights, integer_input(images))
    assert answers.shape == (2, architecture.classes)


@pytest.mark.parametrize("name", ["minionn", "resnet32"])
def test_the_float_network_can_be_trained_on(name):
    path, architecture = FOLDER / f"{name}_float.npz", ARCHITECTURES[name]
    net, _ = load_float(path, architecture)
    fresh, _, _ = float_task(architecture, FloatRecipe(), steps=10, seed=0)

    state = warm_started(architecture, fresh, path)

    np.testing.assert_array_equal(state["params"]["kernel"], net.kernel[...])
    assert path.stat().st_size < 1_000_000


def test_every_network_has_its_curve():
    for path in FOLDER.glob("*.npz"):
        curve = json.loads(path.with_suffix(".curve.json").read_text())
        assert curve["epochs"][-1]["epoch"] == curve["config"]["schedule"]["epochs"]


def _restored(path):
    graph, weights, meta = load_model(path)
    architecture = ARCHITECTURES[path.name.split("_")[0]]
    settings = meta["config"]["widths"]
    widths = Widths(**{**settings, "weights": tuple(settings["weights"])})
    return graph, weights, restored(graph, weights, architecture, widths)


@pytest.mark.parametrize("path", QUANTIZED, ids=lambda p: p.name)
def test_the_trainable_network_gives_the_integers_of_the_graph(path):
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    graph, weights, net = _restored(path)

    accumulator, scale = net.accumulate(integer_input(images))

    np.testing.assert_array_equal(accumulator, reference(graph, weights, integer_input(images)))
    assert float(scale) == graph.output.out.scale


@pytest.mark.slow
@pytest.mark.skipif("PQJAX_DATA" not in os.environ, reason="needs CIFAR in PQJAX_DATA")
@pytest.mark.parametrize("path", QUANTIZED, ids=lambda p: p.name)
def test_both_decide_alike_over_the_whole_test_set(path):
    graph, weights, net = _restored(path)
    images, _ = load_cifar(net.architecture.data, "test")
    run = nnx.jit(lambda net, x: net(x).argmax(1))
    alike = 0
    for i in range(0, len(images), 250):
        x = integer_input(images[i : i + 250])
        alike += int((np.asarray(run(net, x)) == reference(graph, weights, x).argmax(1)).sum())

    assert alike == len(images)  # 99.9 % are asked for; nothing rounds differently
