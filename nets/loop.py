"""The training loop: epochs on the device, progress bar, learning curve, resumable checkpoints.

The training set lies on the device as uint8 and many steps are one call, so no step waits for the host.
Everything random about step t is a function of (seed, t), and the checkpoint holds t with the whole
state, so an interrupted run continues exactly as if nothing had happened, data order included.
"""

import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from nets.augment import Augmentation, augment
from nets.checkpoint import load_tree, save_tree
from nets.data import PIXEL_ZERO, integer_input
from pqjax.errors import CheckpointError

State = Any  # a pytree of arrays
Metrics = dict[str, jax.Array]  # "loss" and "accuracy": f32 means over a batch, or their sums
Step = Callable[[State, jax.Array, jax.Array], tuple[State, Metrics]]
Logits = Callable[[State, np.ndarray], jax.Array]
CHUNK = 20  # steps between two moves of the progress bar
SAVE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long to train, on what batches, and how often to look."""

    epochs: int
    batch: int = 128
    seed: int = 0
    augmentation: Augmentation = Augmentation()
    evaluate_every: int = 2  # epochs, and after the last; 0 for never
    part: float = 1.0  # of the set that an epoch sees, drawn anew for each

    def __post_init__(self):
        if not (self.epochs >= 1 and self.batch >= 1 and 0 < self.part <= 1):
            raise ValueError(f"at least one epoch, one image, and a part in (0, 1], got {self}")

    def steps(self, images: int) -> int:
        """Steps of an epoch over a set of so many images."""
        found = int(images * self.part) // self.batch
        if not found:
            raise ValueError(f"{self.part} of {images} images is less than a batch of {self.batch}")
        return found

    def order(self, epoch: int, images: int) -> np.ndarray:
        """The order in which an epoch sees the set, int32."""
        rng = np.random.default_rng([self.seed, 0, epoch])
        return rng.permutation(images).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Images:
    """A labelled set: uint8 images (n, h, w, 3) and labels (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images, {len(self.labels)} labels")


def fit(
    state: State,
    step: Step,
    logits: Logits,
    train: Images,
    test: Images | None,
    schedule: Schedule,
    folder: pathlib.Path,
    config: dict,
    stop_after: int | None = None,
) -> tuple[State, dict]:
    """Trains from `folder`'s checkpoint if there is one, else from `state`.

    Args:
      state: initial state; also tells the checkpoint's structure.
      step: (state, int8 images, f32 targets (n, classes)) -> (state, metrics).
      logits: (state, int8 images) -> logits, jitted.
      train: training set.
      test: set for the curve's test accuracy; never used to choose anything. None where the schedule
        never evaluates.
      schedule: length, batches and seed.
      folder: where `state.npz` and `curve.json` are kept.
      config: JSON-able description; a checkpoint of another configuration is refused.
      stop_after: stop after so many steps in this call (used to test resuming).

    Returns:
      The final state and the learning curve.
    """
    config = {**config, "schedule": dataclasses.asdict(schedule)}
    file = folder / "state.npz"
    curve: dict[str, Any] = {"config": config, "epochs": [], "seconds": 0.0}
    t, zero = 0, {"loss": 0.0, "accuracy": 0.0}
    if file.exists():
        state, curve = load_tree(file, state)
        if curve["config"] != json.loads(json.dumps(config)):
            raise CheckpointError(f"{file} is of another configuration: {curve['config']}")
        t = curve.pop("step")
    steps = schedule.steps(len(train.labels))
    total = steps * schedule.epochs
    last = total if stop_after is None else min(total, t + stop_after)
    sums = jax.tree.map(jnp.float32, curve.pop("sums", zero))
    advance = advancing(step, schedule, _classes(logits, state, train))
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels, jnp.int32)
    start = saved = time.monotonic()
    spent, order, ordered = curve["seconds"], None, -1
    bar = tqdm(total=total, initial=t, unit="step", mininterval=2.0, dynamic_ncols=True)
    while t < last:
        epoch, place = divmod(t, steps)
        if epoch != ordered:
            order, ordered = schedule.order(epoch, len(train.labels)), epoch
        end = min(place + CHUNK, steps, place + last - t)
        state, sums = advance(state, sums, images, labels, order, t - place, place, end)
        jax.block_until_ready(sums)
        t += end - place
        bar.update(end - place)
        if end == steps:
            done, every = epoch + 1, schedule.evaluate_every
            entry = {"epoch": done, "loss": float(sums["loss"]) / steps}
            entry["train"] = float(sums["accuracy"]) / steps
            if test is not None and every and (done % every == 0 or done == schedule.epochs):
                entry["test"] = accuracy(state, logits, test)
            entry["seconds"] = spent + time.monotonic() - start
            curve["epochs"].append(entry)
            sums = jax.tree.map(jnp.float32, zero)
            bar.write(json.dumps({k: round(v, 4) for k, v in entry.items()}))
        if t == last or time.monotonic() - saved >= SAVE_SECONDS:
            saved = time.monotonic()
            curve["seconds"] = spent + saved - start
            meta = {**curve, "step": t, "sums": jax.tree.map(float, sums)}
            save_tree(file, state, meta, small=False)
            write_json(folder / "curve.json", curve)
    bar.close()
    return state, curve


def advancing(step: Step, schedule: Schedule, classes: int):
    """The jitted function that takes many steps of one epoch.

    Its bounds are no constants: every cut of a run uses the one executable, so all give the same bits.

    Args:
      step: as `fit`'s.
      schedule: batches, augmentation and seed.
      classes: length of a target.

    Returns:
      (state, sums, uint8 images, int32 labels, order of the epoch's images, the epoch's first step in
      the run, the first of its steps to take, the end of them) -> (state, sums with these steps'
      metrics). It gives the memory of `state` away.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state, sums, images, labels, order, begin, first, end):
        def one(place, carry):
            state, sums = carry
            picked = lax.dynamic_slice_in_dim(order, place * schedule.batch, schedule.batch)
            key = jax.random.fold_in(jax.random.key(schedule.seed), begin + place)
            x, y = augment(
                key, images[picked], jax.nn.one_hot(labels[picked], classes), PIXEL_ZERO,
                schedule.augmentation,
            )  # fmt: skip
            state, metrics = step(state, integer_input(x), y)
            return state, jax.tree.map(jnp.add, sums, metrics)

        return lax.fori_loop(first, end, one, (state, sums))

    return advance


def _classes(logits: Logits, state: State, images: Images) -> int:
    x = jax.ShapeDtypeStruct((1, *images.images.shape[1:]), np.int8)
    return jax.eval_shape(logits, state, x).shape[1]


def accuracy(state: State, logits: Logits, data: Images, batch: int = 250) -> float:
    """Share of images whose largest logit is the label's; the last batch may be short."""
    right = 0
    for i in range(0, len(data.labels), batch):
        answer = np.asarray(logits(state, integer_input(data.images[i : i + batch])))
        right += int((answer.argmax(1) == data.labels[i : i + batch]).sum())
    return right / len(data.labels)


def write_json(path: pathlib.Path, tree: Any) -> None:
    """Writes JSON atomically, readable, with a closing newline."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)
