"""`make exp-minionn`: private MiniONN on CIFAR-10, two processes, beside the published rows.

Runs every committed quantized MiniONN with each preset on real test images, over loopback and over an
emulated 200 Mbit/s link with 13 ms round trip; checks every answer against the integer reference and
every layer's bits and flows against the plan.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import numpy as np

from experiments.command import parser
from experiments.images import cifar10_test
from experiments.record import RESULTS, published, table, write
from experiments.two_processes import differences, phase_bytes, run_two_processes
from pqjax import Link, load_model, plan, reference
from pqjax.errors import PqjaxError
from pqjax.pictures import picture_input

CHECKPOINTS = pathlib.Path(__file__).parents[1] / "nets" / "checkpoints"
NETWORKS = ("minionn_w2a4", "minionn_w4a4")
PROTOCOLS = ("privquant", "pqjax")
QUOTED = ("CrypTFlow2", "SiRNN", "COINN", "PrivQuant")
LINK = Link(mbps=200, rtt_ms=13)
_BATCH = 500


def accuracy(graph, weights, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 of the integer reference on labelled images."""
    right = 0
    for at in range(0, len(images), _BATCH):
        x = np.stack([picture_input(graph, p) for p in images[at : at + _BATCH]])
        y = reference(graph, weights, x)
        right += int((y.argmax(1) == labels[at : at + _BATCH]).sum())
    return right / len(images)


def measure(name: str, protocol: str, images: np.ndarray, wan_images: int) -> dict:
    """One network with one preset: all figures of a table row, and the checks."""
    path = CHECKPOINTS / f"{name}.npz"
    graph, weights, _ = load_model(path)
    made = plan(graph, protocol)
    inputs = np.stack([picture_input(graph, p) for p in images])
    expected = reference(graph, weights, inputs)
    local = run_two_processes(path, protocol, inputs)
    far = run_two_processes(path, protocol, inputs[:wan_images], LINK)
    for run, wanted in ((local, expected), (far, expected[:wan_images])):
        if not np.array_equal(run.outputs, wanted):
            raise PqjaxError(f"{name}, {protocol}: an answer differs from the integer reference")
        found = differences(made, run)
        if found:
            raise PqjaxError(f"{name}, {protocol}: not as predicted: {found[0]}")
    warm = [e["offline"] + e["online"] for e in local.each[1:] or local.each]
    cost = made.cost("offline") + made.cost("online")
    bound = LINK.seconds(*cost.sent, cost.flows)
    far_seconds = _total(far.each[-1])
    return {
        "network": name,
        "protocol": protocol,
        "images": len(images),
        "equal_to_reference": True,
        "bits_as_predicted": True,
        "GiB": made.cost().bits / 8 / 2**30,
        "setup_bytes": phase_bytes(local, made, "setup"),
        "offline_bytes": phase_bytes(local, made, "offline"),
        "online_bytes": phase_bytes(local, made, "online"),
        "flows": cost.flows,
        "online_flows": made.cost("online").flows,
        "loopback_s": float(np.median(warm)),
        "loopback_online_s": float(np.median([e["online"] for e in local.each[1:] or local.each])),
        **starts(path, protocol, inputs[:1]),
        "wan_s": far_seconds,
        "wan_online_s": far.each[-1]["online"],
        "wan_bound_s": bound,
        "wan_ratio": far_seconds / bound,
        "server_MiB": local.server["peak_bytes"] / 2**20,
        "client_MiB": local.client["peak_bytes"] / 2**20,
        "each": local.each,
        "wan_each": far.each,
    }


def starts(path: pathlib.Path, protocol: str, inputs: np.ndarray) -> dict[str, float]:
    """Seconds from starting the server to the first answer, kernels compiled anew and cached."""
    with tempfile.TemporaryDirectory() as cache:
        place = pathlib.Path(cache)
        cold = run_two_processes(path, protocol, inputs, cache=place).first_seconds
        warm = run_two_processes(path, protocol, inputs, cache=place).first_seconds
    return {"first_compiling_s": cold, "first_cached_s": warm}


def _total(times: dict) -> float:
    return times["offline"] + times["online"]


def report(rows: list[dict], top1: dict[str, float | None], origin: str) -> str:
    """The table, published rows below ours."""
    shown = []
    for row in rows:
        value = top1[row["network"]]
        shown.append(
            {
                "system": f"{row['protocol']}, {row['network'].removeprefix('minionn_').upper()}",
                "top-1": "" if value is None else f"{100 * value:.2f} %",
                "GiB": row["GiB"],
                "offline MB": round(row["offline_bytes"] / 1e6, 3),
                "online MB": row["online_bytes"] / 1e6,
                "flows": row["flows"],
                "loopback s": row["loopback_s"],
                "of it online": row["loopback_online_s"],
                "200 Mbit/s s": row["wan_s"],
                "of it online s": row["wan_online_s"],
                "x bound": row["wan_ratio"],
                "first answer s, compiling / cached": (
                    f"{row['first_compiling_s']:.0f} / {row['first_cached_s']:.0f}"
                ),
                "MiB server, client": f"{row['server_MiB']:.0f}, {row['client_MiB']:.0f}",
            }
        )
    quoted = published("table11")
    for row in quoted["rows"]:
        if row["name"] in QUOTED:
            shown.append(
                {"system": f"{row['name']} (quoted)", "GiB": row["gigabytes"][0],
                 "200 Mbit/s s": row["seconds"][0]}
            )  # fmt: skip
    return (
        "# MiniONN, CIFAR-10: private inference in two processes\n\n"
        + table(shown, list(shown[0]))
        + f"\n\nImages: {origin}. GiB and flows are exact and equal what both processes metered, layer "
        "by layer; the published rows' GB are taken as printed. Seconds are medians of warm runs at "
        "the client; x bound is the time over bits / rate + flows x 6.5 ms. Every answer equals the "
        "integer reference bit for bit.\n"
        f"Quoted rows: {published('source')}, table 11: {quoted['title']}.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs everything and writes `results/minionn.json` and `.md`."""
    options = parser("exp-minionn", __doc__)
    options.add_argument("--images", type=int, default=4, help="images per network and preset")
    options.add_argument("--wan-images", type=int, default=2, help="of them over the slow link")
    options.add_argument("--networks", nargs="*", default=list(NETWORKS))
    options.add_argument("--no-accuracy", action="store_true", help="skip the full test set")
    args = options.parse_args(arguments)
    try:
        images, labels, origin = cifar10_test()
        top1: dict[str, float | None] = {}
        rows = []
        for name in args.networks:
            graph, weights, _ = load_model(CHECKPOINTS / f"{name}.npz")
            if labels is None or args.no_accuracy:
                top1[name] = None
            else:
                top1[name] = accuracy(graph, weights, images, labels)
            for protocol in PROTOCOLS:
                print(f"{name} with {protocol} ...", file=sys.stderr, flush=True)
                rows.append(
                    measure(
                        name, protocol, images[: args.images], min(args.wan_images, args.images)
                    )
                )
    except PqjaxError as error:
        print(f"exp-minionn: {error}", file=sys.stderr)
        return 1
    config = {"images": args.images, "wan_images": args.wan_images, "link": str(LINK),
              "source": origin, "seed": None}  # fmt: skip
    write("minionn", config, rows, top1=top1)
    text = report(rows, top1, origin)
    (RESULTS / "minionn.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
