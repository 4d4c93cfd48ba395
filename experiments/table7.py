"""`make exp-table7`: which widths hurt ResNet32: of residuals (7), of weights or activations (6).

The paper's float weights and activations are 8-bit ones here: the integer network has no floats.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from experiments.command import parser, run
from experiments.record import published, table
from experiments.short_qat import PART, RUNS, Short, recipe_text, row_of, train

GIB = 8 * 2**30
NET = "resnet32"
# The paper's row and its widths here.
TABLES = {
    "table6": {
        "Weight Quantized": "W2A8R8",
        "Activation Quantized": "W8A2R2",
        "Fully Quantized": "W2A2R2",
    },
    "table7": {"3": "W4A3R3", "6": "W4A3R6", "8": "W4A3R8", "9": "W4A3R9"},
}
PARTS = {"table6": PART, "table7": 0.6}  # of an epoch; activations of 3 bits need more than a fifth
TITLES = {
    "table6": "Table 6: which of weights and activations hurts ResNet32",
    "table7": "Table 7: residual widths of ResNet32, W4A3",
}


def compute(name: str, folder: pathlib.Path) -> dict:
    """Trains what is missing; one row per network."""
    runs = []
    for row, bits in TABLES[name].items():
        short = Short(NET, bits, PARTS[name])
        train(short, folder)
        runs.append({"row": row, **row_of(short, folder)})
    return {
        "config": {"seed": 2, "training": recipe_text(PARTS[name]), "table": name},
        "runs": runs,
    }


def report(tree: dict) -> str:
    """Ours beside the paper's."""
    name, runs = tree["config"]["table"], tree["runs"]
    quoted = {str(row["name"]): row for row in published(name)["rows"]}
    top = runs[0]["top1_float"]
    printed = quoted["Baseline"]["accuracy"] if "Baseline" in quoted else None
    shown = []
    if printed is not None:
        line = {"network": "Baseline", "bits": "float", "top-1, %": f"{100 * top:.2f}"}
        shown.append({**line, "paper, %": printed})
    for row in runs:
        line = {
            "network": row["row"] if name == "table6" else f"residuals of {row['row']} bits",
            "bits": row["bits"],
            "top-1, %": f"{100 * row['top1']:.2f}",
            "below float": f"{100 * (top - row['top1']):.2f}",
            "paper, %": quoted[row["row"]]["accuracy"] if row["row"] in quoted else "",
            "privquant, GiB": row["cost_bits"]["privquant"] / GIB,
        }
        if printed is not None:
            line["paper, below float"] = f"{printed - quoted[row['row']]['accuracy']:.2f}"
        if "gigabytes" in quoted.get(row["row"], {}):
            line["paper, GB"] = quoted[row["row"]]["gigabytes"]
        line["most overflow, %"] = f"{100 * row['most_overflow']:.2f}"
        shown.append(line)
    return (
        f"# {TITLES[name]}\n\n{published('source')}. Training: {tree['config']['training']}; the "
        "paper's networks were trained to the end. First convolution and FC keep at least 4 bits of "
        "weights, the FC reads 8 bits; activations are signed formats with a sign bit of 0. Where the "
        "paper has float, ours has 8 bits.\n\n" + table(shown) + "\n"
    )


def main(arguments: list[str] | None = None, name: str = "table7") -> int:
    """Writes `results/table6.json` or `table7.json`, and `.md`."""
    options = parser(f"exp-{name}", __doc__)
    options.add_argument(
        "--runs", type=pathlib.Path, default=RUNS, help="folder of the training runs"
    )

    def ask(args: argparse.Namespace) -> dict:
        return compute(name, args.runs)

    return run(options, ask, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
