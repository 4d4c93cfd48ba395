"""`make exp-hequant`: HEQuant's three ideas, one by one and together, against Cheetah and CrypTFlow2.

Its text is not at hand but for abstract and summary, so there is no table of its own to compare with:
what those two claim stands beside what comes out here, on its networks and its data sets' shapes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np

from experiments import hequant_report, progress
from experiments.accumulators import widths_by_strategy
from experiments.command import parser, run
from experiments.ideas import ALL, CHEETAH, maps, presets, priced
from experiments.images import cifar_test
from experiments.packing_errors import error_rate
from experiments.resnet18 import BITS, untrained
from experiments.single_layer import input_for, layer_graph, run_checked
from nets.architecture import (
    MOBILENETV2_TORCH,
    RESNET18,
    RESNET18_IMAGENET,
    RESNET32,
    RESNET50,
    imagenet_resnet,
    mobilenet_v2,
)
from pqjax import load_model
from pqjax.engine.process import settle
from pqjax.graph import Graph
from pqjax.he import HEQUANT, Filter, two_way
from pqjax.he.published import Options
from pqjax.linear.by_reply import SYSTEMS
from pqjax.pictures import picture_input

# Of its networks it says ResNet and MobileNetV2: which of them on which data set is ours.
NETWORKS = {
    "ResNet32, CIFAR-100": RESNET32,
    "ResNet18, CIFAR-100": RESNET18,
    "MobileNetV2, CIFAR-100": mobilenet_v2("mobilenetv2_32x32", side=32, classes=100),
    "ResNet18, Tiny ImageNet": imagenet_resnet(
        "resnet18_64x64", side=64, classes=200, blocks=(2, 2, 2, 2), bottleneck=False
    ),
    "MobileNetV2, Tiny ImageNet": mobilenet_v2("mobilenetv2_64x64", side=64, classes=200),
    "ResNet18, ImageNet": RESNET18_IMAGENET,
    "ResNet50, ImageNet": RESNET50,
    "MobileNetV2, ImageNet": MOBILENETV2_TORCH,
}
MEASURED = "ResNet18, CIFAR-100"
# One layer of every kind that the networks for ImageNet have.
LAYERS = (
    ("7x7, step 2, the client's input", "ResNet18, ImageNet", "conv1"),
    ("3x3", "ResNet18, ImageNet", "s2b1.conv2"),
    ("3x3, step 2", "ResNet18, ImageNet", "s4b1.conv1"),
    ("1x1, step 2", "ResNet18, ImageNet", "s3b1.down"),
    ("1x1, to four times the channels", "ResNet50, ImageNet", "s3b2.conv3"),
    ("3x3, depthwise", "MobileNetV2, ImageNet", "s5b2.depthwise"),
    ("3x3, depthwise, step 2", "MobileNetV2, ImageNet", "s6b1.depthwise"),
    ("dense", "ResNet18, ImageNet", "fc"),
)
WIDTHS = tuple(range(2, 9))
NAIVE = "parameters alone"
SATURATING = {
    "Cheetah's parameters": SYSTEMS["hequant"]["uniform"],
    NAIVE: SYSTEMS["hequant"]["widths"],
    "parameters and tiling": SYSTEMS["hequant"]["widths+tiling"],
    ALL: HEQUANT,
}
PACKED = ((2, 2), (2, 4), (3, 3), (4, 2), (4, 4))  # weights and activations that two fit of
SEED = 2401
_PICTURES = 64  # of which half decide widths and half are asked whether they fit


def _graph(name: str) -> tuple[Graph, dict[str, np.ndarray]]:
    graph, weights, _ = load_model(untrained(NETWORKS[name]))
    return graph, weights


def saturation(graph: Graph) -> list[dict]:
    """Bits of all linear layers at weights and activations of as many bits, for any such weights."""
    found = []
    layers = maps(graph)
    for bits in WIDTHS:
        row: dict = {"bits": bits}
        for name, options in SATURATING.items():
            row[name] = sum(_layer_bits(m, bits, options) for m in layers)
        found.append(row)
    return found


def _layer_bits(m, bits: int, options: Options) -> int:
    sums = 2 * bits + math.ceil(math.log2(m.terms))
    at = two_way(m, sums, Filter(m.terms << 2 * (bits - 1), m.terms), options)
    return at.sent_cost + at.reply_cost


def measured(args: argparse.Namespace) -> Iterator[dict]:
    """Rows of what ran between two parties."""
    graph, weights = _graph(MEASURED)
    x = input_for(graph, SEED)
    for system, preset in presets().items():
        if args.quick and system not in (NAIVE, ALL):
            continue
        yield {"what": MEASURED, "system": system, **run_checked(graph, weights, x, preset, 2)}
    for kind, network, name in LAYERS[-1:] if args.quick else LAYERS:
        small, kept = layer_graph(*_graph(network), name)
        x = input_for(small, SEED)
        for system in (CHEETAH, ALL):
            found = run_checked(small, kept, x, presets()[system])
            at = {"what": kind, "network": network, "layer": name, "system": system}
            yield {**at, **found, "bits": found["by_layer"][name]}


def strategies() -> dict:
    """The three strategies for accumulators on `MEASURED`, and what pictures they looked at."""
    graph, weights = _graph(MEASURED)
    images, _, origin = cifar_test("cifar100")
    x = np.stack([picture_input(graph, image) for image in images[:_PICTURES]])
    half = len(x) // 2
    rows = widths_by_strategy(graph, weights, x[:half], x[half:])
    return {"rows": rows, "pictures": origin, "each": half}


def compute(args: argparse.Namespace) -> dict:
    """Every part; `runs` are the rows that were measured."""
    settle()
    about = "HEQuant's ideas: whole networks predicted, ResNet18 and a layer of each kind measured"
    tree: dict = {"runs": [], "networks": []}
    parts = [*args.networks, "saturation", "packing", "accumulators", "measured"]
    took: dict[str, float] = {}
    for part in progress.stages(_name(args), about, parts, took):
        if part in NETWORKS:
            rows = [{"network": part, **row} for row in priced(_graph(part)[0])]
            tree["networks"] += rows
        elif part == "saturation":
            tree[part] = saturation(_graph(MEASURED)[0])
        elif part == "packing":
            few = PACKED[:2] if args.quick else PACKED
            tree[part] = [error_rate(w, a, SEED + i) for i, (w, a) in enumerate(few)]
        elif part == "accumulators":
            tree[part] = strategies()
        else:
            tree["runs"] += list(measured(args))
    config = {"seed": SEED, "widths": BITS, "quick": args.quick}
    return {"config": config, **tree, "stages": took}


def _name(args: argparse.Namespace) -> str:
    return "hequant_quick" if args.quick else "hequant"


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/hequant.json`, `.md` and the picture; quick ones are called so."""
    options = parser("exp-hequant", __doc__)
    names = list(NETWORKS)
    options.add_argument("--networks", nargs="*", default=names, choices=names)
    options.add_argument("--quick", action="store_true", help="two systems and one layer measured")
    return run(options, compute, hequant_report.report, arguments, _name)


if __name__ == "__main__":
    sys.exit(main())
