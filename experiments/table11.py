"""`make exp-table11`: end to end, three networks, beside the published systems.

Made from the results of `exp-minionn`, `exp-resnet32` and `exp-resnet50`.
"""

from __future__ import annotations

import argparse
import sys

from experiments.command import parser, run
from experiments.record import published, read, table

NETWORKS = ("minionn", "resnet32", "resnet50")
OURS = ("privquant", "pqjax")


def compute(args: argparse.Namespace) -> dict:
    """The rows of the three results that the table shows."""
    runs = []
    for net in NETWORKS:
        tree = read(net)
        for row in tree["runs"]:
            if row["protocol"] in OURS:
                name = row.get("network", net)
                runs.append(
                    {
                        "net": net,
                        "system": f"{row['protocol']}, {_widths(tree, name)}",
                        "top1": tree.get("top1", {}).get(name),
                        "gib": row["GiB"],
                        "wan_s": row.get("wan_s"),
                        "wan_predicted_s": None if "wan_s" in row else row.get("wan_bound_s"),
                        "loopback_s": row["loopback_s"],
                        "commit": tree["commit"],
                    }
                )
    return {"config": {"seed": None, "link": "200 Mbit/s, 13 ms round trip"}, "runs": runs}


def _widths(tree: dict, name: str) -> str:
    """W3A6 of resnet32_w3a6_long; ResNet50 has mixed ones and no training."""
    _, found, bits = name.removesuffix("_long").partition("_")
    return bits.upper() if found else f"mixed widths, {tree['config']['weights']}"


def report(tree: dict) -> str:
    """One table per network: ours, then the published systems."""
    data = published("table11")
    text = (
        f"# Table 11: end to end, {tree['config']['link']}\n\nOurs: bytes exact, as predicted and as "
        "both processes metered; seconds measured over the emulated network (ResNet50: what the "
        "network alone takes, predicted; all of it measured on loopback). Quoted rows are marked, "
        f"their GB as printed: {published('source')}, table 11.\n"
    )
    for column, net in enumerate(NETWORKS):
        shown = [
            {
                "system": row["system"],
                "top-1, %": _percent(row["top1"]),
                "GiB": row["gib"],
                "s": row["wan_s"] or "",
                "s (predicted)": row["wan_predicted_s"] or "",
                "loopback s": row["loopback_s"],
            }
            for row in tree["runs"]
            if row["net"] == net
        ]
        for row in data["rows"]:
            gib, seconds = row["gigabytes"][column], row["seconds"][column]
            if gib is not None:
                shown.append({"system": f"{row['name']} (quoted)", "GiB": gib, "s": seconds})
        text += f"\n## {data['networks'][column]}\n\n{table(shown)}\n"
    return text


def _percent(share: float | None) -> str:
    return "untrained" if share is None else f"{100 * share:.2f}"


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/table11.json` and `.md`."""
    return run(parser("exp-table11", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
