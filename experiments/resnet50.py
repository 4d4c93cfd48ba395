"""`make exp-resnet50`: private ResNet50 on 224x224 photographs, two processes.

    IMAGE=path   asks about a picture of yours (default: photographs that scikit-image carries)
    LABELLED=n   asks about n labelled photographs of PQJAX_DATA
    QUICK=1      one block of each stage between two processes, the rest predicted: a first answer

There are no ImageNet weights here: the network is random weights from a seed, quantized like any other,
and everything that shows its answers says so. Bits, flows and seconds do not depend on the weights.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Int, Integer

from experiments import progress, timeline
from experiments.command import parser, run
from experiments.images import photographs, questions
from experiments.record import published, table
from experiments.rows import LINK, NOTE, PROTOCOLS, columns, measure, row_of
from experiments.two_processes import INFERENCES, checked
from nets.architecture import RESNET50
from nets.quantized import Widths
from nets.untrained import UNTRAINED, kept_untrained
from pqjax import load_model, plan
from pqjax.engine.process import cache_folder, settle
from pqjax.errors import DataError
from pqjax.graph import Graph, Input, every_value, save_model, wrap_rates
from pqjax.planner import Plan

SEED = 50
STAGE_BITS = {"s1": 4, "s2": 3, "s3": 3, "s4": 2}  # late stages have most weights
END_BITS = 4  # first convolution and FC
LABEL = "w234a6"
NEEDED_BYTES = 4 << 30  # both processes, and the reference that checks them
NEEDED_DISK = 1 << 28
QUICK_BLOCKS = ("s1b2", "s2b2", "s3b2", "s4b2")
QUOTED = ("CrypTFlow2", "SiRNN", "COINN", "CoPriv", "PrivQuant")
ON_MOBILENET = "CoPriv"
MAKING = "the network"  # the first stage
# Cheetah's replies, one filter each, are gigabytes for networks of this size: on demand only.
USUAL = tuple(name for name in PROTOCOLS if name != "cheetah")
COLUMN = 2  # of the published end-to-end table


def check_machine() -> None:
    """Refuses to begin where memory or disk would not last.

    Raises:
      DataError: says how much there is and how much it takes.
    """
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        free = next(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")
        )
    except (OSError, StopIteration):
        free = NEEDED_BYTES  # not Linux: unknown
    if free < NEEDED_BYTES:
        raise DataError(
            f"{free / 2**30:.1f} GiB of memory are free, the run takes up to "
            f"{NEEDED_BYTES / 2**30:.0f} GiB: close other programs, or run with QUICK=1"
        )
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(folder).free
    if disk < NEEDED_DISK:
        raise DataError(
            f"{disk >> 20} MiB are free in {folder}, {NEEDED_DISK >> 20} MiB are needed: make room, or "
            "name another folder by XDG_CACHE_HOME"
        )


def widths() -> Widths:
    """Mixed weights of 2 to 4 bits by stage, activations of 6, residuals of 8."""
    bits = [STAGE_BITS.get(layer.name[:2], END_BITS) for layer in RESNET50.layers]
    return Widths(tuple(bits), 6, residual=8, head=8)


def widths_text() -> str:
    """The same for readers."""
    stages = ", ".join(f"{bits} in stage {name[1:]}" for name, bits in STAGE_BITS.items())
    return (
        f"weights of {stages}, {END_BITS} in first convolution and FC; activations of 6 bits, residuals "
        "of 8"
    )


def model_file() -> pathlib.Path:
    """The network's file, made from the seed on the first run."""
    images, _ = photographs((224, 224))
    return kept_untrained(RESNET50, widths(), LABEL, images, SEED, cache_folder())


def overflow(inputs: Integer[np.ndarray, "n ..."]) -> float:
    """Share of values that are clamped at the requantization where most are."""
    graph, weights, _ = load_model(model_file())
    rates = [wrap_rates(graph, every_value(graph, weights, x[None])) for x in inputs]
    return float(np.mean([list(each.values()) for each in rates], axis=0).max())


def per_inference(made: Plan) -> int:
    """Bits of a first inference but for what a client gets once."""
    return made.cost().bits - made.cost("install").bits


def block_of(
    graph: Graph,
    weights: Mapping[str, Int[np.ndarray, "*s"]],
    values: Mapping[str, Int[np.ndarray, "n ..."]],
    name: str,
) -> tuple[Graph, dict[str, Int[np.ndarray, "*s"]], Int[np.ndarray, "*s"]]:
    """One block as a network of its own, with the tensor that reaches it as its input."""
    names = {node.name for node in graph if node.name.split(".")[0] == name}
    while True:
        outside = {s for n in names for s in graph[n].sources} - names
        # What convolutions read is cut from the residual just before the block.
        cuts = {o for o in outside if set(graph[o].sources) & outside}
        if not cuts:
            break
        names |= cuts
    (outer,) = outside
    inside = [node for node in graph if node.name in names]
    small = Graph((Input(outer, (), graph[outer].out), *inside))
    kept = {k: v for k, v in weights.items() if k.split("/")[0] in names}
    return small, kept, values[outer][0]


def compute_quick(
    path: pathlib.Path,
    inputs: Integer[np.ndarray, "n ..."],
    protocols: Iterable[str],
    blocks: tuple[str, ...],
) -> dict:
    """Some blocks between two processes; the whole network by the cost model."""
    graph, weights, _ = load_model(path)
    values = every_value(graph, weights, inputs[:1])
    runs, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        for protocol in protocols:
            made = plan(graph, protocol, inferences=INFERENCES)
            bits = seconds = 0.0
            for name in blocks:
                small, kept, x = block_of(graph, weights, values, name)
                file = pathlib.Path(folder) / f"{name}.npz"
                save_model(file, small, kept)
                block, got = checked(file, protocol, x[None])
                runs.append({"block": name, **row_of(block, got, protocol)})
                bits += per_inference(block)
                seconds += runs[-1]["loopback_s"]
            cost = made.cost("offline") + made.cost("online")
            whole.append(
                {
                    "protocol": protocol,
                    "GiB": per_inference(made) / 8 / 2**30,
                    "flows": cost.flows,
                    "estimated_loopback_s": per_inference(made) / bits * seconds,
                    "wan_predicted_s": LINK.seconds(*cost.sent, cost.flows),
                }
            )
    return {"runs": runs, "whole": whole}


def compute_full(
    name: str,
    protocols: Iterable[str],
    path: pathlib.Path,
    inputs: Integer[np.ndarray, "n ..."],
    far_images: int,
) -> list[dict]:
    """The whole network between two processes, with each preset: rows with `outputs`, and traces.

    Args:
      name: of the command's result.
      protocols: presets.
      path: the network's file.
      inputs: integers. All are asked about with the first preset, one twice if there is but one, for
        there are first and later inferences; two with the others, which are run for their costs.
      far_images: how many of them over the slow link.
    """
    inputs = np.concatenate([inputs] * (1 if len(inputs) > 1 else 2))
    runs = []
    for protocol in protocols:
        row, made, got = measure(path, protocol, inputs, far_images)
        timeline.write_trace(f"{name}_{protocol}", made, got)
        runs.append({**row, "outputs": got.outputs.tolist()})
        inputs = inputs[:2]
    return runs


def compute(args: argparse.Namespace) -> dict:
    """What was asked for."""
    settle()
    check_machine()
    about = f"ResNet50 at 224x224, {UNTRAINED}, between two processes, every bit checked"
    took: dict[str, float] = {}
    names = [MAKING, *args.protocols]
    protocols = progress.stages(result_name(args), about, names, took)
    next(protocols)
    path = model_file()
    asked = questions(load_model(path)[0], args.image, args.labelled, args.images)
    inputs = asked.inputs
    config = {
        "seed": SEED,
        "widths": widths_text(),
        "weights": UNTRAINED,
        "pictures": asked.names,
        "labels": asked.labels,
        "quick": args.quick,
        "link": str(LINK),
        "most_overflow": overflow(inputs),
    }
    if args.quick:
        found = compute_quick(path, inputs, protocols, QUICK_BLOCKS)
        return {"config": config, **found, "stages": took}
    runs = compute_full("resnet50", protocols, path, inputs, args.wan_images)
    for row in runs:
        row["predictions"] = [int(np.argmax(y)) for y in row.pop("outputs")]
    return {"config": config, "runs": runs, "stages": took}


def report(tree: dict) -> str:
    """Tables, published rows, and the profile."""
    config = tree["config"]
    head = (
        "# ResNet50, 224x224: private inference in two processes\n\n"
        f"**{config['weights']}** (seed {config['seed']}): the predictions mean nothing; bits, flows "
        f"and seconds are those of any weights. Bits: {config['widths']}. Of the values that a "
        f"requantization fits into its format, at most {100 * config['most_overflow']:.2g} % are "
        f"clamped (worst layer, these pictures). Pictures: {', '.join(config['pictures'])}.\n\n"
    )
    return head + (quick_report(tree) if config["quick"] else _full(tree))


def quick_report(tree: dict) -> str:
    """Tables of `compute_quick`'s result, and the published rows."""
    measured = [
        {"block": r["block"], "protocol": r["protocol"], **columns(r)} for r in tree["runs"]
    ]
    few = ["block", "protocol", "GiB", "flows", "loopback s", "MiB server, client"]
    whole = [
        {
            "protocol": r["protocol"],
            "GiB (predicted)": r["GiB"],
            "flows (predicted)": r["flows"],
            "loopback s (estimated)": r["estimated_loopback_s"],
            "200 Mbit/s s (predicted)": r["wan_predicted_s"],
        }
        for r in tree["whole"]
    ]
    return (
        "QUICK: these blocks were run between two processes, on the values that reach them; "
        "equal to the reference, bits and flows as predicted:\n\n"
        + table(measured, few)
        + "\n\nThe whole network: bits and flows by the cost model, which is exact; loopback seconds "
        "are those of the blocks above, scaled by bits:\n\n" + table(whole) + "\n\n" + quoted()
    )


def _full(tree: dict) -> str:
    shown = [
        {"system": r["protocol"], "prediction (untrained)": ", ".join(map(str, r["predictions"]))}
        | columns(r)
        for r in tree["runs"]
    ]
    labels = [label for label in tree["config"].get("labels", []) if label is not None]
    right = sum(a == b for a, b in zip(tree["runs"][0]["predictions"], labels, strict=False))
    text = (
        table(shown)
        + (f"\n\nAs labelled: {right} of {len(labels)}, by chance." if labels else "")
        + f"\n\nEvery answer equals the integer reference bit for bit, except by `cheetah`, whose sums "
        f"may be off by one. {NOTE}\n\n" + quoted()
    )
    for protocol in (r["protocol"] for r in tree["runs"]):
        text += timeline.profile(f"resnet50_{protocol}", f"ResNet50, {protocol}")
    return text


def quoted() -> str:
    """The published ImageNet rows, and the network that each is of."""
    rows = []
    for row in published("table11")["rows"]:
        gigabytes = row["gigabytes"][COLUMN]
        if row["name"] in QUOTED and gigabytes is not None:
            network = "MobileNetV2" if row["name"] == ON_MOBILENET else "ResNet50"
            line = {"system (quoted)": row["name"], "network": network, "GB": gigabytes}
            rows.append({**line, "200 Mbit/s s": row["seconds"][COLUMN]})
    return f"{published('source')}, table 11, ImageNet:\n\n" + table(rows) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/resnet50.json`, `.md`, traces and pictures; QUICK runs `resnet50_quick`."""
    options = parser("exp-resnet50", __doc__)
    picture_options(options)
    return run(options, compute, report, arguments, result_name)


def picture_options(options: argparse.ArgumentParser) -> None:
    """What is asked about, and how; the environment's IMAGE, LABELLED and QUICK where not given."""
    image, labelled = os.environ.get("IMAGE") or None, int(os.environ.get("LABELLED") or 0)
    quick = os.environ.get("QUICK", "0") not in ("", "0")
    options.add_argument("--image", type=pathlib.Path, default=image, help="a picture of yours")
    options.add_argument("--images", type=int, default=2, help="photographs to ask about")
    far = "of them over the slow link"
    options.add_argument("--wan-images", type=int, default=2, help=far)
    options.add_argument(
        "--labelled", type=int, default=labelled, help="labelled photographs of PQJAX_DATA instead"
    )
    options.add_argument("--protocols", nargs="*", default=list(USUAL))
    shorter = "one block of each stage, the rest predicted"
    options.add_argument("--quick", action="store_true", default=quick, help=shorter)


def result_name(args: argparse.Namespace) -> str:
    """A quick answer does not replace a full one."""
    return "resnet50_quick" if args.quick else "resnet50"


if __name__ == "__main__":
    sys.exit(main())
