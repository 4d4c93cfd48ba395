"""Several images at a time: `make exp-batches`.

Runs MiniONN and ResNet32 in two processes with 1 to 16 images an inference, every answer and every bit
checked, and says what an image takes.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from experiments.command import parser, run
from experiments.record import table
from experiments.seconds import NETWORKS, PROTOCOL
from experiments.two_processes import INFERENCES, checked
from pqjax import load_model
from pqjax.engine.process import settle
from pqjax.errors import PqjaxError
from pqjax.he import STATIC, Tiling
from pqjax.layers.linear import job_of
from pqjax.linear.choice import Packing
from pqjax.linear.keys import Secrets, keys_cost
from pqjax.planner import Plan
from pqjax.wire.cost import total
from pqjax.wire.link import parse_link

BATCHES = (1, 2, 4, 8, 16)
LINKS = ("none", "200mbps,13ms")
_SIZES = ("install_bytes", "offline_bytes", "online_bytes", "filled_bytes")


def compute(args: argparse.Namespace) -> dict:
    """Every network on every link in every batch: a first inference, and others."""
    settle()
    if args.inferences < 2:
        raise PqjaxError(f"--inferences 2 or more expected, got {args.inferences}")
    runs = []
    for name in args.networks:
        if name not in NETWORKS:
            raise PqjaxError(f"--networks of {', '.join(NETWORKS)} expected, got {name}")
        file, pictures = NETWORKS[name]
        path, most = file(), args.inferences * max(args.batches)
        images = pictures(load_model(path)[0], most)
        images = images[np.arange(most) % len(images)]
        for text in args.links:
            for batch in args.batches:
                print(f"{name}, {batch} at a time, {text} ...", file=sys.stderr, flush=True)
                inputs = images[: args.inferences * batch]
                made, got = checked(path, PROTOCOL, inputs, parse_link(text), batch)
                runs.append({"network": name, "link": text, **row_of(made, got)})
    config = {"protocol": PROTOCOL, "inferences": args.inferences, "seed": None}
    return {"config": config, "runs": runs}


def row_of(made: Plan, got) -> dict:
    """What a checked session says of itself: bytes and seconds of a whole later inference."""
    lines, later = made.schedule(1), got.each[1:]
    sent = {p: total(x.cost for x in lines if x.phase == p) for p in ("offline", "online")}
    return {
        "batch": made.batch,
        "install_bytes": made.cost("install").bits / 8,
        **{f"{phase}_bytes": cost.bits / 8 for phase, cost in sent.items()},
        "filled_bytes": unfilled_bits(made) / 8,
        "flows": (sent["offline"] + sent["online"]).flows,
        **{f"{p}_s": float(np.median([x[p] for x in later])) for p in ("offline", "online")},
        "server_MiB": got.server["peak_bytes"] / 2**20,
        "client_MiB": got.client["peak_bytes"] / 2**20,
    }


def unfilled_bits(made: Plan) -> int:
    """Bits of an inference that tiles filled by several images would not send.

    Of keys, if as many tiles as have room shared a secret in every layer; and of masked operands where
    whole polynomials travel. Hints would have to be of other layouts, which this counts nothing for.
    """
    saved, needed = 0, [Secrets()]
    for step in made.steps:
        choice = step.task.choice
        if choice is None or not isinstance(choice.packing, Packing):
            continue
        packing, job = choice.packing, job_of(step.task)
        t = Tiling(job.map, STATIC.degree, packing.tile, packing.filters, packing.merged)
        room = STATIC.degree // (t.channels * t.area * t.filters) if t.polynomials == 1 else 1
        shared = -(-t.tiles // min(room, made.batch))
        if t.filters > 1:
            saved += (t.tiles - shared) * t.slots * packing.sent_bits
        own = made.secrets
        needed.append(Secrets(shared, shared if packing.merged > 1 else 0, own.digits))
    fewest = Secrets.of_all(needed)
    return saved + keys_cost(made.secrets).bits - keys_cost(fewest).bits


def report(tree: dict) -> str:
    """What one image takes, of a batch."""
    return (
        "# Several images at a time\n\n"
        + table([_shown(row) for row in tree["runs"]])
        + f"\n\nProtocol `{tree['config']['protocol']}`, planned for {INFERENCES} batches of a client; "
        "two processes and a relay on this machine. Every answer equals the integer reference, bits and "
        "flows are those that both processes metered. Flows and memory are of a whole batch, once MB of "
        "a client; all else is an image's share of a later batch, seconds the median at the client. "
        "Filled MB is computed: what an image would send less if several shared polynomials that one "
        "leaves empty, keys included.\n"
    )


def _shown(row: dict) -> dict:
    n = row["batch"]
    mb = {key: row[key] / 1e6 / (1 if key == "install_bytes" else n) for key in _SIZES}
    return {
        "network": row["network"],
        "link": "loopback" if row["link"] == "none" else row["link"],
        "images": n,
        "once MB": round(mb["install_bytes"], 3),
        "offline MB": round(mb["offline_bytes"], 3),
        "online MB": round(mb["online_bytes"], 3),
        "filled MB": round(mb["filled_bytes"], 3),
        "flows": row["flows"],
        "offline s": row["offline_s"] / n,
        "online s": row["online_s"] / n,
        "s": (row["offline_s"] + row["online_s"]) / n,
        "MiB server, client": f"{row['server_MiB']:.0f}, {row['client_MiB']:.0f}",
    }


def main(arguments: list[str] | None = None) -> int:
    """Runs everything and writes `batches.json` and `.md`."""
    options = parser("exp-batches", __doc__)
    inferences = "of a session, the first included"
    options.add_argument("--inferences", type=int, default=3, help=inferences)
    options.add_argument("--networks", nargs="*", default=["minionn", "resnet32"])
    options.add_argument("--links", nargs="*", default=list(LINKS))
    options.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    return run(options, compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
