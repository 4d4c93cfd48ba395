"""Accuracy of the committed networks on all test images, by the integer reference.

    PQJAX_DATA=... python -m experiments.train_nets                 # evaluates nets/checkpoints
    PQJAX_DATA=... python -m experiments.train_nets --train RUNS    # trains them first

Writes `results/accuracy.json` and the tables in `nets/README.md`. Training takes hours on two CPU cores
and goes on where it was interrupted; the long runs are left out where there is no accelerator.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import sys

from experiments import record
from experiments.command import parser
from experiments.record import table
from nets import train
from nets.architecture import ARCHITECTURES
from nets.data import load_cifar
from nets.malloc import keep_freed_memory
from pqjax.errors import CheckpointError, PqjaxError

NETS = pathlib.Path(__file__).parents[1] / "nets"
CHECKPOINTS = NETS / "checkpoints"
PUBLIC = "cifar10_resnet_ckpt/resnet32.npz"  # in PQJAX_DATA
RUNS = {
    "minionn_float": "float --net minionn --epochs 14 --seed 1",
    "minionn_w4a4": (
        "qat --net minionn --bits W4A4 --epochs 2 --seed 2 --rate 0.01 --erase 0 --evaluate-every 1"
    ),
    "minionn_w2a4": (
        "qat --net minionn --bits W2A4 --epochs 5 --seed 2 --rate 0.02 --erase 0 --evaluate-every 1"
    ),
    "resnet32_float": (
        "float --net resnet32 --start PUBLIC --epochs 9 --seed 1 --rate 0.1 --warmup 0.15 "
        "--first-rate 0.2 --erase 0.1 --evaluate-every 3"
    ),
    "resnet32_w4a6": (
        "qat --net resnet32 --bits W4A6 --epochs 2 --seed 2 --rate 0.01 --erase 0 --evaluate-every 1"
    ),
    "resnet32_w3a6": (
        "qat --net resnet32 --bits W3A6 --epochs 2 --seed 3 --rate 0.01 --erase 0 --evaluate-every 1 "
        "--from resnet32_w4a6/state.npz"
    ),
}
# Accumulators of stages: early ones have more values, late ones longer sums.
STAGES = ",".join(["13", *["12"] * 10, *["13"] * 10, *["14"] * 10, "0"])
WIDER32 = ",".join(["14", *["12", "13"] * 5, *["13", "14"] * 5, *["14", "15"] * 5, "0"])
WIDER18 = ",".join([*["14"] * 10, *["15"] * 5, *["16"] * 5, "0"])
LONG = {
    "minionn_float_long": (
        "float --net minionn --epochs 300 --batch 128 --seed 1 --rate 0.1 --warmup 0.1 --erase 0 "
        "--evaluate-every 0"
    ),
    "resnet32_float_long": (
        "float --net resnet32 --epochs 300 --batch 256 --seed 1 --rate 0.2 --warmup 0.1 --erase 0 "
        "--evaluate-every 100"
    ),
    "resnet18_float": (
        "float --net resnet18 --epochs 180 --batch 256 --seed 1 --rate 0.2 --warmup 0.1 --erase 0 "
        "--cutmix 0.5 --smoothing 0.1 --evaluate-every 60"
    ),
    "minionn_w4a4_long": (
        "qat --net minionn --bits W4A4 --accumulator 14,13,13,13,13,12,12,0 --epochs 45 --batch 256 "
        "--seed 2 --rate 0.02 --erase 0 --evaluate-every 0"
    ),
    "minionn_w2a4_long": (
        "qat --net minionn --bits W2A4 --accumulator 13,12,12,12,12,11,11,0 --epochs 45 --batch 256 "
        "--seed 2 --rate 0.02 --erase 0 --evaluate-every 0"
    ),
    "resnet32_w4a6_long": (
        f"qat --net resnet32 --bits W4A6R8 --accumulator {WIDER32} --epochs 50 --batch 256 --seed 2 "
        "--rate 0.01 --erase 0 --evaluate-every 0"
    ),
    "resnet32_w3a6_long": (
        f"qat --net resnet32 --bits W3A6R7 --accumulator {STAGES} --epochs 45 --batch 256 --seed 2 "
        "--rate 0.01 --erase 0 --evaluate-every 0"
    ),
    "resnet18_w4a6_long": (
        f"qat --net resnet18 --bits W4A6R8 --accumulator {WIDER18} --epochs 26 --batch 256 --seed 2 "
        "--rate 0.01 --erase 0 --cutmix 0.5 --evaluate-every 0"
    ),
}
KEPT_BYTES = 8_000_000  # of a network in the repository; of a larger one there is the curve alone
OVERFLOW_IMAGES = 1000
_MARKS = "<!-- written by experiments/train_nets.py -->", "<!-- end -->"


def train_all(folder: pathlib.Path) -> None:
    """Runs, or resumes, the trainings in order; puts networks and curves in nets/checkpoints."""
    import jax

    for name, words in (RUNS if jax.default_backend() == "cpu" else RUNS | LONG).items():
        args = arguments_of(name, folder)
        result = (train.train_float if args.mode == "float" else train.train_qat)(args)
        print(f"trained {name}: {words}", file=sys.stderr)
        if os.path.getsize(result["network"]) <= KEPT_BYTES:
            shutil.copy(result["network"], CHECKPOINTS / f"{name}.npz")
        shutil.copy(args.out / "curve.json", CHECKPOINTS / f"{name}.curve.json")


def arguments_of(name: str, folder: pathlib.Path) -> argparse.Namespace:
    """What `python -m nets.train` would be given for one of `RUNS` or `LONG`."""
    args = train.parser().parse_args([*(RUNS | LONG)[name].split(), "--out", str(folder / name)])
    if args.mode == "qat":
        args.teacher = folder / teacher_of(name) / f"{args.net}_float.npz"
    if args.start is not None:
        args.start = pathlib.Path(os.environ.get("PQJAX_DATA", "PQJAX_DATA")) / PUBLIC
    if args.before is not None:
        args.before = folder / args.before
    return args


def teacher_of(name: str) -> str:
    """The float network that a quantized one starts from and is distilled from."""
    net, _, *long = name.split("_")
    found = "_".join([net, "float", *long])
    return found if found in RUNS | LONG else f"{net}_float"


def evaluate(name: str) -> dict:
    """Top-1 of one network; for a quantized one also its widths and overflows.

    Of a network that is too large for the repository it is what the training measured.
    """
    from nets.export import overflow_rates, top1
    from nets.loop import Images, accuracy
    from nets.pretrain import load_float
    from pqjax.graph import Conv, Dense, load_model

    args = arguments_of(name, NETS)
    architecture = ARCHITECTURES[args.net]
    images, labels = load_cifar(architecture.data, "test")
    path = CHECKPOINTS / f"{name}.npz"
    curve = json.loads((CHECKPOINTS / f"{name}.curve.json").read_text())
    row = {
        "network": path.name,
        "data": architecture.data,
        "command": f"python -m nets.train {(RUNS | LONG)[name]}",
        "device": curve["config"].get("device", "cpu"),
        "epochs": len(curve["epochs"]),
        "train_seconds": curve["seconds"],
        "images": len(labels),
    }
    config = curve["config"]
    if not path.exists():
        row["top1"] = curve["epochs"][-1]["test"]
    elif args.mode == "float":
        net, meta = load_float(path, architecture)
        config = meta["config"]
        row["top1"] = accuracy(None, train.jitted(net), Images(images, labels))
    else:
        graph, weights, meta = load_model(path)
        config = meta["config"]
        products = [node for node in graph if isinstance(node, (Conv, Dense))]
        row |= {
            "top1": top1(graph, weights, images, labels),
            "weight_bits": {node.name: node.weight_bits for node in products},
            "accumulator_bits": {node.name: node.out.bits for node in products},
            "overflow_images": OVERFLOW_IMAGES,
            "overflow": overflow_rates(graph, weights, images[:OVERFLOW_IMAGES]),
        }
    if path.exists():
        row["bytes"] = path.stat().st_size
    schedule = config["schedule"]
    if (schedule["seed"], schedule["epochs"]) != (args.seed, args.epochs):
        raise CheckpointError(f"{path} was not trained by {row['command']!r}: {schedule}")
    return {**row, "seed": args.seed, "config": config}


def report(rows: list[dict]) -> str:
    """The commands and the table for nets/README.md."""
    top1 = {row["network"]: row["top1"] for row in rows}
    shown = []
    for row in rows:
        cells = {
            "network": row["network"],
            "data": row["data"],
            "top-1": f"{100 * row['top1']:.2f} %",
            "below float, points": "",
            "epochs": row["epochs"],
            "minutes": f"{row['train_seconds'] / 60:.0f}",
            "on": row["device"],
            "KB": f"{row['bytes'] / 1000:.0f}" if "bytes" in row else "not kept",
        }
        if "overflow" in row:
            below = top1[f"{teacher_of(row['network'].removesuffix('.npz'))}.npz"] - row["top1"]
            cells["below float, points"] = f"{100 * below:.2f}"
            cells["most overflow"] = f"{100 * max(row['overflow'].values()):.2f} %"
        shown.append(cells)
    commands = []
    for name, words in (RUNS | LONG).items():
        net = name.split("_")[0]
        start = (
            f"--float runs/{teacher_of(name)}/{net}_float.npz " if words.startswith("qat") else ""
        )
        words = words.replace("--from ", "--from runs/").replace("PUBLIC", f"$PQJAX_DATA/{PUBLIC}")
        commands.append(f"    python -m nets.train {words} {start}--out runs/{name}")
    return (
        "\n".join(commands)
        + "\n\n"
        + table(shown, [*shown[0], "most overflow"])
        + f"\n\nTop-1 over {rows[0]['images']:,} test images, one seed each; quantized networks by the "
        "integer reference.\nMost overflow: the share of values that one requantize clamps, at the "
        f"worst of them, over {OVERFLOW_IMAGES:,} images.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Evaluates, after training if asked; with --record writes what is committed, README's table too."""
    options = parser("train_nets", __doc__)
    options.add_argument("--train", type=pathlib.Path, metavar="RUNS", help="train in this folder")
    options.add_argument(
        "--record", action="store_true", help="write to results/ and nets/README.md, as committed"
    )
    args = options.parse_args(arguments)
    record.into = record.RESULTS if args.record else record.LATEST
    try:
        if args.train is not None:
            train_all(args.train)
        rows = []
        for name in RUNS | LONG:
            rows.append(evaluate(name))
            print(f"{name}: top-1 {rows[-1]['top1']:.4f}", flush=True)
    except PqjaxError as error:
        print(f"train_nets: {error}", file=sys.stderr)
        return 1
    print(record.write("accuracy", {"data": "all test images"}, rows))
    print(report(rows))
    if not args.record:
        return 0
    readme = NETS / "README.md"
    before, rest = readme.read_text().split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    readme.write_text(f"{before}{_MARKS[0]}\n\n{report(rows)}\n{_MARKS[1]}{after}")
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
