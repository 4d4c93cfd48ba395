"""Seconds predicted beside seconds measured: `make exp-seconds`.

Calibrates this machine, predicts what each phase of an inference takes on loopback and on emulated
networks, and runs them in two processes there.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
from collections.abc import Callable

import numpy as np
from jaxtyping import Integer

from experiments import imagenet, mobilenetv2, resnet50
from experiments.command import parser, run
from experiments.images import cifar_test, photographs
from experiments.inference import CHECKPOINTS
from experiments.record import table
from experiments.two_processes import INFERENCES, checked
from pqjax import load_model, plan
from pqjax.engine.calibration import calibrate
from pqjax.engine.process import settle
from pqjax.errors import PqjaxError
from pqjax.graph import Graph
from pqjax.pictures import picture_input
from pqjax.planner.forecast import phases
from pqjax.wire.link import LAN, Link, parse_link
from pqjax.wire.work import UNITS

PROTOCOL = "pqjax"
LINKS = ("none", str(LAN), "200mbps,13ms", "350mbps,40ms")
AIM = 0.15
_PHASES = ("install", "offline", "online")


def _cifar(data: str) -> Callable[[Graph, int], Integer[np.ndarray, "n ..."]]:
    return lambda graph, n: _asked(graph, cifar_test(data)[0][:n])


def _photographs(graph: Graph, n: int) -> Integer[np.ndarray, "n ..."]:
    found = photographs((224, 224))[0]
    return _asked(graph, np.stack([found[i % len(found)] for i in range(n)]))


def _asked(graph: Graph, images: np.ndarray) -> Integer[np.ndarray, "n ..."]:
    return np.stack([picture_input(graph, image) for image in images])


# Where each network's file comes from, and its pictures.
NETWORKS: dict[str, tuple[Callable[[], pathlib.Path], Callable]] = {
    "minionn": (lambda: CHECKPOINTS / "minionn_w2a4_long.npz", _cifar("cifar10")),
    "resnet32": (lambda: CHECKPOINTS / "resnet32_w4a6_long.npz", _cifar("cifar100")),
    "resnet18": (lambda: CHECKPOINTS / "resnet18_w4a6_long.npz", _cifar("cifar100")),
    "mobilenetv2": (lambda: imagenet.model_file(mobilenetv2.NETWORK, "W8A8")[0], _photographs),
    "resnet50": (resnet50.model_file, _photographs),
}


def compute(args: argparse.Namespace) -> dict:
    """Every network on every link."""
    settle()
    links = {text: parse_link(text) for text in args.links}
    if args.images < 2:
        raise PqjaxError(
            f"--images 2 or more expected, got {args.images}: the first one is left out"
        )
    _say("calibrating ...")
    load, rates = os.getloadavg()[0], calibrate()
    runs = []
    for name in args.networks:
        if name not in NETWORKS:
            raise PqjaxError(f"--networks of {', '.join(NETWORKS)} expected, got {name}")
        file, pictures = NETWORKS[name]
        path = file()
        graph = load_model(path)[0]
        made = plan(graph, PROTOCOL, inferences=INFERENCES, rates=rates)
        inputs = pictures(graph, args.images)
        for text, link in links.items():
            _say(f"{name} on {text} ...")
            runs += _rows(name, text, link, made, path, inputs)
    config = {"images": args.images, "protocol": PROTOCOL, "seed": None, "load": load}
    seconds = dict(zip(UNITS, rates.seconds, strict=True))
    return {"config": config, "runs": runs, "rates": {"seconds": seconds, "turn_s": rates.turn_s}}


def _rows(name: str, text: str, link: Link | None, made, path: pathlib.Path, inputs) -> list[dict]:
    """A row a phase."""
    load = os.getloadavg()[0]
    _, got = checked(path, PROTOCOL, inputs, link)
    # An inference leaves OTs for the next, so they differ.
    told = [phases(made, link, i) for i in range(len(inputs))]
    seen = {"install": [got.client["seconds"]["install"]]}
    seen |= {phase: [each[phase] for each in got.each[1:]] for phase in ("offline", "online")}
    return [
        {
            "network": name,
            "link": text,
            "phase": phase,
            "predicted_s": [x[phase] for x in (told[:1] if phase == "install" else told[1:])],
            "measured_s": seen[phase],
            "load": load,
        }
        for phase in _PHASES
        if sum(seen[phase])
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(tree: dict) -> str:
    """Ratios of every phase, and of both phases of an inference."""
    totals = [_shown(row) for row in _totals(tree["runs"])]
    shown = [_shown(row) for row in tree["runs"]]
    within = sum(abs(float(row["predicted / measured"]) - 1) <= AIM for row in totals)
    return (
        "# Seconds, predicted and measured\n\n"
        + table(totals)
        + f"\n\n{within} of {len(totals)} sessions, offline and online phase together, are predicted "
        f"within {100 * AIM:.0f} %.\n\n"
        + table(shown)
        + f"\n\nProtocol `{tree['config']['protocol']}`, two processes and a relay on this machine. "
        "Of a session's inferences, all but the first at the client: seconds are means, the ratio is "
        "the median of each one's. Predictions are by rates measured in the same run, of networks that "
        "are none of these. The load is the machine's average of a minute when a session began: above 1 "
        "somebody else was at work, and measured seconds are too many.\n"
    )


def _shown(row: dict) -> dict:
    told, seen = row["predicted_s"], row["measured_s"]
    ratio = statistics.median(a / b for a, b in zip(told, seen, strict=True))
    return {
        "network": row["network"],
        "link": "loopback" if row["link"] == "none" else row["link"],
        "phase": row["phase"],
        "predicted s": statistics.mean(told),
        "measured s": statistics.mean(seen),
        "predicted / measured": f"{ratio:.2f}",
        "measured from .. to": f"{min(seen):.3g} .. {max(seen):.3g}",
        "load": f"{row['load']:.1f}",
    }


def _totals(rows: list[dict]) -> list[dict]:
    """Offline and online phase together."""
    found: dict[tuple[str, str], dict] = {}
    for row in rows:
        key = row["network"], row["link"]
        if row["phase"] != "install" and key in found:
            for side in ("predicted_s", "measured_s"):
                pairs = zip(found[key][side], row[side], strict=True)
                found[key][side] = [a + b for a, b in pairs]
        elif row["phase"] != "install":
            found[key] = {**row, "phase": "both"}
    return list(found.values())


def main(arguments: list[str] | None = None) -> int:
    """Runs everything and writes `results/seconds.json` and `.md`."""
    options = parser("exp-seconds", __doc__)
    options.add_argument(
        "--images", type=int, default=4, help="inferences of a session, the first included"
    )
    options.add_argument("--networks", nargs="*", default=list(NETWORKS))
    options.add_argument("--links", nargs="*", default=list(LINKS))
    return run(options, compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
