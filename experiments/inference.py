"""Private inference of committed networks in two processes, beside the published rows.

Runs every committed network of a job with each preset on real test images, over loopback and over an
emulated 200 Mbit/s link with 13 ms round trip; checks every answer against the integer reference and
every layer's bits and flows against the plan.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Integer, UInt8

from experiments import two_processes
from experiments.command import parser, run
from experiments.formats import CRYPTFLOW2, SIRNN, in_format
from experiments.images import cifar_test
from experiments.record import published, table
from experiments.two_processes import INFERENCES, checked, row_of, run_two_processes
from pqjax import Link, load_model, plan, reference
from pqjax.errors import PqjaxError
from pqjax.graph import Graph
from pqjax.pictures import picture_input

CHECKPOINTS = pathlib.Path(__file__).parents[1] / "nets" / "checkpoints"
PROTOCOLS = ("privquant", "pqjax-ot", "pqjax")  # with times over both links
BASELINES = ("cryptflow2", "sirnn", "sirnn-choice1")  # one image over loopback
QUOTED = ("CrypTFlow2", "SiRNN", "COINN", "CoPriv", "PrivQuant")
LINK = Link(mbps=200, rtt_ms=13)
_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Job:
    """What one command runs.

    Attributes:
      name: of the command (exp-<name>), of its results and of the networks' files.
      title: of the report.
      data: the CIFAR set whose test images are asked about.
      networks: file names without suffix; the first one also runs with the baselines.
      column: of the published end-to-end table.
    """

    name: str
    title: str
    data: str
    networks: tuple[str, ...]
    column: int


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


def measure_baseline(name: str, protocol: str, inputs: Integer[np.ndarray, "n ..."]) -> dict:
    """One network with one published system's protocols, once over loopback."""
    made, local = checked(CHECKPOINTS / f"{name}.npz", protocol, inputs)
    return {"network": name, "images": len(inputs), **row_of(made, local, protocol)}


def measure(
    name: str, protocol: str, inputs: Integer[np.ndarray, "n ..."], wan_images: int
) -> dict:
    """One network with one preset: all figures of a table row, and the checks."""
    path = CHECKPOINTS / f"{name}.npz"
    made, local = checked(path, protocol, inputs)
    _, far = checked(path, protocol, inputs[:wan_images], LINK)
    warm = local.each[1:] or local.each
    cost = made.cost("offline") + made.cost("online")
    bound = LINK.seconds(*cost.sent, cost.flows)
    far_seconds = far.each[-1]["offline"] + far.each[-1]["online"]
    return {
        "network": name,
        "images": len(inputs),
        **row_of(made, local, protocol),
        "online_flows": made.cost("online").flows,
        "loopback_s": float(np.median([e["offline"] + e["online"] for e in warm])),
        "loopback_online_s": float(np.median([e["online"] for e in warm])),
        **starts(path, protocol, inputs[:1]),
        "wan_s": far_seconds,
        "wan_online_s": far.each[-1]["online"],
        "wan_bound_s": bound,
        "wan_ratio": far_seconds / bound,
        "each": local.each,
        "wan_each": far.each,
    }


def predicted(name: str) -> list[dict]:
    """The same architecture in the formats that the published systems ran, by the cost model."""
    graph, _, _ = load_model(CHECKPOINTS / f"{name}.npz")
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
        cold = run_two_processes(path, protocol, inputs, cache=place).first_seconds
        warm = run_two_processes(path, protocol, inputs, cache=place).first_seconds
    return {"first_compiling_s": cold, "first_cached_s": warm}


def report(tree: dict) -> str:
    """The table: measured rows, predicted ones, published ones."""
    config, shown = tree["config"], []
    for row in tree["runs"]:
        value = tree["top1"][row["network"]]
        line = {
            "system": f"{row['protocol']}, {row['network'].split('_', 1)[1].upper()}",
            "top-1": "" if value is None else f"{100 * value:.2f} %",
            **two_processes.once(row),
            "GiB": row["GiB"],
            "offline MB": round(row["offline_bytes"] / 1e6, 3),
            "online MB": row["online_bytes"] / 1e6,
            "flows": row["flows"],
            "loopback s": row["loopback_s"],
        }
        if "wan_s" in row:
            line |= {
                "of it online": row["loopback_online_s"],
                "200 Mbit/s s": row["wan_s"],
                "of it online s": row["wan_online_s"],
                "x bound": row["wan_ratio"],
                "first answer s, compiling / cached": (
                    f"{row['first_compiling_s']:.0f} / {row['first_cached_s']:.0f}"
                ),
            }
        line["MiB server, client"] = f"{row['server_MiB']:.0f}, {row['client_MiB']:.0f}"
        shown.append(line)
    for row in tree["predicted"]:
        shown.append(
            {"system": f"{row['system']} (predicted)", "GiB": row["GiB"], "flows": row["flows"]}
        )
    quoted = published("table11")
    for row in quoted["rows"]:
        gigabytes = row["gigabytes"][config["column"]]
        if row["name"] in QUOTED and gigabytes is not None:
            line = {"system": f"{row['name']} (quoted)", "GiB": gigabytes}
            shown.append({**line, "200 Mbit/s s": row["seconds"][config["column"]]})
    return (
        f"# {config['title']}: private inference in two processes\n\n"
        + table(shown)
        + f"\n\nImages: {config['source']}. GiB and flows are exact and equal what both processes "
        "metered, layer by layer; once MB is what a client gets before its first inference, for plans "
        f"made for {INFERENCES} of them, and in no other column; the published rows' GB are taken as "
        "printed. Seconds are medians of warm runs at the client; x bound is the time over bits / rate "
        "+ flows x 6.5 ms. Every answer equals the integer reference bit for bit. The baselines "
        "(`cryptflow2`, `sirnn`) run our quantized network with the published systems' protocols, one "
        "image over loopback; predicted rows are the same architecture in the formats those systems "
        "were published with.\n"
        f"Quoted rows: {published('source')}, table 11: {quoted['title']}.\n"
    )


def compute(job: Job, args: argparse.Namespace) -> dict:
    """Every network with every preset."""
    if not 0 < args.wan_images <= args.images:
        raise PqjaxError(
            f"0 < --wan-images <= --images expected, got {args.wan_images} and {args.images}"
        )
    images, labels, origin = cifar_test(job.data)
    top1: dict[str, float | None] = dict.fromkeys(args.networks)
    runs = []
    for name in args.networks:
        graph, weights, _ = load_model(CHECKPOINTS / f"{name}.npz")
        if labels is not None and not args.no_accuracy:
            top1[name] = accuracy(graph, weights, images, labels)
        inputs = np.stack([picture_input(graph, p) for p in images[: args.images]])
        for protocol in PROTOCOLS:
            print(f"{name} with {protocol} ...", file=sys.stderr, flush=True)
            runs.append(measure(name, protocol, inputs, args.wan_images))
        for protocol in BASELINES if not args.no_baselines and name == job.networks[0] else ():
            print(f"{name} with {protocol} ...", file=sys.stderr, flush=True)
            runs.append(measure_baseline(name, protocol, inputs[:1]))
    config = {"title": job.title, "column": job.column, "images": args.images}
    config |= {"wan_images": args.wan_images, "link": str(LINK), "source": origin, "seed": None}
    return {"config": config, "runs": runs, "top1": top1, "predicted": predicted(job.networks[0])}


def main(job: Job, arguments: list[str] | None = None) -> int:
    """Runs everything and writes `results/<job>.json` and `.md`."""
    options = parser(f"exp-{job.name}", f"{job.title}: private inference in two processes.")
    options.add_argument("--images", type=int, default=4, help="images per network and preset")
    options.add_argument("--wan-images", type=int, default=2, help="of them over the slow link")
    options.add_argument("--networks", nargs="*", default=list(job.networks))
    options.add_argument("--no-accuracy", action="store_true", help="skip the full test set")
    options.add_argument("--no-baselines", action="store_true", help="skip CrypTFlow2 and SiRNN")
    return run(options, lambda args: compute(job, args), report, arguments)
