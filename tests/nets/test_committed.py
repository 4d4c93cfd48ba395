"""The networks in nets/checkpoints: readable, small, and of the architecture they claim."""

import json
import pathlib

import numpy as np
import pytest

from nets.architecture import ARCHITECTURES
from nets.data import integer_input
from nets.pretrain import FloatRecipe, float_task, load_float, warm_started
from pqjax.graph import Conv, Dense, load_model, reference

FOLDER = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"
QUANTIZED = sorted(p for p in FOLDER.glob("*.npz") if "float" not in p.name)
FLOATING = sorted(FOLDER.glob("*_float*.npz"))


@pytest.mark.parametrize("path", QUANTIZED, ids=lambda p: p.name)
def test_a_quantized_network_is_small_and_runs(path):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)

    graph, weights, meta = load_model(path)

    assert path.stat().st_size < (8_000_000 if "resnet18" in path.name else 300_000)
    architecture = ARCHITECTURES[path.name.split("_")[0]]
    layers = [node for node in graph if isinstance(node, Conv | Dense)]
    assert [node.name for node in layers] == [layer.name for layer in architecture.layers]
    assert [node.weight_bits for node in layers] == meta["config"]["widths"]["weights"]
    answers = reference(graph, weights, integer_input(images))
    assert answers.shape == (2, architecture.classes)


@pytest.mark.parametrize("path", FLOATING, ids=lambda p: p.name)
def test_a_float_network_can_be_trained_on(path):
    architecture = ARCHITECTURES[path.name.split("_")[0]]
    net, _ = load_float(path, architecture)
    fresh, _, _ = float_task(architecture, FloatRecipe(), steps=10, seed=0)

    state = warm_started(architecture, fresh, path)

    np.testing.assert_array_equal(state["params"]["kernel"], net.kernel[...])
    assert path.stat().st_size < 1_000_000


def test_every_network_has_its_curve():
    networks = {path.stem for path in FOLDER.glob("*.npz")}
    curves = {path.name.removesuffix(".curve.json"): path for path in FOLDER.glob("*.curve.json")}

    assert curves.keys() - networks == {"resnet18_float"}  # too large for the repository
    assert networks <= curves.keys()
    for path in curves.values():
        curve = json.loads(path.read_text())
        assert curve["epochs"][-1]["epoch"] == curve["config"]["schedule"]["epochs"]
