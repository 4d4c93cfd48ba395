"""`make exp-mobilenetv2-accuracy`, `exp-efficientnet-accuracy`: photographs, from float to four bits.

Needs PQJAX_DATA: one training picture of each class to calibrate on, 1,000 labelled photographs outside
ImageNet to ask about, and Google's 8-bit MobileNetV2. Every row is the exact integer reference. Networks
are kept in the cache, rows in the result file: what was done is not done again, unless its recipe
changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import time

import numpy as np
from jaxtyping import Int, Integer

from experiments.command import parser, run
from experiments.record import read, table, write
from nets.data import integer_input
from nets.folded import FoldedNet
from nets.importing.kept import kept
from nets.importing.named import NAMED
from nets.importing.quantize import METHOD, RECIPE
from nets.photographs import TEST, load_photographs
from nets.setting import SETTINGS
from pqjax import load_model, plan, reference
from pqjax.cli.console import Bar
from pqjax.engine.process import settle
from pqjax.errors import DataError

RESULTS = {"efficientnet-lite0": "efficientnet-accuracy", "mobilenetv2": "mobilenetv2-accuracy"}
_BATCH = 50


def integer_top1(
    path: pathlib.Path, x: Int[np.ndarray, "n h w 3"], labels: Integer[np.ndarray, " n"]
) -> tuple[float, Int[np.ndarray, " n"]]:
    """Share of pictures that the integer reference labels rightly, and its answers."""
    graph, weights, _ = load_model(path)
    answers = [
        np.asarray(reference(graph, weights, x[i : i + _BATCH])).argmax(1)
        for i in range(0, len(x), _BATCH)
    ]
    found = np.concatenate(answers)
    return float((found == labels).mean()), found


def compute(args: argparse.Namespace) -> dict:
    """A row for the float network and for every setting, written as soon as it is known."""
    settle()
    photographs, labels = load_photographs(TEST)
    x = integer_input(photographs[: args.images])
    labels = labels[: args.images]
    imported, name = NAMED[args.network].read(), result_name(args)
    config = {"weights": imported.source["sha256"], "photographs": TEST, "images": len(x)}
    config |= {"method": METHOD, "recipe": dataclasses.asdict(RECIPE)}
    floating = FoldedNet.of(imported.architecture, imported.of_integers())
    floating = floating.logits(x).argmax(1)
    rows = [{"network": "float", "top1": float((floating == labels).mean())}]
    known = _known(name, config)
    for at, setting in enumerate(args.settings):
        row = known.get(setting)
        if row is None:
            print(f"{setting} ...", file=sys.stderr, flush=True)
            begin = time.perf_counter()
            path = kept(args.network, SETTINGS[setting], Bar())
            made = time.perf_counter()
            top1, answers = integer_top1(path, x, labels)
            row = {
                "network": setting,
                "top1": top1,
                "as_float": float((answers == floating).mean()),
                "GiB": plan(load_model(path)[0]).cost().bits / 8 / 2**30,
                "residual": SETTINGS[setting].residual,
                "made_s": made - begin,
                "asked_s": time.perf_counter() - made,
            }
        rows.append(row)
        later = [known[n] for n in args.settings[at + 1 :] if n in known]
        write(name, config, rows + later, network=args.network)  # an interrupted run loses nothing
    return {"config": config, "runs": rows, "network": args.network}


def _known(name: str, config: dict) -> dict[str, dict]:
    """Rows of an earlier run on the same photographs with the same recipe, by network."""
    try:
        tree = read(name)
    except (DataError, ValueError):
        return {}
    return {row["network"]: row for row in tree["runs"]} if tree["config"] == config else {}


def report(tree: dict) -> str:
    """The table."""
    shown = [
        {
            "network": row["network"],
            "top-1": f"{100 * row['top1']:.1f} %",
            "same answer as float": f"{100 * row['as_float']:.1f} %" if "as_float" in row else "",
            "GiB, pqjax": row.get("GiB", ""),
            "residual bits": row.get("residual", ""),
            "s to make": round(row["made_s"]) if "made_s" in row else "",
        }
        for row in tree["runs"]
    ]
    config, network = tree["config"], NAMED[tree.get("network", "mobilenetv2")]
    return (
        f"# {network.title}, ImageNet classes: accuracy below 8 bits\n\n"
        + table(shown)
        + f"\n\nTop-1 of the exact integer reference on {config['images']} photographs of "
        f"`{config['photographs']}`, which are not ImageNet's: the figures are not those of its "
        "validation set. WxAy: x-bit weights (8 in the first layer and the FC), y-bit activations "
        "(unsigned after ReLU6, signed after bottlenecks); mixed: depthwise weights keep 8 bits. One "
        f"power-of-two scale a tensor. Quantized after training on {config['recipe']['pool']} pictures "
        "of `imagenet_train1000`, without labels: channel factors of least noise, range search, and "
        "layers fitted one after the other (least squares, roundings and biases included).\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/<network>-accuracy.json` and `.md`."""
    options = parser("exp-imagenet-accuracy", __doc__)
    options.add_argument("--network", default="efficientnet-lite0", choices=list(RESULTS))
    options.add_argument("--images", type=int, default=1000, help="photographs to ask about")
    options.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    return run(options, compute, report, arguments, result_name)


def result_name(args: argparse.Namespace) -> str:
    """One a network."""
    return RESULTS[args.network]


if __name__ == "__main__":
    sys.exit(main())
