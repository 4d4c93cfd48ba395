"""The real training tasks, for a few steps on random images."""

import jax
import numpy as np
import pytest
from flax import nnx

from nets.architecture import MINIONN
from nets.data import integer_input
from nets.export import export
from nets.floating import FloatNet
from nets.loop import Images, Schedule, fit
from nets.pretrain import FloatRecipe, float_task
from nets.qat import QatRecipe, qat_task, student_of
from nets.quantized import Widths
from pqjax.graph import reference

SCHEDULE = Schedule(epochs=2, batch=8, seed=3, evaluate_every=2)
WIDTHS = Widths.parse("W2A4", MINIONN)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (16, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, 16))


@pytest.fixture(scope="module")
def quantized_task(images):
    teacher = FloatNet(MINIONN, nnx.Rngs(0))
    teacher(integer_input(images.images))  # moves the running statistics off their start
    teacher.eval()
    start, *functions = qat_task(teacher, WIDTHS, QatRecipe(), 4, integer_input(images.images))
    return jax.tree.map(np.asarray, start), *functions


@pytest.fixture(scope="module")
def floating_task():
    start, *functions = float_task(MINIONN, FloatRecipe(), 4, seed=0)
    return jax.tree.map(np.asarray, start), *functions


def run(task, folder, images, stop_after=None):
    folder.mkdir(exist_ok=True)
    start, step, logits = task
    start = jax.tree.map(jax.numpy.array, start)  # a step gives its input's memory away
    return fit(start, step, logits, images, images, SCHEDULE, folder, {}, stop_after)[0]


@pytest.mark.parametrize("name", ["quantized_task", "floating_task"])
def test_an_interrupted_run_ends_with_identical_parameters(name, request, images, tmp_path):
    task = request.getfixturevalue(name)
    whole = run(task, tmp_path / "whole", images)

    run(task, tmp_path / "parts", images, stop_after=1)
    resumed = run(task, tmp_path / "parts", images)

    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), whole["params"], task[0]["params"])
    assert any(jax.tree.leaves(moved))


def test_the_trained_network_is_the_integer_reference(quantized_task, images, tmp_path):
    state = run(quantized_task, tmp_path / "run", images)
    x = integer_input(images.images)

    graph, weights = export(student_of(MINIONN, WIDTHS, state["params"]))
    answer = reference(graph, weights, x)

    _, _, logits = quantized_task
    np.testing.assert_array_equal(logits(state, x) * 2.0**graph.output.out.scale, answer)
    names = [node.name for node in graph]
    assert names[:8] == ["input", "conv1", "relu1", "act1", "conv2", "relu2", "pool2", "act2"]
    assert names[-2:] == ["flatten", "fc"]
