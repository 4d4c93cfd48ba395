"""`make exp-figure1`: PrivQuant's figure 1, where a ResNet50 block's communication goes.

CrypTFlow2 at 37 bits, SiRNN at falling widths, and PrivQuant and pqjax at the lowest, for comparison.
"""

from __future__ import annotations

import argparse
import sys

from experiments.blocks import KINDS, RESNET50, Setting, Style, build, by_kind
from experiments.command import parser, run
from experiments.plots import save, stacked_bars
from experiments.record import published, table
from pqjax.planner import plan

GIB = 8 * 2**30
BLOCK = RESNET50[2]
# Bar, preset, weight bits, activation bits, residual bits, addition.
BARS: tuple[tuple[str, str, int, int, int, Style], ...] = (
    ("CrypTFlow2 37 bit", "cryptflow2", 16, 16, 16, "described"),
    ("SiRNN W16A16", "sirnn", 16, 16, 16, "described"),
    ("SiRNN W8A8", "sirnn", 8, 8, 8, "described"),
    ("SiRNN W6A6", "sirnn", 6, 6, 6, "described"),
    ("SiRNN W4A4", "sirnn", 4, 4, 4, "described"),
    ("SiRNN W2A4", "sirnn", 2, 4, 4, "described"),
    ("PrivQuant W2A4", "privquant", 2, 4, 8, "simplified"),
    ("pqjax W2A4", "pqjax", 2, 4, 8, "simplified"),
)
CONVOLUTION = KINDS[0]


def compute(args: argparse.Namespace) -> dict:
    """Bits by kind of step for every bar."""
    runs = []
    for name, protocol, weight_bits, bits, residual_bits, style in BARS:
        rule = "wrap" if protocol == "cryptflow2" else "saturate"
        setting = Setting(weight_bits, bits, residual_bits, style, rule)
        graph = build(BLOCK, setting)[0]
        if protocol == "cryptflow2":
            graph = in_uniform_format(graph)
        made = plan(graph, protocol)
        runs.append({"bar": name, "protocol": protocol, "bits": by_kind(made)})
    return {"config": {"seed": None, "block": BLOCK.name}, "runs": runs}


def in_uniform_format(graph):
    """The block at 37 bits and scale 13, as CrypTFlow2 runs it."""
    from experiments.formats import CRYPTFLOW2, in_format

    return in_format(graph, CRYPTFLOW2)


def report(tree: dict) -> str:
    """Table and pictures of total and online communication."""
    runs = tree["runs"]
    shown = [
        {
            "system": row["bar"],
            **{f"{kind}, MiB": row["bits"][kind] / 8 / 2**20 for kind in KINDS},
            "all, GiB": sum(row["bits"].values()) / GIB,
            "online, GiB": _online(row) / GIB,
        }
        for row in runs
    ]
    pictures = []
    for name, kinds, title in (
        ("figure1", KINDS, "Figure 1a: all communication of one ResNet50 block"),
        ("figure1_online", KINDS[1:], "Figure 1b: its online part"),
    ):
        parts = {kind: [[row["bits"][kind] / GIB] for row in runs] for kind in kinds}
        figure = stacked_bars([_short(row["bar"]) for row in runs], [""], parts, "GiB", title)
        caption = (
            f"{title}. All bars: predicted by the cost model from the block's shape and widths. Online "
            "is everything but the convolutions, whose multiplication the paper counts as offline."
        )
        pictures.append(save(figure, name, caption))
    return (
        "# Figure 1: profile of a ResNet50 block\n\n"
        f"{published('source')}, figure 1, a picture without numbers in the text. One bottleneck block "
        f"of {tree['config']['block']} ({BLOCK.side}x{BLOCK.side}, {BLOCK.channels} channels, "
        f"{BLOCK.middle} in the middle); SiRNN's residual has the activations' width, ours 8 bits.\n\n"
        + table(shown)
        + "\n\n"
        + "\n".join(pictures)
        + "\nWhat the paper says of it: SiRNN at 16 bits costs as much as CrypTFlow2 at 37 or more; the "
        "total is dominated by convolutions, the online part by requantization and residual addition; "
        "all of it falls with the widths.\n"
    )


def _short(name: str) -> str:
    return name.replace(" ", "\n")


def _online(row: dict) -> int:
    return sum(bits for kind, bits in row["bits"].items() if kind != CONVOLUTION)


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/figure1.json`, `.md` and the pictures."""
    return run(parser("exp-figure1", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
