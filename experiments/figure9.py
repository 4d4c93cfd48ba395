"""`make exp-figure9`: PrivQuant's figure 9, what each optimization saves on a basic block.

A block of ResNet32's third stage, 8x8 with 64 channels. Every step adds one thing to the one before.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

from experiments.blocks import KINDS, RESNET32, Setting, Style, build, by_kind
from experiments.command import parser, run
from experiments.plots import save, stacked_bars
from experiments.record import percent, published, table
from pqjax.graph.baselines import WORST_CASE_WIDTHS
from pqjax.graph.passes import ALIGN, KNOWN_SIGN, LOWER, MERGE, RELU_AFTER_SHIFT, SIGNS, TRUNC
from pqjax.planner import PRESETS, Preset, plan

MIB = 8 * 2**20
BLOCK = RESNET32[3]
WEIGHT_BITS, BITS, RESIDUAL_BITS = 3, 6, 8


def steps() -> list[tuple[str, Preset, Style]]:
    """(what was added, the preset so far, how the residual is added)."""
    base = dataclasses.replace(
        PRESETS["sirnn-choice1"], name="sirnn, no sign knowledge", passes=(WORST_CASE_WIDTHS, LOWER)
    )
    described = dataclasses.replace(base, choices=PRESETS["sirnn"].choices)
    adaptive = dataclasses.replace(base, choices=PRESETS["privquant"].choices)
    signs = dataclasses.replace(adaptive, passes=(*base.passes, SIGNS))
    forms = dataclasses.replace(signs, forms=PRESETS["privquant"].forms)
    fused = dataclasses.replace(forms, passes=(*signs.passes, TRUNC, MERGE, ALIGN))
    late = dataclasses.replace(fused, passes=(*fused.passes, RELU_AFTER_SHIFT, KNOWN_SIGN))
    return [
        ("SiRNN, choice (1) as its figures fit", base, "described"),
        ("SiRNN, choice (4) as described", described, "described"),
        ("+ cheapest of four products", adaptive, "described"),
        ("+ simplified residual", adaptive, "simplified"),
        ("+ sign propagation", signs, "simplified"),
        ("+ known wrap by one choice bit", forms, "simplified"),
        ("+ fused requantization", fused, "simplified"),
        ("+ ReLU after the shift (= privquant)", late, "simplified"),
        ("pqjax", PRESETS["pqjax"], "simplified"),
    ]


def compute(args: argparse.Namespace) -> dict:
    """Bits by kind after every step."""
    runs = []
    for name, preset, style in steps():
        positive = SIGNS in preset.passes
        setting = Setting(WEIGHT_BITS, BITS, RESIDUAL_BITS, style, positive=positive)
        made = plan(build(BLOCK, setting)[0], preset)
        runs.append({"step": name, "bits": by_kind(made)})
    widths = {"widths": f"W{WEIGHT_BITS}A{BITS}", "residual_bits": RESIDUAL_BITS}
    return {"config": {"seed": None, "block": BLOCK.name, **widths}, "runs": runs}


def report(tree: dict) -> str:
    """Table and pictures."""
    runs = tree["runs"]
    totals = [sum(row["bits"].values()) for row in runs]
    online = [_online(row) for row in runs]
    shown = [
        {
            "step": row["step"],
            **{f"{kind}, MiB": row["bits"][kind] / MIB for kind in KINDS},
            "all, MiB": whole / MIB,
            "online, MiB": part / MIB,
            "all, x less than the first": f"{totals[0] / whole:.2f}",
            "online, x less": f"{online[0] / part:.2f}",
        }
        for row, whole, part in zip(runs, totals, online, strict=True)
    ]
    pictures = []
    for name, kinds, title in (
        ("figure9", KINDS, "Figure 9a: all communication of a basic block"),
        ("figure9_online", KINDS[1:], "Figure 9b: its online part"),
    ):
        parts = {kind: [[row["bits"][kind] / MIB] for row in runs] for kind in kinds}
        groups = [_folded(row["step"]) for row in runs]
        figure = stacked_bars(groups, [""], parts, "MiB", title)
        caption = (
            f"{title} of ResNet32's third stage at W{WEIGHT_BITS}A{BITS}, residual {RESIDUAL_BITS} "
            "bits. All bars: predicted by the cost model; online is everything but the convolutions."
        )
        pictures.append(save(figure, name, caption))
    claim = published("figure9")
    last = len(runs) - 2
    saved = {"total": totals[0] / totals[last], "online": online[0] / online[last]}
    against = {key: percent(value / claim[key] - 1) for key, value in saved.items()}
    return (
        "# Figure 9: what each optimization saves\n\n"
        f"{published('source')}, figure 9, a picture without numbers; section 6.4 says that all of "
        f"them together save {claim['total']}x in total and {claim['online']}x online on this block "
        "(8x8, 64 channels).\n\n"
        + table(shown)
        + "\n\n"
        + "\n".join(pictures)
        + "\nFrom choice (1), which SiRNN's published figures fit, to privquant: "
        f"{saved['total']:.2f}x in total ({against['total']} against the paper's), "
        f"{saved['online']:.2f}x online ({against['online']}). Requantization saturates here, in every "
        "row alike, which the paper's does not; the paper does not say at which widths it measured.\n"
    )


def _folded(step: str) -> str:
    words, lines = step.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 12 and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _online(row: dict) -> int:
    return sum(bits for kind, bits in row["bits"].items() if kind != KINDS[0])


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/figure9.json`, `.md` and the pictures."""
    return run(parser("exp-figure9", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
