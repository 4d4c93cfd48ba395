"""`make exp-table10`: PrivQuant's table 10, residual addition as described and simplified.

The paper does not say how wide residuals are or what it counts, so both are run at several assumptions;
what can be compared is the ratio.
"""

from __future__ import annotations

import argparse
import sys

from experiments.blocks import RESNET32, RESNET50, Block, Setting, Style, build, by_kind
from experiments.command import parser, run
from experiments.record import published, table
from pqjax import reference, run_local
from pqjax.errors import PqjaxError
from pqjax.graph import Rule
from pqjax.planner import PRESETS, plan

MB = 8 * 10**6
ROWS: tuple[tuple[Block, int, int], ...] = (
    (RESNET32[1], 2, 6),
    (RESNET32[3], 4, 6),
    (RESNET50[1], 4, 6),
    (RESNET50[4], 3, 6),
)
RESIDUALS = (6, 8, 16)
PART = "residual addition"
# SiRNN's way and ours: how it adds, and by which protocols.
WAYS: tuple[tuple[Style, str], ...] = (("described", "sirnn"), ("simplified", "privquant"))
MEASURED = RESNET32[3]  # the block small enough to run both ways in a minute


def pair(block: Block, weight_bits: int, bits: int, residual_bits: int, rule: Rule) -> dict:
    """Bits of the residual steps, SiRNN's way and simplified, and of the rest of the block."""
    found = {}
    for style, protocol in WAYS:
        setting = Setting(weight_bits, bits, residual_bits, style, rule)
        made = plan(build(block, setting)[0], protocol)
        found[style] = by_kind(made)
    return found


def compute(args: argparse.Namespace) -> dict:
    """Every row at every assumption; one block also between two parties."""
    runs = []
    for row, (block, weight_bits, bits) in zip(published("table10")["rows"], ROWS, strict=True):
        for residual_bits in RESIDUALS:
            for rule in ("wrap", "saturate"):
                parts = pair(block, weight_bits, bits, residual_bits, rule)
                runs.append(
                    {
                        "block": row["block"],
                        "elements": block.side**2 * block.channels,
                        "printed": {"SiRNN": row["SiRNN"], "PrivQuant": row["PrivQuant"]},
                        "residual_bits": residual_bits,
                        "rule": rule,
                        "bits": {style: parts[style] for style in parts},
                    }
                )
    measured = []
    if not args.no_measure:
        measured = [measure(*way) for way in WAYS] + [measure("simplified", "pqjax")]
    config = {"seed": 0, "widths": "worst-case accumulators", "presets": ["sirnn", "privquant"]}
    return {"config": config, "runs": runs, "measured": measured}


def measure(style: Style, protocol: str) -> dict:
    """One block run by both parties: exact, and every layer's bits as predicted."""
    import numpy as np

    graph, weights = build(MEASURED, Setting(4, 6, 8, style, "saturate"))
    limits = graph.input.out
    x = np.random.default_rng(10).integers(limits.low, limits.high + 1, limits.shape)
    made = plan(graph, PRESETS[protocol])
    got = run_local(made, weights, x)
    if not np.array_equal(got.output, reference(graph, weights, x)):
        raise PqjaxError(f"{MEASURED.name}, {protocol}: the answer differs from the reference")
    found = made.differences(got.trace, 1)
    if found:
        raise PqjaxError(f"{MEASURED.name}, {protocol}: {found[0]}")
    return {"block": MEASURED.name, "style": style, "protocol": protocol, "bits": by_kind(made)}


def report(tree: dict) -> str:
    """Ratios beside the printed ones, per assumption."""
    shown = []
    for row in tree["runs"]:
        one, two = (row["bits"][style][PART] for style in ("described", "simplified"))
        shown.append(
            {
                "block": row["block"],
                "residual": f"{row['residual_bits']} bits, {row['rule']}",
                "SiRNN MB": one / MB,
                "printed": row["printed"]["SiRNN"],
                "simplified MB": two / MB,
                "printed ": row["printed"]["PrivQuant"],
                "ratio": f"{one / two:.1f}",
                "printed  ": f"{row['printed']['SiRNN'] / row['printed']['PrivQuant']:.1f}",
            }
        )
    runs = [
        {"block": m["block"], "addition": m["style"], "protocol": m["protocol"]}
        | {kind: bits / MB for kind, bits in m["bits"].items()}
        for m in tree["measured"]
    ]
    text = (
        "# Table 10: residual addition\n\n"
        f"{published('source')}, table 10. MB of 10^6 bytes, predicted by the cost model: SiRNN's "
        "addition (figure 5a: the convolution's result is requantized to the residual's format, "
        "both operands are extended by a bit, the sum is requantized) with preset `sirnn`, the "
        "simplified one (figure 5b) with preset `privquant`; of each the steps of the addition "
        "alone, without its ReLU. Activations have 6 bits; accumulators l_w + l_x + ceil(log2 K) "
        "bits; the shifts are those of our trained networks (weight scale 2^(W + 3)).\n\n"
        + table(shown)
        + "\n\nThe paper reports neither residual widths nor scales nor what it counts, so its absolute "
        "figures cannot be reproduced; ours differ from them by the columns above. `wrap` drops high "
        "bits, as the paper's algorithm 1 does; `saturate` clamps, which is what its quantizer does "
        "and what our networks use; it costs a comparison more each time.\n"
    )
    if runs:
        text += (
            "\n## Measured between two parties\n\nBits as predicted in every step, result equal to the "
            "reference (W4A6, residual 8 bits, saturating); MB.\n\n" + table(runs) + "\n"
        )
    return text


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/table10.json` and `.md`."""
    options = parser("exp-table10", __doc__)
    options.add_argument("--no-measure", action="store_true", help="predict only")
    return run(options, compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
