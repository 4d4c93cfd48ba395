import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nets import loop
from nets.augment import Augmentation, augment
from nets.data import PIXEL_ZERO, integer_input
from nets.loop import Images, Schedule, advancing, fit
from pqjax.errors import CheckpointError

MIXING = Augmentation(erase=0.25, cutmix=0.4, mixup=0.4)
SCHEDULE = Schedule(epochs=2, batch=8, seed=5, evaluate_every=1, augmentation=MIXING)


def toy_task():
    """A linear classifier with momentum: small, but with optimizer state like the real ones."""

    def forward(w, x):
        return x.reshape(len(x), -1).astype(jnp.float32) / 128 @ w

    @jax.jit
    def step(state, x, y):
        def loss_of(w):
            return -(jax.nn.log_softmax(forward(w, x)) * y).sum(1).mean()

        loss, gradient = jax.value_and_grad(loss_of)(state["w"])
        momentum = 0.9 * state["m"] + gradient
        return {"w": state["w"] - 0.01 * momentum, "m": momentum}, {"loss": loss, "accuracy": loss}

    start = {name: jnp.zeros((48, 3)) for name in "wm"}
    return start, step, jax.jit(lambda state, x: forward(state["w"], x))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (44, 4, 4, 3)).astype(np.uint8), rng.integers(0, 3, 44))


def run(folder, images, stop_after=None, schedule=SCHEDULE):
    folder.mkdir(exist_ok=True)
    return fit(*toy_task(), images, images, schedule, folder, {"net": "toy"}, stop_after)


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 4, 5, 7])
def test_an_interrupted_run_ends_with_identical_parameters(tmp_path, images, stop_after):
    whole, curve = run(tmp_path / "whole", images)

    run(tmp_path / "parts", images, stop_after)
    resumed, resumed_curve = run(tmp_path / "parts", images)

    np.testing.assert_array_equal(whole["w"], resumed["w"])
    np.testing.assert_array_equal(whole["m"], resumed["m"])
    for one, other in zip(curve["epochs"], resumed_curve["epochs"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_killed_run_goes_on_from_its_last_save(tmp_path, images, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK", 2)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    whole, _ = run(tmp_path / "whole", images)
    saves = []

    def killed(path, tree, meta, small):
        if len(saves) == 3:
            raise Killed
        saves.append(meta["step"])
        save_tree(path, tree, meta, small)

    save_tree = loop.save_tree
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "save_tree", killed)
        run(tmp_path / "killed", images)
    resumed, _ = run(tmp_path / "killed", images)

    assert saves == [2, 4, 5]
    np.testing.assert_array_equal(whole["w"], resumed["w"])


def test_many_steps_in_one_call_are_the_steps_one_by_one(images):
    start, step, _ = toy_task()
    order = SCHEDULE.order(1, len(images.labels))
    zero = {"loss": jnp.float32(0), "accuracy": jnp.float32(0)}
    advance = advancing(step, SCHEDULE, 3)
    data = jnp.asarray(images.images), jnp.asarray(images.labels, jnp.int32)

    together, sums = advance(jax.tree.map(jnp.copy, start), zero, *data, order, 5, 1, 5)

    alone, losses = start, []
    for place in range(1, 5):
        picked = order[place * 8 : (place + 1) * 8]
        key = jax.random.fold_in(jax.random.key(SCHEDULE.seed), 5 + place)
        x, y = augment(
            key, images.images[picked], jax.nn.one_hot(images.labels[picked], 3), PIXEL_ZERO, MIXING
        )
        alone, metrics = step(alone, integer_input(np.asarray(x)), y)
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(together["w"], alone["w"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sums["loss"], sum(losses), rtol=1e-5)
    cut = jax.tree.map(jnp.copy, start), zero
    for first, end in ((1, 2), (2, 5)):
        cut = advance(*cut, *data, order, 5, first, end)
    np.testing.assert_array_equal(cut[0]["w"], together["w"])
    np.testing.assert_array_equal(cut[1]["loss"], sums["loss"])


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own():
    first, second = (SCHEDULE.order(epoch, 44) for epoch in (0, 1))

    np.testing.assert_array_equal(np.sort(first), np.arange(44))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, SCHEDULE.order(0, 44))


def test_without_a_test_set_the_curve_has_no_test_accuracy(tmp_path, images):
    (tmp_path / "run").mkdir()

    _, curve = fit(*toy_task(), images, None, SCHEDULE, tmp_path / "run", {})

    assert all("test" not in entry for entry in curve["epochs"])


def test_images_without_labels_are_refused(images):
    with pytest.raises(ValueError, match="44 images, 43 labels"):
        Images(images.images, images.labels[1:])


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


@pytest.mark.parametrize(("part", "steps"), [(1.0, 8), (0.5, 4), (0.3, 2)])
def test_an_epoch_may_see_a_part_of_the_set(part, steps):
    assert Schedule(epochs=1, batch=16, part=part).steps(130) == steps


@pytest.mark.parametrize("part", [0.0, 1.5, 0.1])
def test_a_part_without_a_batch_is_refused(part):
    with pytest.raises(ValueError, match="part|batch"):
        Schedule(epochs=1, batch=16, part=part).steps(130)
