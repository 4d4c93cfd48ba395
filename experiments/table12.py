"""`make exp-table12`: PrivQuant's table 12, the linear part of one LLAMA-7B attention layer.

The paper gives totals and one width (3-bit weights). What the formulas give for the four projections
and, apart from them, for the products of queries, keys and values, under stated widths. With `--layers`
also what plans of the layer take, run between two parties where that is bearable.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from experiments.attention import PRODUCTS, Attention
from experiments.command import parser, run
from experiments.convolution import MIB, cheapest, choice_bits
from experiments.formulas import SHARED_PRODUCT, SMALL, evaluate, extra_bits
from experiments.plots import grouped_bars, save
from experiments.record import published, table
from pqjax import plan, reference, run_local
from pqjax.errors import PqjaxError
from pqjax.planner import Plan
from pqjax.planner.plan import KEYS_LAYER

MODEL, HEADS, HEAD = 4096, 32, 128
PROJECTIONS = 4  # queries, keys, values, output
WEIGHT_BITS = 3
ACTIVATIONS = (4, 8)
SIRNN_BITS = 16  # weights and activations, PrivQuant's section 6.1
LAYERS = (3, 4)  # bits of weights, with activations of 8
PROTOCOLS = ("privquant", "pqjax-ot", "pqjax")
RUN_TOKENS = 32  # at most, between two parties
WHOLE = (32, 3, "pqjax")  # the one whole layer that is run: tokens, bits of weights, protocol
SEED = 0
DEADLINE_S = 3600.0


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


def _linear_bytes(made: Plan, names: tuple[str, ...]) -> float:
    """Of some steps with every inference, the OTs that they draw included."""
    costs = [step.cost.both for step in made.steps if step.node.name in names]
    return sum((cost.bits + made.preset.source.share(cost.rots).bits) / 8 for cost in costs)


def layer(tokens: int, w_bits: int, protocol: str, projections: bool) -> dict:
    """The layer, or its products alone: what a plan says, and what was metered if it was run.

    Raises:
      PqjaxError: an answer is not the reference's, or bits or flows are not those predicted.
    """
    what = Attention(tokens, HEADS, HEAD, w_bits, ACTIVATIONS[-1])
    graph = what.graph(projections)
    made = plan(graph, protocol)
    multiplying = [step.node.name for step in made.steps if step.task.choice is not None]
    products = tuple(f"{name}.sums" for name in PRODUCTS)
    rest = tuple(name for name in multiplying if name not in products)
    choices = (step.task.choice for step in made.steps if step.node.name in products)
    keys = made.cost("offline", KEYS_LAYER).bits / 8
    row = {
        "tokens": tokens,
        "widths": f"W{w_bits}A{what.bits}",
        "protocol": protocol,
        "projections": projections,
        "projections_bytes": _linear_bytes(made, rest) + keys,
        "once_bytes": made.cost("install").bits / 8,
        "products_bytes": _linear_bytes(made, products),
        "ways": [choice.method for choice in choices if choice is not None],
        "run_bytes": made.cost().bits / 8,
        "measured_bytes": None,
    }
    if tokens > RUN_TOKENS or (projections and (tokens, w_bits, protocol) != WHOLE):
        return row
    rng = np.random.default_rng(SEED)
    weights, x = what.weights(rng) if projections else {}, what.input(rng)
    result = run_local(made, weights, x, DEADLINE_S)
    found = made.differences(result.trace, 1)
    if not np.array_equal(result.output, reference(graph, weights, x)):
        found = ["the answer is not the reference's"]
    if found:
        raise PqjaxError(f"{protocol}, {tokens} tokens: {found[0]}")
    print(f"{protocol}, {tokens} tokens: {made.cost().bits} bits as predicted", file=sys.stderr)
    return {**row, "measured_bytes": sum(result.trace.bits()) / 8}


def layers() -> list[dict]:
    """The layer's products, and the whole layer, under every protocol.

    Weights of another width make no other products.
    """
    lengths = [row["sequence"] for row in published("table12")["rows"]]
    alone = [(n, LAYERS[0], protocol, False) for n in lengths for protocol in PROTOCOLS]
    whole = [(n, w, protocol, True) for n in lengths for w in LAYERS for protocol in PROTOCOLS]
    return [layer(*each) for each in (*alone, *whole)]


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
    return {"config": config, "runs": runs, **({"layers": layers()} if args.layers else {})}


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
        "(`SHARED_PRODUCT` in `experiments/formulas.py`). These two tables "
        "are predicted by formulas.\n\n## PrivQuant\n\n"
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
        + _layers(tree.get("layers", []))
        + _picture(runs)
    )


def _layers(rows: list[dict]) -> str:
    """Plans of the layer beside the printed totals, in MB."""
    if not rows:
        return ""
    printed = {row["sequence"]: row["PrivQuant"] for row in published("table12")["rows"]}
    shown = [
        {
            "tokens": row["tokens"],
            "what": row["widths"] if row["projections"] else "products alone",
            "protocol": row["protocol"],
            "PrivQuant, printed MB": printed[row["tokens"]],
            "projections, MB": row["projections_bytes"] / 1e6 if row["projections"] else "",
            "once, MB": row["once_bytes"] / 1e6 if row["once_bytes"] else "",
            "scores and values, MB": row["products_bytes"] / 1e6,
            "by": ", ".join(dict.fromkeys(row["ways"])),
            "first run, predicted MB": row["run_bytes"] / 1e6,
            "measured MB": row["measured_bytes"] / 1e6 if row["measured_bytes"] else "",
        }
        for row in rows
    ]
    return (
        "## The layer, planned and run\n\nRandom weights and activations of 8 bits, accumulators that "
        "hold any of them. Linear parts with their OTs; *once* is what a client gets once for all its "
        "inferences. *First run* is all that the two parties send, with the requantizations between the "
        "products and the set-up of OTs; where it was *measured*, the answer was that of the integer "
        "reference and every layer's bits and flows those predicted. *Products alone* take queries, "
        f"keys and values from one input. Not run are more than {RUN_TOKENS} tokens, and whole layers "
        "but one: they take many minutes on two cores, over OT hours.\n\n" + table(shown) + "\n\n"
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
    options = parser("exp-table12", __doc__)
    options.add_argument("--layers", action="store_true", help="plan and run the layer, too")
    return run(options, compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
