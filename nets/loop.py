"""The training loop: epochs of jitted steps, progress bar, learning curve, resumable checkpoints.

Everything random about step t is a function of (seed, t), and the checkpoint holds t with the whole
state, so an interrupted run continues exactly as if nothing had happened, data order included.
"""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from nets.augment import augment
from nets.checkpoint import load_tree, save_tree
from nets.data import PIXEL_ZERO, integer_input
from pqjax.errors import CheckpointError

State = Any  # a pytree of arrays
Step = Callable[[State, np.ndarray, np.ndarray], tuple[State, dict[str, jax.Array]]]
Logits = Callable[[State, np.ndarray], jax.Array]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long to train, on what batches, and how often to look."""

    epochs: int
    batch: int = 128
    seed: int = 0
    erase_chance: float = 0.25
    evaluate_every: int = 2  # epochs, and after the last; 0 for never
    save_every: int = 100  # steps
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


@dataclasses.dataclass(frozen=True)
class Images:
    """A labelled set: uint8 images (n, h, w, 3) and labels (n,)."""

    images: np.ndarray
    labels: np.ndarray


def fit(
    state: State,
    step: Step,
    logits: Logits,
    train: Images,
    test: Images,
    schedule: Schedule,
    folder: pathlib.Path,
    config: dict,
    stop_after: int | None = None,
) -> tuple[State, dict]:
    """Trains from `folder`'s checkpoint if there is one, else from `state`.

    Args:
      state: initial state; also tells the checkpoint's structure.
      step: (state, int8 images, labels) -> (state, {"loss": ..., "accuracy": ...}), jitted.
      logits: (state, int8 images) -> logits, jitted.
      train: training set.
      test: set for the curve's test accuracy; never used to choose anything.
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
    first = 0
    if file.exists():
        state, curve = load_tree(file, state)
        if curve["config"] != json.loads(json.dumps(config)):
            raise CheckpointError(f"{file} is of another configuration: {curve['config']}")
        first = curve.pop("step")
    steps = schedule.steps(len(train.labels))
    total = steps * schedule.epochs
    last = total if stop_after is None else min(total, first + stop_after)
    start = time.monotonic()
    spent, sums = curve["seconds"], curve.pop("sums", [0.0, 0.0, 0])
    bar = tqdm(total=total, initial=first, unit="step", mininterval=2.0, dynamic_ncols=True)
    for t in range(first, last):
        epoch, place = divmod(t, steps)
        if place == 0 or t == first:
            order = np.random.default_rng([schedule.seed, 0, epoch]).permutation(len(train.labels))
        picked = order[place * schedule.batch : (place + 1) * schedule.batch]
        rng = np.random.default_rng([schedule.seed, 1, t])
        x = augment(train.images[picked], rng, PIXEL_ZERO, schedule.erase_chance)
        state, metrics = step(state, integer_input(x), train.labels[picked].astype(np.int32))
        sums = [sums[0] + float(metrics["loss"]), sums[1] + float(metrics["accuracy"]), sums[2] + 1]
        bar.update()
        if place == steps - 1:
            entry = {"epoch": epoch + 1, "loss": sums[0] / sums[2], "train": sums[1] / sums[2]}
            every, done = schedule.evaluate_every, epoch + 1
            if every and (done % every == 0 or done == schedule.epochs):
                entry["test"] = accuracy(state, logits, test)
            entry["seconds"] = spent + time.monotonic() - start
            curve["epochs"].append(entry)
            sums = [0.0, 0.0, 0]
            bar.write(json.dumps({k: round(v, 4) for k, v in entry.items()}))
        if place == steps - 1 or (t + 1) % schedule.save_every == 0 or t + 1 == last:
            curve["seconds"] = spent + time.monotonic() - start
            save_tree(file, state, {**curve, "step": t + 1, "sums": sums})
            write_json(folder / "curve.json", curve)
    bar.close()
    return state, curve


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
