"""Private inference of small networks in two processes, beside the published rows.

Runs every network of a job with each preset on real test images, over loopback and over an emulated 200
Mbit/s link with 13 ms round trip; checks every answer against the integer reference and every layer's
bits and flows against the plan.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, Integer, UInt8

from experiments import progress
from experiments.command import parser, run
from experiments.formats import CRYPTFLOW2, SIRNN, in_format
from experiments.images import cifar_test, photographs
from experiments.record import published, table
from experiments.rows import LINK, NOTE, PROTOCOLS, columns, measure, row_of
from experiments.two_processes import checked, run_two_processes
from nets.photographs import SIDE
from nets.untrained import UNTRAINED
from pqjax import load_model, plan, reference
from pqjax.engine.process import settle
from pqjax.errors import PqjaxError
from pqjax.graph import Graph
from pqjax.pictures import picture_input

CHECKPOINTS = pathlib.Path(__file__).parents[1] / "nets" / "checkpoints"
BASELINES = ("cryptflow2", "sirnn", "sirnn-choice1")  # one image over loopback
QUOTED = ("CrypTFlow2", "SiRNN", "COINN", "CoPriv", "PrivQuant")
_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that a job runs.

    Attributes:
      name: <architecture>_<what it is>.
      data: whose pictures it is asked about: cifar10, cifar100 or imagenet.
      file: finds or makes its file.
    """

    name: str
    data: str
    file: Callable[[], pathlib.Path]


def committed(name: str, data: str) -> Network:
    """One of the trained networks in this repository."""
    return Network(name, data, lambda: CHECKPOINTS / f"{name}.npz")


@dataclasses.dataclass(frozen=True)
class Job:
    """What one command runs.

    Attributes:
      name: of the command (exp-<name>) and of its results.
      title: of the report.
      networks: the first one also runs with the baselines.
      column: of the published end-to-end table; None for networks that it does not have.
    """

    name: str
    title: str
    networks: tuple[Network, ...]
    column: int | None = None


def accuracy(
    graph: Graph,
    weights: Mapping[str, Int[np.ndarray, "*s"]],
    images: UInt8[np.ndarray, "n h w 3"],
    labels: Integer[np.ndarray, " n"],
) -> float:
    """Top-1 of the integer reference on labelled images."""
    right = 0
    for at in range(0, len(images), _BATCH):
        x = np.stack([picture_input(graph, p) for p in images[at : at + _BATCH]])
        y = reference(graph, weights, x)
        right += int((y.argmax(1) == labels[at : at + _BATCH]).sum())
    return right / len(images)


def predicted(graph: Graph) -> list[dict]:
    """The same architecture in the formats that the published systems ran, by the cost model."""
    found = []
    for system, to, protocol in (
        ("CrypTFlow2, 37 bit", CRYPTFLOW2, "cryptflow2"),
        ("SiRNN, 16 bit, choice (4)", SIRNN, "sirnn"),
        ("SiRNN, 16 bit, choice (1)", SIRNN, "sirnn-choice1"),
    ):
        made = plan(in_format(graph, to), protocol)
        cost = made.cost()
        found.append(
            {
                "system": system,
                "protocol": protocol,
                "GiB": cost.bits / 8 / 2**30,
                "flows": (made.cost("offline") + made.cost("online")).flows,
            }
        )
    return found


def starts(
    path: pathlib.Path, protocol: str, inputs: Integer[np.ndarray, "n ..."]
) -> dict[str, float]:
    """Seconds from starting the server to the first answer, kernels compiled anew and cached."""
    with tempfile.TemporaryDirectory() as cache:
        place = pathlib.Path(cache)
        runs = [run_two_processes(path, protocol, inputs, cache=place) for _ in range(2)]
    cold, warm = (got.server_start + got.joined_seconds for got in runs)
    return {"first_compiling_s": cold, "first_cached_s": warm}


def pictures(data: str) -> tuple[UInt8[np.ndarray, "n h w 3"], np.ndarray | None, str]:
    """What networks for a data set are asked about, labels if there are any, and the origin in words."""
    if data != "imagenet":
        return cifar_test(data)
    found, names = photographs((SIDE, SIDE))
    return found, None, f"photographs of scikit-image ({', '.join(names)})"


def report(tree: dict) -> str:
    """The table: measured rows, predicted ones, published ones."""
    config, shown = tree["config"], []
    for row in tree["runs"]:
        line = {"system": f"{row['protocol']}, {_label(row['network'])}"}
        line["top-1"] = _percent(tree["top1"].get(row["network"]))
        line |= columns(row)
        if "first_compiling_s" in row:
            line["from the server's start s, compiling / cached"] = (
                f"{row['first_compiling_s']:.0f} / {row['first_cached_s']:.0f}"
            )
        shown.append(line)
    for row in tree["predicted"]:
        shown.append(
            {"system": f"{row['system']} (predicted)", "GiB": row["GiB"], "flows": row["flows"]}
        )
    quoted, column = published("table11"), config["column"]
    origin = "The published end-to-end table has no such network.\n"
    if column is not None:
        for row in quoted["rows"]:
            gigabytes = row["gigabytes"][column]
            if row["name"] in QUOTED and gigabytes is not None:
                line = {"system": f"{row['name']} (quoted)", "GiB": gigabytes}
                shown.append({**line, "200 Mbit/s s": row["seconds"][column]})
        origin = f"Quoted rows, their GB as printed: {published('source')}, table 11: "
        origin += f"{quoted['title']}.\n"
    return (
        f"# {config['title']}: private inference in two processes\n\n"
        + table(shown)
        + f"\n\nImages: {config['source']}. {NOTE} Every answer equals the integer reference bit for "
        "bit, except by `cheetah`, whose sums may be off by one. The baselines (`cryptflow2`, `sirnn`) "
        "run our quantized network with the published systems' protocols, one image over loopback; "
        "predicted rows are the same architecture in the formats those systems were published with. "
        + origin
    )


def _label(network: str) -> str:
    return network.split("_", 1)[1].upper().replace("_", " ")


def _percent(top1: object) -> str:
    return f"{100 * top1:.2f} %" if isinstance(top1, float) else str(top1 or "")


def compute(job: Job, args: argparse.Namespace) -> dict:
    """Every network with every preset."""
    if not 0 < args.wan_images <= args.images:
        raise PqjaxError(
            f"0 < --wan-images <= --images expected, got {args.wan_images} and {args.images}"
        )
    settle()
    chosen = {network.name: network for network in job.networks if network.name in args.networks}
    baselines = () if args.no_baselines else BASELINES
    tasks = {
        f"{name} {protocol}": (name, protocol)
        for name in chosen
        for protocol in (*args.protocols, *(baselines if name == job.networks[0].name else ()))
    }
    about = f"{job.title}: every preset between two processes, every answer and bit checked"
    top1: dict[str, float | str | None] = {}
    took: dict[str, float] = {}
    runs, origins, asked = [], {}, {}
    for stage in progress.stages(job.name, about, list(tasks), took):
        name, protocol = tasks[stage]
        path = chosen[name].file()
        if name not in asked:
            images, labels, origins[name] = pictures(chosen[name].data)
            graph, weights, meta = load_model(path)
            asked[name] = np.stack([picture_input(graph, p) for p in images[: args.images]])
            if meta.get("weights") == UNTRAINED:
                top1[name] = UNTRAINED
            elif labels is not None and not args.no_accuracy:
                top1[name] = accuracy(graph, weights, images, labels)
        if protocol in BASELINES:
            made, local = checked(path, protocol, asked[name][:1])
            row = row_of(made, local, protocol)
        else:
            row, *_ = measure(path, protocol, asked[name], args.wan_images)
            if not args.no_starts:
                row |= starts(path, protocol, asked[name][:1])
        runs.append({"network": name, **row})
    config = {"title": job.title, "column": job.column, "images": args.images}
    config |= {"wan_images": args.wan_images, "link": str(LINK), "seed": None}
    config["source"] = "; ".join(dict.fromkeys(origins.values()))
    formats = predicted(load_model(job.networks[0].file())[0])
    found = {"config": config, "runs": runs, "top1": top1, "predicted": formats}
    return {**found, "stages": took}


def main(job: Job, arguments: list[str] | None = None) -> int:
    """Runs everything and writes `results/<job>.json` and `.md`."""
    options = parser(f"exp-{job.name}", f"{job.title}: private inference in two processes.")
    names = [network.name for network in job.networks]
    options.add_argument("--images", type=int, default=4, help="images per network and preset")
    options.add_argument("--wan-images", type=int, default=2, help="of them over the slow link")
    options.add_argument("--networks", nargs="*", default=names, choices=names)
    options.add_argument("--protocols", nargs="*", default=list(PROTOCOLS))
    options.add_argument("--no-accuracy", action="store_true", help="skip the full test set")
    options.add_argument("--no-baselines", action="store_true", help="skip CrypTFlow2 and SiRNN")
    options.add_argument("--no-starts", action="store_true", help="skip compiling all kernels anew")
    return run(options, lambda args: compute(job, args), report, arguments)
