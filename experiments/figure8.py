"""`make exp-pareto`: PrivQuant's figure 8, accuracy against communication, on two networks.

Fronts at the cost of uniform weights of 2 to 5 bits: the search's widths, uniform ones, those of the
search that counts l_w * l_x * MACs instead of bits, and SiRNN's protocols on the search's networks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys

from experiments.command import parser, run
from experiments.plots import curves, save
from experiments.record import published, table
from experiments.short_qat import CHECKPOINTS, INFERENCES, RUNS, Short, recipe_text, row_of, train
from experiments.width_baselines import at, proxy_search, uniform_widths
from pqjax import load_model
from pqjax.graph.sensitivity import read_sensitivities
from pqjax.graph.widths import widths_of
from pqjax.planner import find_preset
from pqjax.search import Found, Limit, Space, search

GIB = 8 * 2**30
PROTOCOL = "privquant"
LEVELS = (2, 3, 4, 5)
# A graph at any widths, and the activation widths to search.
NETWORKS = {
    "minionn": ("minionn_w4a4", (3, 4, 5, 6, 7)),
    "resnet32": ("resnet32_w4a6", (4, 5, 6, 7)),
}
TITLES = {"minionn": "MiniONN, CIFAR-10", "resnet32": "ResNet32, CIFAR-100"}
METHODS = {"ours": "search", "uniform": "uniform", "proxy": "proxy search"}
SIRNN = "SiRNN + our quantization"


def points(net: str, protocol: str) -> list[dict]:
    """Widths of every method at every limit, of what a preset takes."""
    preset = dataclasses.replace(find_preset(protocol), inferences=INFERENCES)
    base, activations = NETWORKS[net]
    graph, _, _ = load_model(CHECKPOINTS / f"{base}.npz")
    known = read_sensitivities(CHECKPOINTS / f"{net}_sensitivity.json")
    found = []
    for level in LEVELS:
        widths = uniform_widths(widths_of(graph), level)
        uniform = at(graph, known, Limit(float(1 << 60)), preset, widths)
        limit = Limit(uniform.cost)
        ours = search(graph, known, limit, preset, Space(activations=activations))
        proxied = proxy_search(graph, known, limit, preset)
        for method, each in (("ours", ours), ("uniform", uniform), ("proxy", proxied)):
            found.append(_point(net, level, method, each))
    return found


def _point(net: str, level: int, method: str, found: Found) -> dict:
    point = {"net": net, "level": level, "method": method, "bits": str(found.widths)}
    results = {"expected_loss": found.loss, "searched_bits": found.cost, "proven": found.proven}
    return point | results


def compute(args: argparse.Namespace) -> dict:
    """Searches, trains what is missing, asks every network about an image."""
    runs, rows = [], {}
    for net in args.nets:
        for point in points(net, args.protocol):
            short = Short(net, point["bits"])
            if short not in rows:
                train(short, args.runs)
                rows[short] = row_of(short, args.runs, args.protocol)
            runs.append({**point, **rows[short]})
    return {
        "config": {"seed": 2, "training": recipe_text(), "protocol": args.protocol},
        "runs": runs,
    }


def report(tree: dict) -> str:
    """A table and a picture per network."""
    text = (
        "# Figure 8: accuracy against communication\n\n"
        f"{published('source')}, figure 8, a picture without numbers in the text. Limits are what "
        "uniform weights of 2 to 5 bits cost (first convolution and FC at least 4); the search also "
        f"chooses activations. Training: {tree['config']['training']}.\n"
    )
    for net in dict.fromkeys(row["net"] for row in tree["runs"]):
        rows = [row for row in tree["runs"] if row["net"] == net]
        picture = _picture(net, rows, tree["config"]["protocol"])
        text += f"\n## {TITLES[net]}\n\n{_table(rows)}\n\n{_verdict(rows)}\n\n{picture}"
    return text


def _table(rows: list[dict]) -> str:
    shown = [
        {
            "limit": f"uniform W{row['level']}",
            "widths by": METHODS[row["method"]],
            "bits": row["bits"],
            "expected loss": row["expected_loss"],
            "top-1, %": f"{100 * row['top1']:.2f}",
            "below float": f"{100 * (row['top1_float'] - row['top1']):.2f}",
            **{f"{name}, GiB": bits / GIB for name, bits in row["cost_bits"].items()},
        }
        for row in rows
    ]
    return table(shown)


def _verdict(rows: list[dict]) -> str:
    """The search beside uniform widths and the proxy, level by level."""
    by = {(row["level"], row["method"]): row for row in rows}
    found = []
    for other in ("uniform", "proxy"):
        gains = [100 * (by[n, "ours"]["top1"] - by[n, other]["top1"]) for n in LEVELS]
        each = ", ".join(f"{gain:+.2f}" for gain in gains)
        found.append(
            f"The search against {METHODS[other]} at equal limits, points of top-1: {each}."
        )
    return " ".join(found)


def _picture(net: str, rows: list[dict], protocol: str) -> str:
    def line(method: str, preset: str) -> list[tuple[float, float]]:
        own = [row for row in rows if row["method"] == method]
        return [(row["cost_bits"][preset] / GIB, 100 * row["top1"]) for row in own]

    series, said = {name: line(method, protocol) for method, name in METHODS.items()}, ""
    if protocol == PROTOCOL:
        series[SIRNN], said = line("ours", "sirnn-choice1"), " SiRNN is choice (1)."
    title, level = f"Figure 8: {TITLES[net]}", ("float", 100 * rows[0]["top1_float"])
    figure = curves(series, "communication, GiB", "top-1, %", title, level)
    caption = (
        f"Figure 8, {TITLES[net]}. Communication: predicted by the cost model of the trained network, "
        "exact; top-1: measured over the whole test set by the integer reference." + said
    )
    return save(figure, f"{_named(protocol)}_{net}", caption)


def _named(protocol: str) -> str:
    """A result's name: the paper's figure, or one of another preset's bytes."""
    return "figure8" if protocol == PROTOCOL else f"figure8_{protocol}"


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/figure8.json`, `.md` and the pictures; --points only prints the widths."""
    options = parser("exp-figure8", __doc__)
    options.add_argument(
        "--runs", type=pathlib.Path, default=RUNS, help="folder of the training runs"
    )
    options.add_argument("--nets", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    options.add_argument(
        "--protocol", default=PROTOCOL, help="whose bytes are limited: the paper's, or pqjax"
    )
    options.add_argument("--points", action="store_true", help="print the widths and end")
    args, _ = options.parse_known_args(arguments)
    if args.points:
        print(
            json.dumps(
                [point for net in args.nets for point in points(net, args.protocol)], indent=1
            )
        )
        return 0
    return run(options, compute, report, arguments, lambda args: _named(args.protocol))


if __name__ == "__main__":
    sys.exit(main())
