"""`make exp-table4`: PrivQuant's table 4, the four ways of multiplying, part by part.

The printed formulas, our exact ones, the cost model, and two parties on small shapes; then, for the
layers of table 9, what each part costs and which choice is cheapest.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from experiments.command import parser, run
from experiments.convolution import (
    GIB,
    cheapest,
    choice_bits,
    parse_widths,
    product_call,
    published_layer,
    published_setting,
)
from experiments.formulas import CHOICES, PARTS, evaluate, product_names
from experiments.plots import save, stacked_bars
from experiments.record import percent, published, relative, table
from experiments.two_threads import measure
from pqjax.errors import PqjaxError
from pqjax.linear import PRIVQUANT

SEED = 4
SMALL_SHAPES = (((8, 18, 16), "W2A4"), ((16, 36, 25), "W4A6"), ((5, 64, 4), "W2A8"))
_NAMES = {
    "extension": "extension",
    "multiplication": "multiplication",
    "wrap_and_mux": "Wrap & MUX",
}


def printed_parts(names: dict[str, int]) -> list[dict[str, int]]:
    """The paper's formulas, part by part, row 4 as it is meant."""
    found = []
    for row in published("table4")["rows"]:
        texts = {**row, "multiplication": row.get("multiplication_meant", row["multiplication"])}
        found.append({part: evaluate(texts[part], names) for part in PARTS})
    return found


def exact_parts(names: dict[str, int]) -> list[dict[str, int]]:
    """Our formulas, part by part."""
    return [
        {part: evaluate(text, names) for part, text in CHOICES[choice].items()}
        for choice in sorted(CHOICES)
    ]


def totals(parts: list[dict[str, int]]) -> list[int]:
    """Bits of each choice."""
    return [sum(row.values()) for row in parts]


def predict(shape: tuple[int, int, int], widths: str) -> dict:
    """Printed and exact parts of one product; the exact ones must sum to what the model says."""
    names = product_names(*shape, *parse_widths(widths))
    printed, exact = printed_parts(names), exact_parts(names)
    model = choice_bits(shape, *parse_widths(widths))
    if totals(exact) != model:
        raise PqjaxError(f"{shape} {widths}: formulas {totals(exact)}, cost model {model}")
    return {
        "shape": shape,
        "widths": widths,
        "printed": printed,
        "exact": exact,
        "model_bits": model,
    }


def compute(args: argparse.Namespace) -> dict:
    """Runs the small shapes between two parties; prices the layers of table 9."""
    rng = np.random.default_rng(SEED)
    small = []
    for shape, widths in SMALL_SHAPES:
        calls = [
            product_call(rng, shape, *parse_widths(widths), variant, closing=False)
            for variant in PRIVQUANT
        ]
        got = measure(calls, published_setting()[0])
        small.append(
            predict(shape, widths)
            | {"measured_bits": [m.bits for m in got], "flows": [m.flows for m in got]}
        )
    runs = []
    tree = published("table9")
    for line in tree["rows"]:
        layer = published_layer(*line["layer"])
        for widths in tree["widths"]:
            row = predict(layer.shape, widths)
            runs.append({"layer": layer.name, **row, "cheapest": cheapest(row["model_bits"])})
    config = {"seed": SEED, "operand": "signed, sign unknown", "transport": "IKNP and KKOT, inline"}
    return {"config": config, "runs": runs, "small": small}


def report(tree: dict) -> str:
    """Formulas, small shapes, layers, picture."""
    return (
        "# Table 4: four ways of multiplying\n\n"
        f"{published('source')}, table 4. W (d1 x d2) of l1 bits, X (d2 x d3) of l2 bits, signed and "
        "its sign unknown; e = ceil(log2 d2), L = l1 + l2 + e, S(n) = n L - n (n - 1) / 2, wrap(l) and "
        "b2a(l) as in table 2's report.\n\n"
        + _formulas()
        + "\nRow 4's printed multiplication has (l1 + e) where the text and its figure 4 have (l2 + e); "
        "the second line of that row is what is meant, and what is evaluated below. The printed rows "
        "send two chosen messages an OT; a correlated OT sends one, and bit i's only L - i bits wide.\n"
        "\n## Between two parties\n\nSmall shapes, bits in all, every result exact. Model: "
        "`on_shares_cost`.\n\n"
        + _small(tree["small"])
        + "\n\n## The layers of table 9\n\nGiB. Printed: the paper's formula; exact: ours, equal to the "
        "cost model to the bit.\n\n"
        + _layers(tree["runs"])
        + "\n\n"
        + _disagreement(tree["runs"])
        + "\n## Part by part\n\nW2A4, GiB, exact:\n\n"
        + _parts(tree["runs"])
        + "\n\n"
        + _picture(tree["runs"])
    )


def _formulas() -> str:
    shown = []
    for row in published("table4")["rows"]:
        choice = row["choice"]
        head = f"({choice}) extends {row['extends']}, {row['sender'].lower()} sends"
        shown.append({"choice": head, "whose": "printed"} | {p: f"`{row[p]}`" for p in PARTS})
        if "multiplication_meant" in row:
            shown.append({"whose": "meant", "multiplication": f"`{row['multiplication_meant']}`"})
        shown.append({"whose": "exact"} | {p: f"`{t}`" for p, t in CHOICES[choice].items()})
    return table(shown, ["choice", "whose", *PARTS]) + "\n"


def _small(small: list[dict]) -> str:
    shown = []
    for row in small:
        for i, printed in enumerate(totals(row["printed"])):
            measured = row["measured_bits"][i]
            shown.append(
                {
                    "d1 x d2 x d3": " x ".join(map(str, row["shape"])),
                    "widths": row["widths"],
                    "choice": f"({i + 1})",
                    "printed": f"{printed:,}",
                    "exact": f"{totals(row['exact'])[i]:,}",
                    "model": f"{row['model_bits'][i]:,}",
                    "measured": f"{measured:,}",
                    "measured / printed": percent(relative(measured, printed)),
                    "flows": row["flows"][i],
                }
            )
    return table(shown)


def _layers(runs: list[dict]) -> str:
    shown = []
    for row in runs:
        printed, exact = totals(row["printed"]), totals(row["exact"])
        line = {"layer": row["layer"], "widths": row["widths"]}
        for i in range(4):
            line[f"({i + 1}) printed"] = printed[i] / GIB
            line[f"({i + 1}) exact"] = exact[i] / GIB
        best = row["cheapest"]
        line["cheapest printed"] = f"({cheapest(printed)})"
        line["cheapest exact"] = f"({best})"
        line["exact / printed there"] = percent(relative(exact[best - 1], printed[best - 1]))
        shown.append(line)
    return table(shown)


def _disagreement(runs: list[dict]) -> str:
    """Where the printed formulas choose otherwise, and why they fall below ours."""
    other = [
        f"{row['layer']} {row['widths']}"
        for row in runs
        if cheapest(totals(row["printed"])) != row["cheapest"]
    ]
    text = (
        "Rows (2) and (3) print messages as wide as the sender's operand. The receiver has to end with "
        "a share modulo 2^L, so bit i takes a message of L - i bits; where the walked operand is wide, "
        "the printed figure is below what the product can be had for."
    )
    if other:
        text += f" The printed formulas would choose otherwise for {', '.join(other)}."
    return text + "\n"


def _parts(runs: list[dict]) -> str:
    shown = []
    for row in runs:
        if row["widths"] == "W2A4":
            for i, parts in enumerate(row["exact"]):
                line = {"layer": row["layer"], "choice": f"({i + 1})"}
                line |= {_NAMES[part]: bits / GIB for part, bits in parts.items()}
                line["total"] = sum(parts.values()) / GIB
                line["cheapest"] = "yes" if i + 1 == row["cheapest"] else ""
                shown.append(line)
    return table(shown)


def _picture(runs: list[dict]) -> str:
    rows = [row for row in runs if row["widths"] == "W2A4"]
    parts = {_NAMES[p]: [[c[p] / GIB for c in row["exact"]] for row in rows] for p in PARTS}
    layers, choices = [row["layer"] for row in rows], ["(1)", "(2)", "(3)", "(4)"]
    title = "Table 4: the four choices for one W2A4 convolution of ResNet50"
    figure = stacked_bars(layers, choices, parts, "communication, GiB", title)
    caption = (
        "Table 4's four choices on table 9's layers at W2A4. All bars: predicted by the exact formulas, "
        "which equal the cost model; the closing TR of table 9's report is not in them."
    )
    return save(figure, "table4", caption)


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/table4.json`, `.md` and the picture."""
    return run(parser("exp-table4", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
