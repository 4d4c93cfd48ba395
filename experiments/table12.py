"""`make exp-table12`: PrivQuant's table 12, the linear part of one LLAMA-7B attention layer.

The paper gives totals and one width (3-bit weights). What the formulas give for the four projections
and, apart from them, for the products of queries, keys and values, under stated widths.
"""

from __future__ import annotations

import argparse
import sys

from experiments.command import parser, run
from experiments.convolution import MIB, cheapest, choice_bits
from experiments.formulas import SHARED_PRODUCT, SMALL, evaluate, extra_bits
from experiments.plots import grouped_bars, save
from experiments.record import published, table

MODEL, HEADS, HEAD = 4096, 32, 128
PROJECTIONS = 4  # queries, keys, values, output
WEIGHT_BITS = 3
ACTIVATIONS = (4, 8)
SIRNN_BITS = 16  # weights and activations, PrivQuant's section 6.1


def shared_product_bits(d1: int, d2: int, d3: int, bits: int) -> int:
    """A product of two shared matrices of equal width: no operand is known to a party.

    One of the two is extended by e bits, whichever is cheaper; then `SHARED_PRODUCT`.
    """
    e = extra_bits(d2)
    found = []
    for left, n in ((True, d1 * d2), (False, d2 * d3)):
        extension = evaluate(SMALL["Ext"], {"l1": bits, "l2": bits + e}) * n if e else 0
        names = {"d1": d1, "d2": d2, "d3": d3, "L": 2 * bits + e}
        names |= {"a": bits + e * left, "b": bits + e * (not left)}
        found.append(extension + evaluate(SHARED_PRODUCT, names))
    return min(found)


def attention_bits(sequence: int, bits: int) -> int:
    """Scores Q K^T and their product with V, all heads."""
    scores = shared_product_bits(sequence, HEAD, sequence, bits)
    values = shared_product_bits(sequence, sequence, HEAD, bits)
    return HEADS * (scores + values)


def compute(args: argparse.Namespace) -> dict:
    """Every part at every sequence length."""
    runs = []
    for row in published("table12")["rows"]:
        sequence = row["sequence"]
        shape = (MODEL, MODEL, sequence)
        sirnn = choice_bits(shape, SIRNN_BITS, SIRNN_BITS)
        line = {
            "sequence": sequence,
            "printed": {name: row[name] for name in ("SiRNN", "PrivQuant")},
            "least_projection_bits": PROJECTIONS * MODEL * MODEL,
            "sirnn": {
                "projections_choice1": PROJECTIONS * sirnn[0],
                "projections_choice4": PROJECTIONS * sirnn[3],
                "attention": attention_bits(sequence, SIRNN_BITS),
            },
            "privquant": {},
        }
        for a in ACTIVATIONS:
            bits = choice_bits(shape, WEIGHT_BITS, a)
            line["privquant"][f"W{WEIGHT_BITS}A{a}"] = {
                "projections": PROJECTIONS * min(bits),
                "choice": cheapest(bits),
                "attention": attention_bits(sequence, a),
            }
        runs.append(line)
    config = {
        "seed": None,
        "model": MODEL,
        "heads": HEADS,
        "sirnn_bits": SIRNN_BITS,
        "operand": "signed, sign unknown",
        "transport": "IKNP and KKOT, inline",
    }
    return {"config": config, "runs": runs}


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:,.0f} x" if ours > 10 * theirs else f"{ours / theirs:.2g} x"


def _sirnn(runs: list[dict]) -> str:
    shown = []
    for row in runs:
        parts, printed = row["sirnn"], row["printed"]["SiRNN"]
        least = min(parts["projections_choice1"], parts["projections_choice4"])
        whole = (least + parts["attention"]) / MIB
        shown.append(
            {
                "sequence": row["sequence"],
                "printed MB": f"{printed:,.2f}",
                "projections (1), MiB": parts["projections_choice1"] / MIB,
                "projections (4), MiB": parts["projections_choice4"] / MIB,
                "scores and values, MiB": parts["attention"] / MIB,
                "whole / printed": _ratio(whole, printed),
                "scores and values / printed": _ratio(parts["attention"] / MIB, printed),
            }
        )
    return table(shown)


def _privquant(runs: list[dict]) -> str:
    shown = []
    for row in runs:
        for widths, parts in row["privquant"].items():
            printed = row["printed"]["PrivQuant"]
            projections, attention = parts["projections"] / MIB, parts["attention"] / MIB
            shown.append(
                {
                    "sequence": row["sequence"],
                    "widths": widths,
                    "printed MB": f"{printed:,.2f}",
                    "projections, MiB": f"{projections:,.1f} ({parts['choice']})",
                    "scores and values, MiB": attention,
                    "whole / printed": _ratio(projections + attention, printed),
                    "scores and values / printed": _ratio(attention, printed),
                }
            )
    return table(shown)


def _floor(runs: list[dict]) -> str:
    shown = [
        {
            "sequence": row["sequence"],
            "one bit a weight, MiB": row["least_projection_bits"] / MIB,
            "one bit a weight and token, MiB": row["sequence"] * row["least_projection_bits"] / MIB,
            "SiRNN printed MB": row["printed"]["SiRNN"],
            "PrivQuant printed MB": row["printed"]["PrivQuant"],
        }
        for row in runs
    ]
    return table(shown)


def report(tree: dict) -> str:
    """Both columns, the floor they break, the picture."""
    runs, printed = tree["runs"], published("table12")
    first = runs[0]
    least = min(parts["projections"] for parts in first["privquant"].values())
    below = [
        f"{name} at {row['sequence']}"
        for row in runs
        for name, value in row["printed"].items()
        if value * MIB < row["sequence"] * row["least_projection_bits"]
    ]
    return (
        "# Table 12: one attention layer of LLAMA-7B, linear part\n\n"
        f"{published('source')}, table 12; {printed['note']}. So these widths are assumptions: "
        f"PrivQuant with {WEIGHT_BITS}-bit weights and activations of "
        f"{' or '.join(map(str, ACTIVATIONS))} bits, SiRNN with {SIRNN_BITS} bits for both (section "
        "6.1). Projections: four products of 4096 x 4096 weights and 4096 x tokens, cheapest choice in "
        "parentheses. Scores and values: for 32 heads Q K^T and its product with V, 128 wide, both "
        "operands shared, none of them known to a party: two cross terms, both operands' wraps "
        "(`SHARED_PRODUCT` in `experiments/formulas.py`). Everything predicted by formulas; nothing "
        "of it is measured, pqjax has no product of two shared operands.\n\n## PrivQuant\n\n"
        + _privquant(runs)
        + "\n\n## SiRNN\n\n"
        + _sirnn(runs)
        + "\n\n## The printed totals cannot hold the projections\n\nWhatever the widths, each of the "
        "four choices sends for every weight and token at least one bit that depends on that weight "
        "(the messages), and (2) and (4) also an OT of 128 bits per weight. One bit alone "
        "is already:\n\n"
        + _floor(runs)
        + f"\n\nBelow that floor: {'; '.join(below)}. At one token the projections take "
        f"{_ratio(least / MIB, first['printed']['PrivQuant'])} the printed total of PrivQuant at the "
        "least. The printed totals are of the size of the products of activations alone: those of "
        f"SiRNN grow as a t + b t^2 in the tokens t ({_fit(runs)}), the form of scores and values.\n\n"
        + _picture(runs)
    )


def _fit(runs: list[dict]) -> str:
    """A t + b t^2 through the two longest sequences, and what it says of the shortest."""
    (t0, y0), (t1, y1), (t2, y2) = [(r["sequence"], r["printed"]["SiRNN"]) for r in runs]
    b = (y2 / t2 - y1 / t1) / (t2 - t1)
    a = y1 / t1 - b * t1
    return (
        f"a = {a:.2f} and b = {b:.3f} MB from {t1} and {t2} tokens give {a * t0 + b * t0 * t0:.2f} MB "
        f"for {t0}, printed {y0}"
    )


def _picture(runs: list[dict]) -> str:
    widths = f"W{WEIGHT_BITS}A{ACTIVATIONS[0]}"
    series = {
        f"projections, PrivQuant {widths}": [
            row["privquant"][widths]["projections"] / MIB for row in runs
        ],
        "PrivQuant, printed total": [row["printed"]["PrivQuant"] for row in runs],
        f"scores and values, {ACTIVATIONS[0]} bits": [
            row["privquant"][widths]["attention"] / MIB for row in runs
        ],
        "one bit a weight and token": [
            row["sequence"] * row["least_projection_bits"] / MIB for row in runs
        ],
    }
    groups = [f"{row['sequence']} tokens" for row in runs]
    title, quoted = "Table 12: attention of LLAMA-7B, linear part", ["PrivQuant, printed total"]
    figure = grouped_bars(groups, series, "communication, MiB", title, quoted, log=True)
    caption = (
        "Table 12. Filled bars: predicted by formulas under assumed widths, the last a floor that holds "
        "for any. Hatched: quoted from the paper, taken as MiB. Logarithmic."
    )
    return save(figure, "table12", caption)


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/table12.json`, `.md` and the picture."""
    return run(parser("exp-table12", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
