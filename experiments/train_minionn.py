"""Accuracy of the committed MiniONNs on all CIFAR-10 test images, by the integer reference.

    PQJAX_DATA=... python -m experiments.train_minionn                 # evaluates nets/checkpoints
    PQJAX_DATA=... python -m experiments.train_minionn --train RUNS    # trains them first

Writes `results/minionn_accuracy.json` and the table in `nets/README.md`. Training takes more than an
hour on two CPU cores and goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys

import numpy as np

from experiments.record import table, write
from nets import train
from nets.data import load_cifar10
from nets.malloc import keep_freed_memory
from pqjax.errors import CheckpointError, PqjaxError

NETS = pathlib.Path(__file__).parents[1] / "nets"
CHECKPOINTS = NETS / "checkpoints"
RUNS = {
    "float": "float --epochs 14 --seed 1",
    "w4a4": "qat --bits W4A4 --epochs 2 --seed 2 --rate 0.01 --erase 0 --evaluate-every 1",
    "w2a4": "qat --bits W2A4 --epochs 5 --seed 2 --rate 0.02 --erase 0 --evaluate-every 1",
}
OVERFLOW_IMAGES = 1000
_MARKS = "<!-- written by experiments/train_minionn.py -->", "<!-- end -->"


def train_all(folder: pathlib.Path) -> None:
    """Runs, or resumes, the trainings in order; puts networks and curves in nets/checkpoints."""
    for name, words in RUNS.items():
        args = arguments_of(name, folder)
        (train.train_float if args.mode == "float" else train.train_qat)(args)
        print(f"trained {name}: {words}", file=sys.stderr)
        shutil.copy(args.out / f"minionn_{name}.npz", CHECKPOINTS)
        shutil.copy(args.out / "curve.json", CHECKPOINTS / f"minionn_{name}.curve.json")


def arguments_of(name: str, folder: pathlib.Path) -> argparse.Namespace:
    """What `python -m nets.train` would be given for one of `RUNS`."""
    words = [*RUNS[name].split(), "--out", str(folder / name)]
    if words[0] == "qat":
        words += ["--float", str(folder / "float" / "minionn_float.npz")]
    return train.parser().parse_args(words)


def evaluate(name: str, images: np.ndarray, labels: np.ndarray) -> dict:
    """Top-1 of one committed network; for a quantized one also its widths and overflows."""
    from nets.export import overflow_rates, top1
    from nets.loop import Images, accuracy
    from nets.pretrain import load_float
    from pqjax.graph import load_model

    path = CHECKPOINTS / f"minionn_{name}.npz"
    curve = json.loads((CHECKPOINTS / f"minionn_{name}.curve.json").read_text())
    row = {
        "network": path.name,
        "command": f"python -m nets.train {RUNS[name]}",
        "bytes": path.stat().st_size,
        "epochs": len(curve["epochs"]),
        "train_seconds": curve["seconds"],
        "images": len(labels),
    }
    if name == "float":
        net, meta = load_float(path)
        row["top1"] = accuracy(None, train.jitted(net), Images(images, labels))
    else:
        graph, weights, meta = load_model(path)
        products = [node for node in graph if node.kind in ("Conv", "Dense")]
        row |= {
            "top1": top1(graph, weights, images, labels),
            "weight_bits": {node.name: node.weight_bits for node in products},
            "accumulator_bits": {node.name: node.out.bits for node in products},
            "overflow_images": OVERFLOW_IMAGES,
            "overflow": overflow_rates(graph, weights, images[:OVERFLOW_IMAGES]),
        }
    schedule, args = meta["config"]["schedule"], arguments_of(name, NETS)
    if (schedule["seed"], schedule["epochs"]) != (args.seed, args.epochs):
        raise CheckpointError(f"{path} was not trained by {row['command']!r}: {schedule}")
    return {**row, "seed": args.seed, "config": meta["config"]}


def report(rows: list[dict]) -> str:
    """The commands and the table for nets/README.md."""
    best = rows[0]["top1"]
    worst = [max(row["overflow"].values()) if "overflow" in row else None for row in rows]
    shown = [
        {
            "network": row["network"],
            "top-1": f"{100 * row['top1']:.2f} %",
            "below float, points": f"{100 * (best - row['top1']):.2f}",
            "epochs": row["epochs"],
            "minutes": f"{row['train_seconds'] / 60:.0f}",
            "KB": f"{row['bytes'] / 1000:.0f}",
            "most overflow": "" if most is None else f"{100 * most:.2f} %",
        }
        for row, most in zip(rows, worst, strict=True)
    ]
    commands = []
    for name, words in RUNS.items():
        start = "--float runs/float/minionn_float.npz " if words.startswith("qat") else ""
        commands.append(f"    python -m nets.train {words} {start}--out runs/{name}")
    return (
        "\n".join(commands)
        + "\n\n"
        + table(shown, list(shown[0]))
        + f"\n\nTop-1 over {rows[0]['images']:,} test images, one seed each; quantized networks by the "
        "integer reference.\nMost overflow: the share of values that one requantize clamps, at the "
        f"worst of them, over {OVERFLOW_IMAGES:,} images.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Evaluates, after training if asked, and writes the result file and the README's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=pathlib.Path, metavar="RUNS", help="train in this folder")
    args = parser.parse_args(arguments)
    try:
        if args.train is not None:
            train_all(args.train)
        images, labels = load_cifar10("test")
        rows = []
        for name in RUNS:
            rows.append(evaluate(name, images, labels))
            print(f"{name}: top-1 {rows[-1]['top1']:.4f}", flush=True)
    except PqjaxError as error:
        print(f"train_minionn: {error}", file=sys.stderr)
        return 1
    print(write("minionn_accuracy", {"data": "CIFAR-10 test", "images": len(labels)}, rows))
    readme = NETS / "README.md"
    before, rest = readme.read_text().split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    readme.write_text(f"{before}{_MARKS[0]}\n\n{report(rows)}\n{_MARKS[1]}{after}")
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
