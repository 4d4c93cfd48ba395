"""`make exp-figure7`: PrivQuant's figure 7, one convolution of each stage of ResNet50 at many widths."""

from __future__ import annotations

import argparse
import sys

from experiments.command import parser, run
from experiments.convolution import GIB, Layer, cheapest, choice_bits
from experiments.plots import grouped_bars, heatmaps, save
from experiments.record import percent, published, relative, table

STAGES = {
    stage: Layer(resolution, channels, channels, 3)
    for stage, (resolution, channels) in enumerate(((56, 64), (28, 128), (14, 256), (7, 512)), 1)
}
WIDTHS = tuple(range(2, 9))
COMPARED = ("W2A2", "W2A4", "W4A2", "W3A3", "W4A4", "W2A8", "W8A2", "W8A8")


def compute(args: argparse.Namespace) -> dict:
    """The cheapest of the four choices for every stage and pair of widths."""
    runs = []
    for stage, layer in STAGES.items():
        for w in WIDTHS:
            for a in WIDTHS:
                bits = choice_bits(layer.shape, w, a)
                runs.append(
                    {
                        "stage": stage,
                        "layer": layer.name,
                        "widths": f"W{w}A{a}",
                        "bits": min(bits),
                        "choice": cheapest(bits),
                    }
                )
    config = {"seed": None, "operand": "signed, sign unknown", "transport": "IKNP and KKOT, inline"}
    return {"config": config, "runs": runs}


def report(tree: dict) -> str:
    """The paper's two claims, the pictures, the numbers."""
    found = {(row["stage"], row["widths"]): row for row in tree["runs"]}
    printed = published("figure7")
    claims = []
    for claim in printed["claims"]:
        stage, one, other = claim["stage"], claim["prefers"], claim["over"]
        here, there = found[stage, one]["bits"], found[stage, other]["bits"]
        claims.append(
            {
                "stage": stage,
                "the text says": f"{one} rather than {other}",
                f"{COMPARED[1]}, GiB": found[stage, COMPARED[1]]["bits"] / GIB,
                f"{COMPARED[2]}, GiB": found[stage, COMPARED[2]]["bits"] / GIB,
                "preferred / other": percent(relative(here, there)),
                "holds": "yes" if here < there else "no",
            }
        )
    return (
        "# Figure 7: which widths suit which stage\n\n"
        f"{published('source')}, figure 7: {printed['title'].lower()}. It is a picture without numbers "
        "in the text, so there is no column to compare with; section 5.2 says two things of it:\n\n"
        + table(claims)
        + "\n\n"
        + _bars(found)
        + "\n"
        + _maps(found)
        + "\n## All widths\n\nGiB of the cheapest choice, and which it is.\n\n"
        + _numbers(found)
        + "\n"
    )


def _bars(found: dict) -> str:
    series = {w: [found[stage, w]["bits"] / GIB for stage in STAGES] for w in COMPARED[:6]}
    groups = [f"stage {stage}\n{layer.name}" for stage, layer in STAGES.items()]
    title = "Figure 7: one convolution of each stage of ResNet50"
    caption = (
        "Figure 7. All bars: predicted by the cost model, cheapest of PrivQuant's four choices, sign of "
        "the activations unknown."
    )
    return save(grouped_bars(groups, series, "communication, GiB", title), "figure7", caption)


def _maps(found: dict) -> str:
    def panel(stage: int, value) -> list[list]:
        return [[value(found[stage, f"W{w}A{a}"]) for a in WIDTHS] for w in WIDTHS]

    titles = {stage: f"stage {stage}, {layer.name}" for stage, layer in STAGES.items()}
    marks = "①②③④"
    figure = heatmaps(
        {titles[s]: panel(s, lambda row: row["bits"] / GIB) for s in STAGES},
        [f"W{w}" for w in WIDTHS],
        [f"A{a}" for a in WIDTHS],
        "communication, GiB",
        "Figure 7 in full: the cheapest choice and its communication",
        {titles[s]: panel(s, lambda row: marks[row["choice"] - 1]) for s in STAGES},
    )
    caption = (
        "Every pair of widths from 2 to 8 bits; the circled number is the cheapest choice. All numbers: "
        "predicted by the cost model, sign of the activations unknown."
    )
    return save(figure, "figure7_grid", caption)


def _numbers(found: dict) -> str:
    shown = []
    for stage, layer in STAGES.items():
        for w in WIDTHS:
            line = {"stage": f"{stage} {layer.name}", "weights": f"W{w}"}
            for a in WIDTHS:
                row = found[stage, f"W{w}A{a}"]
                line[f"A{a}"] = f"{row['bits'] / GIB:.3f} ({row['choice']})"
            shown.append(line)
    return table(shown)


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/figure7.json`, `.md` and the pictures."""
    return run(parser("exp-figure7", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
