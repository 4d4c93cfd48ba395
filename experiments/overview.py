"""`make exp-overview`: ResNet50 by this repository and by others, in one picture for the first page.

Ours are from the results of `exp-resnet50`; the others' are quoted.
"""

from __future__ import annotations

import argparse
import math
import sys

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.command import parser, run
from experiments.plots import COLOURS, STYLE, filled, save
from experiments.record import published, read, table
from experiments.resnet50 import ON_MOBILENET

GIB = 1 << 30
NETWORK = "resnet50"


def compute(args: argparse.Namespace) -> dict:
    """Gigabytes and seconds of an inference by every system."""
    tree, quoted = read(NETWORK), published("table11")
    column = next(i for i, name in enumerate(quoted["networks"]) if "ResNet50" in name)
    runs = [
        {
            "system": f"pqjax, preset {row['protocol']}",
            "GB": row["GiB"] * GIB / 1e9,
            "s": row["loopback_s"],
            "kind": "measured",
            "setting": "two processes, two cores, loopback",
        }
        for row in tree["runs"]
    ]
    for row in quoted["rows"]:
        gigabytes, seconds = row["gigabytes"][column], row["seconds"][column]
        if gigabytes is not None and row["name"] != ON_MOBILENET:
            cell = {"GB": gigabytes, "s": seconds, "kind": "quoted"}
            runs.append({"system": row["name"], **cell, "setting": "200 Mbit/s, 13 ms"})
    runs += [{**row, "kind": "quoted"} for row in published("others")["rows"]]
    return {
        "config": {"seed": None, "network": NETWORK, "measured_at": tree["commit"]},
        "runs": runs,
    }


def picture(rows: list[dict]) -> Figure:
    """Two rows of bars on logarithmic axes: bytes, and seconds; quoted ones hatched."""
    rows = sorted(rows, key=lambda row: -row["GB"])
    with rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(9.0, 0.5 + 0.26 * len(rows)))
        for axes, (key, unit) in zip(figure.subplots(1, 2), UNITS.items(), strict=True):
            _bars(axes, rows, key)
            axes.set_title(unit, loc="left")
            axes.set_yticks(
                range(len(rows)), [row["system"] for row in rows] if key == "GB" else []
            )
        return figure


UNITS = {"GB": "GB an inference", "s": "seconds an inference"}


def _bars(axes: Axes, rows: list[dict], key: str) -> None:
    axes.set_xscale("log")
    for at, row in enumerate(rows):
        value = row[key]
        if value is None:
            continue
        quoted = row["kind"] == "quoted"
        axes.barh(at, value, 0.72, **filled(COLOURS[6 if quoted else 0], quoted))
        digits = max(0, 1 - math.floor(math.log10(value)))
        place = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
        axes.annotate(f"{value:,.{digits}f}", (value, at), **place)
    axes.margins(x=0.18, y=0.02)


def report(tree: dict) -> str:
    """The picture, and the numbers in it."""
    others = published("others")["source"]
    caption = (
        "ResNet50 on a picture of 224x224. Full bars: measured here, two processes on two cores over "
        f"loopback (commit {tree['config']['measured_at']}). Hatched: quoted, on other machines and "
        "networks of other widths; PrivQuant's rows from its table 11."
    )
    rows = [
        {
            "system": r["system"],
            "GB": r["GB"],
            "s": r["s"] or "",
            "": r["kind"],
            "where": r["setting"],
        }
        for r in tree["runs"]
    ]
    return (
        f"# ResNet50, beside others\n\n{save(picture(tree['runs']), 'overview', caption)}\n"
        f"{table(rows)}\n\nQuoted: {published('source')}, table 11; {others}.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Writes `overview.json`, `.md` and `.svg`."""
    return run(parser("exp-overview", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
