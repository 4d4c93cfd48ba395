"""`make exp-figure10`: PrivQuant's figure 10, ResNet32's communication block by block.

SiRNN at 16 bits, SiRNN's protocols on our quantized network, PrivQuant and pqjax on the same.
"""

from __future__ import annotations

import argparse
import sys

from experiments.command import parser, run
from experiments.formats import SIRNN, in_format
from experiments.inference import CHECKPOINTS
from experiments.plots import grouped_bars, save
from experiments.record import published, table
from pqjax import load_model, plan
from pqjax.planner import Plan

MIB = 8 * 2**20
NETWORK = "resnet32_w3a6"
# System, preset, whether in SiRNN's own format.
SYSTEMS = (
    ("SiRNN, 16 bit", "sirnn-choice1", True),
    ("SiRNN + our quantization", "sirnn-choice1", False),
    ("PrivQuant", "privquant", False),
    ("pqjax", "pqjax", False),
)


def block_of(name: str) -> str:
    """The block that a step belongs to, by its name: s2b3 is the third of stage 2."""
    head = name.split(".")[0]
    return head if head[0] == "s" and head[1:2].isdigit() else "ends"


def by_block(made: Plan) -> dict[str, int]:
    """Bits of every block; the making of stored OTs is shared out by their number."""
    found: dict[str, int] = {}
    drawn: dict[str, int] = {}
    for step in made.steps:
        block = block_of(step.node.name)
        rots = sum(step.cost.offline.rots) + sum(step.cost.online.rots)
        found[block] = found.get(block, 0) + step.cost.bits
        drawn[block] = drawn.get(block, 0) + rots
    stock, all_rots = made.cost("offline", "random ots").bits, sum(drawn.values())
    if all_rots:
        found = {b: bits + round(stock * drawn[b] / all_rots) for b, bits in found.items()}
    return found


def compute(args: argparse.Namespace) -> dict:
    """Bits by block for every system."""
    graph, _, _ = load_model(CHECKPOINTS / f"{NETWORK}.npz")
    runs = []
    for name, protocol, own_format in SYSTEMS:
        made = plan(in_format(graph, SIRNN) if own_format else graph, protocol)
        runs.append({"system": name, "protocol": protocol, "bits": by_block(made)})
    return {"config": {"seed": None, "network": NETWORK}, "runs": runs}


def report(tree: dict) -> str:
    """Table and picture."""
    runs = tree["runs"]
    blocks = sorted(b for b in runs[0]["bits"] if b != "ends")
    shown = []
    for block in [*blocks, "ends", "all"]:
        values = [
            sum(row["bits"].values()) if block == "all" else row["bits"][block] for row in runs
        ]
        line = {"block": block}
        line |= {f"{row['system']}, MiB": v / MIB for row, v in zip(runs, values, strict=True)}
        line["SiRNN + ours / PrivQuant"] = f"{values[1] / values[2]:.2f}"
        line["PrivQuant / pqjax"] = f"{values[2] / values[3]:.2f}"
        shown.append(line)
    series = {row["system"]: [row["bits"][b] / MIB for b in blocks] for row in runs}
    figure = grouped_bars(blocks, series, "MiB", "Figure 10: ResNet32, block by block", log=True)
    caption = (
        f"Figure 10, logarithmic. All bars: predicted by the cost model for the committed network "
        f"{tree['config']['network']}, whose totals are also measured between two processes "
        "(`exp-resnet32`); SiRNN at 16 bits is the same architecture in that format."
    )
    claim = published("figure8")
    ratio = sum(runs[1]["bits"].values()) / sum(runs[2]["bits"].values())
    return (
        "# Figure 10: block by block\n\n"
        f"{published('source')}, figure 10, a picture without numbers in the text. SiRNN is choice (1), "
        "as its published figures fit; `ends` is the first convolution and what follows the last "
        "block.\n\n"
        + table(shown)
        + "\n\n"
        + save(figure, "figure10", caption)
        + f"\nThe protocols alone save {ratio:.2f}x on this network; section 6.4 says "
        f"{claim['protocols'][0]} to {claim['protocols'][1]}x over three networks.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/figure10.json`, `.md` and the picture."""
    return run(parser("exp-figure10", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
