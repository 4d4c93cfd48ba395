"""A row of a network's table, for all networks the same: what is run, recorded and shown."""

from __future__ import annotations

import pathlib

import numpy as np
from jaxtyping import Integer

from experiments.two_processes import INFERENCES, Run, checked, phase_bytes
from pqjax import Link
from pqjax.planner import Plan
from pqjax.wire.cost import total
from pqjax.wire.trace import PHASES

LINK = Link(mbps=200, rtt_ms=13)
PROTOCOLS = ("pqjax", "pqjax-ot", "privquant", "hequant", "cheetah")
PATIENCE_S = 300.0  # what takes longer by its messages alone is not run over the slow link
# Column and what a row calls it; what a row lacks or has none of stays blank.
_COLUMNS = (
    ("once MB", "install_bytes"),
    ("made in s", "hint_s"),
    ("GiB", "GiB"),
    ("first MB", "first_bytes"),
    ("next MB", "next_bytes"),
    ("offline MB", "offline_bytes"),
    ("online MB", "online_bytes"),
    ("flows", "flows"),
    ("differing answers", "differing_answers"),
    ("first s", "first_s"),
    ("loopback s", "loopback_s"),
    ("of it online", "online_s"),
    ("200 Mbit/s first s", "wan_first_s"),
    ("200 Mbit/s s", "wan_s"),
    ("of it online s", "wan_online_s"),
    ("messages alone s (predicted)", "wan_bound_s"),
)
NOTE = (
    "GiB and flows are exact and equal what both processes metered, layer by layer: of a first "
    "inference, without what a client gets once. That is once MB, for plans made for "
    f"{INFERENCES} inferences; the server makes it once. First MB holds all there is before and in a "
    "first inference, next MB a later one. First s is from dialling to the first answer, the other "
    "seconds are medians of later ones, at the client. Messages alone: bits / rate + flows x 6.5 ms; "
    f"where that is more than {PATIENCE_S:.0f} s nothing was run at 200 Mbit/s, 13 ms round trip."
)


def row_of(made: Plan, got: Run, protocol: str) -> dict:
    """What a checked session over loopback says of itself."""
    cost, later = made.cost("offline") + made.cost("online"), got.each[1:] or got.each
    once = made.cost("install").bits
    return {
        "protocol": protocol,
        "images": len(got.outputs),
        "equal_to_reference": not got.differing,
        "differing_answers": got.differing,
        "bits_as_predicted": True,
        "GiB": (made.cost().bits - once) / 8 / 2**30,
        "first_bytes": made.cost().bits / 8,
        "next_bytes": total(line.cost for line in made.schedule(1)).bits / 8,
        "hint_s": got.hint_seconds if once else 0.0,
        **{f"{phase}_bytes": phase_bytes(got, phase) for phase in PHASES},
        "flows": cost.flows,
        "online_flows": made.cost("online").flows,
        "first_s": got.joined_seconds,
        "loopback_s": float(np.median([e["offline"] + e["online"] for e in later])),
        "online_s": float(np.median([e["online"] for e in later])),
        "wan_bound_s": LINK.seconds(*cost.sent, cost.flows),
        "server_MiB": got.server["peak_bytes"] / 2**20,
        "client_MiB": got.client["peak_bytes"] / 2**20,
        "each": got.each,
    }


def measure(
    path: pathlib.Path, protocol: str, inputs: Integer[np.ndarray, "n ..."], far_images: int
) -> tuple[dict, Plan, Run]:
    """One network with one preset, over loopback and over `LINK`: the row, the plan, the loopback run.

    Args:
      path: the network's file.
      protocol: preset.
      inputs: integers.
      far_images: how many of them are asked about over the slow link, where that takes less than
        `PATIENCE_S` by its messages; 0 for none.
    """
    made, got = checked(path, protocol, inputs)
    row = row_of(made, got, protocol)
    if far_images and row["wan_bound_s"] <= PATIENCE_S:
        _, far = checked(path, protocol, inputs[:far_images], LINK)
        row |= {
            "wan_first_s": far.joined_seconds,
            "wan_s": far.each[-1]["offline"] + far.each[-1]["online"],
            "wan_online_s": far.each[-1]["online"],
            "wan_each": far.each,
        }
    return row, made, got


def columns(row: dict) -> dict:
    """What the tables show of a row."""
    shown = {
        title: round(row[key] / 1e6, 3) if key.endswith("_bytes") else row[key]
        for title, key in _COLUMNS
        if row.get(key)
    }
    memory = f"{row['server_MiB']:.0f}, {row['client_MiB']:.0f}"
    return {**shown, "MiB server, client": memory}
