"""Networks of short quantization-aware training: one recipe for all, so that only their widths differ.

Part of an epoch from the committed float network is what two cores can give dozens of networks. It
compares widths; the committed networks show what more training gives.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys

import numpy as np

from experiments.record import read
from nets.architecture import ARCHITECTURES
from nets.data import integer_input, load_cifar
from pqjax import Graph, load_model, plan, reference, run_local
from pqjax.errors import DataError, PqjaxError

ROOT = pathlib.Path(__file__).parents[1]
CHECKPOINTS = ROOT / "nets" / "checkpoints"
RUNS = ROOT / "runs" / "short"
RECIPE = "--epochs 1 --batch 64 --seed 2 --rate 0.01 --erase 0 --evaluate-every 0 --brief"
PART = 0.2  # of an epoch
PRESETS = ("privquant", "pqjax", "sirnn", "sirnn-choice1")
INFERENCES = 100  # of a client that comes back


@dataclasses.dataclass(frozen=True)
class Short:
    """A network in some widths, as `nets.train --bits` reads them, trained on a part of an epoch."""

    net: str
    bits: str
    part: float = PART

    @property
    def name(self) -> str:
        """Of its folder and its file."""
        return f"{self.net}_{self.bits.lower().replace(',', '').replace('/', '')}"

    @property
    def folder(self) -> str:
        """Of its run."""
        return self.name if self.part == PART else f"{self.name}_part{self.part:g}"

    def command(self, folder: pathlib.Path | str) -> list[str]:
        """What trains it, after `python`."""
        given = f"-m nets.train qat --net {self.net} --bits {self.bits} {recipe(self.part)}".split()
        teacher = f"nets/checkpoints/{self.net}_float.npz"
        return [*given, "--float", teacher, "--out", str(pathlib.Path(folder) / self.folder)]

    def file(self, folder: pathlib.Path) -> pathlib.Path:
        """The finished network."""
        return folder / self.folder / f"{self.name}.npz"


def train(short: Short, folder: pathlib.Path) -> None:
    """Trains it unless that is done; goes on where it was interrupted.

    Raises:
      DataError: the training command failed.
    """
    if short.file(folder).exists():
        return
    print(f"training {short.net} {short.bits} ...", file=sys.stderr, flush=True)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, own = [sys.executable, *short.command(folder.resolve())], {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | own, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise DataError(f"training {short.net} {short.bits} failed, see above; again goes on there")


def two_party(short: Short, folder: pathlib.Path, protocol: str) -> None:
    """Asks the network about a test image between two parties.

    Raises:
      PqjaxError: the answer is not the reference's, or bits or flows not the plan's.
    """
    graph, weights, _ = load_model(short.file(folder))
    images, _ = load_cifar(ARCHITECTURES[short.net].data, "test")
    x = integer_input(images[:1])[0].astype(np.int64)
    made = plan(graph, protocol)
    got = run_local(made, weights, x)
    if not np.array_equal(got.output, np.asarray(reference(graph, weights, x[None]))[0]):
        raise PqjaxError(f"{short.name}, {protocol}: the answer differs from the integer reference")
    found = made.differences(got.trace, rank=1)
    if found:
        raise PqjaxError(f"{short.name}, {protocol}: not as predicted: {found[0]}")


def row_of(short: Short, folder: pathlib.Path, protocol: str = "privquant") -> dict:
    """What a trained network says of itself, what it costs, and that it ran.

    Args:
      short: trained before.
      folder: of its run.
      protocol: the preset it is run with on one image.
    """
    graph, _, meta = load_model(short.file(folder))
    two_party(short, folder, protocol)
    curve = json.loads((short.file(folder).parent / "curve.json").read_text())
    return {
        "net": short.net,
        "bits": short.bits,
        "top1": meta["top1"],
        "top1_float": float_top1(short.net),
        "most_overflow": max(meta["overflow"].values()),
        "cost_bits": {name: inference_bits(graph, name) for name in PRESETS},
        "run_two_party": protocol,
        "train_seconds": curve["seconds"],
        "command": f"python {shlex.join(short.command('runs/short'))}",
    }


def inference_bits(graph: Graph, protocol: str) -> int:
    """Bits of an inference, with its part of what a client that comes back gets once."""
    made = plan(graph, protocol, inferences=INFERENCES)
    once = made.cost("install").bits
    return made.cost().bits - once + -(-once // INFERENCES)


def float_top1(net: str) -> float:
    """Top-1 of the float network that all start from, as measured with the committed networks."""
    return next(
        row["top1"] for row in read("accuracy")["runs"] if row["network"] == f"{net}_float.npz"
    )


def recipe(part: float) -> str:
    """The options of `nets.train qat` that all share."""
    return f"{RECIPE} --part {part:g}"


def recipe_text(part: float = PART) -> str:
    """The training of all of them, for captions."""
    return (
        f"every network trained by itself from the float one with `{recipe(part)}` (Adam, distilled "
        "from the float network), calibrated on 256 training images; top-1 over all test images by the "
        "integer reference, one image run between two parties"
    )
