import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nets.augment import augment
from nets.loop import Images, Schedule, fit
from pqjax.errors import CheckpointError

SCHEDULE = Schedule(epochs=2, batch=8, seed=5, evaluate_every=1, save_every=3)


def toy_task():
    """A linear classifier with momentum: small, but with optimizer state like the real ones."""

    def forward(w, x):
        return x.reshape(len(x), -1).astype(jnp.float32) / 128 @ w

    @jax.jit
    def step(state, x, y):
        def loss_of(w):
            return -jax.nn.log_softmax(forward(w, x))[jnp.arange(len(y)), y].mean()

        loss, gradient = jax.value_and_grad(loss_of)(state["w"])
        momentum = 0.9 * state["m"] + gradient
        return {"w": state["w"] - 0.01 * momentum, "m": momentum}, {"loss": loss, "accuracy": loss}

    zeros = jnp.zeros((48, 3))
    return {"w": zeros, "m": zeros}, step, jax.jit(lambda state, x: forward(state["w"], x))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (44, 4, 4, 3)).astype(np.uint8), rng.integers(0, 3, 44))


def run(folder, images, stop_after=None, schedule=SCHEDULE):
    folder.mkdir(exist_ok=True)
    return fit(*toy_task(), images, images, schedule, folder, {"net": "toy"}, stop_after)


@pytest.mark.parametrize("stop_after", [1, 4, 5, 7])
def test_an_interrupted_run_ends_with_identical_parameters(tmp_path, images, stop_after):
    whole, curve = run(tmp_path / "whole", images)

    run(tmp_path / "parts", images, stop_after)
    resumed, resumed_curve = run(tmp_path / "parts", images)

    np.testing.assert_array_equal(whole["w"], resumed["w"])
    np.testing.assert_array_equal(whole["m"], resumed["m"])
    for one, other in zip(curve["epochs"], resumed_curve["epochs"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_the_curve_is_a_json_file(tmp_path, images):
    _, curve = run(tmp_path / "run", images)

    stored = json.loads((tmp_path / "run" / "curve.json").read_text())
    assert [entry["epoch"] for entry in stored["epochs"]] == [1, 2]
    assert stored["epochs"] == curve["epochs"]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, images):
    run(tmp_path / "run", images, stop_after=2)

    with pytest.raises(CheckpointError, match="another configuration"):
        run(tmp_path / "run", images, schedule=dataclasses.replace(SCHEDULE, seed=6))


def test_a_truncated_state_is_a_checkpoint_error(tmp_path, images):
    run(tmp_path / "run", images, stop_after=2)
    file = tmp_path / "run" / "state.npz"
    file.write_bytes(file.read_bytes()[:-40])

    with pytest.raises(CheckpointError):
        run(tmp_path / "run", images)


def test_augmentation_is_a_function_of_the_generator(images):
    one, other = (augment(images.images, np.random.default_rng(9), 128) for _ in range(2))

    np.testing.assert_array_equal(one, other)
    assert one.shape == images.images.shape
    assert one.dtype == np.uint8
    assert not np.array_equal(one, images.images)


def test_augmentation_moves_pixels_and_invents_none():
    image = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1)

    seen = [augment(image, np.random.default_rng(i), 0, 0.0) for i in range(20)]

    for out in seen:
        kept = out[out > 0]
        assert len(np.unique(kept)) == len(kept)
        assert np.isin(kept, image).all()


@pytest.mark.parametrize(("part", "steps"), [(1.0, 8), (0.5, 4), (0.3, 2)])
def test_an_epoch_may_see_a_part_of_the_set(part, steps):
    assert Schedule(epochs=1, batch=16, part=part).steps(130) == steps


@pytest.mark.parametrize("part", [0.0, 1.5, 0.1])
def test_a_part_without_a_batch_is_refused(part):
    with pytest.raises(ValueError, match="part|batch"):
        Schedule(epochs=1, batch=16, part=part).steps(130)
