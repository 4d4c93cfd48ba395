"""`make exp-copriv`: what CoPriv's Winograd convolution would cost over OT, as formulas only.

F(2x2, 3x3) turns a 3x3 convolution of stride 1 into 16 products of K x C by C x tiles, one for every
place of a 4x4 tile, where the direct one is a single product of K x 9C by 9C x pixels. Costs alone:
pqjax does not run it. CoPriv's and COINN's totals are quoted.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from experiments.command import parser, run
from experiments.convolution import MIB, Layer, choice_bits, product, published_setting
from experiments.formulas import extra_bits
from experiments.plots import grouped_bars, save
from experiments.record import percent, published, relative, table
from nets.architecture import MINIONN
from nets.ops import Conv
from pqjax.linear import FULL, ByOt, on_shares_cost
from pqjax.protocols.resize import extend_cost

# Integer forms of the transforms: U = G2 g G2^T, V = B d B^T, and A (U * V) A^T = 4 y.
G2 = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])
B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
SCALE_BITS = 2  # of the 4 in 4 y
UNIFORM_BITS = 37  # CrypTFlow2's ring, as PrivQuant runs it
WIDTHS = ((2, 4), (4, 6), (8, 8))


def growth() -> list[int]:
    """Bits that a weight gains at each of the 16 places, at most."""
    rows = np.abs(G2).sum(1)
    return [int(factor - 1).bit_length() for factor in np.outer(rows, rows).reshape(-1)]


def resnet32() -> list[tuple[Layer, int]]:
    """Its 3x3 layers of stride 1 and how many there are of each."""
    counts = {(32, 3, 16): 1, (32, 16, 16): 10, (16, 32, 32): 9, (8, 64, 64): 9}
    return [(Layer(*shape, kernel=3), count) for shape, count in counts.items()]


def minionn() -> list[tuple[Layer, int]]:
    """Its 3x3 layers, all of stride 1."""
    found = []
    for layer in MINIONN.layers:
        if isinstance(layer, Conv) and layer.window == (3, 3):
            side, _, channels = MINIONN.shapes[layer.sources[0]]
            found.append((Layer(side, channels, layer.channels, 3), 1))
    return found


NETWORKS = {"MiniONN": minionn, "ResNet32": resnet32}


def _product_bits(shape: tuple[int, int, int], w_bits: int, ring: int) -> int:
    """A product with shares that fill the ring, over whichever side's bits are cheaper."""
    source, forms = published_setting()
    job = product(shape, w_bits, ring, ring)
    return min(on_shares_cost(source, ByOt(v, "patches"), job, forms).bits for v in FULL)


def winograd_bits(layer: Layer, w_bits: list[int], ring: int) -> int:
    """16 products of K x C by C x tiles in Z_2^ring, with weights of a width for each place."""
    tiles = (-(-layer.resolution // 2)) ** 2
    return sum(_product_bits((layer.outputs, layer.inputs, tiles), w, ring) for w in w_bits)


def uniform_bits(layer: Layer) -> tuple[int, int]:
    """Direct and Winograd in one ring of 37 bits for everything, weights included."""
    direct = _product_bits(layer.shape, UNIFORM_BITS, UNIFORM_BITS)
    return direct, winograd_bits(layer, [UNIFORM_BITS] * 16, UNIFORM_BITS)


def exact_bits(layer: Layer, w: int, a: int) -> tuple[int, int, int]:
    """Low-bit and exact: direct with X extended to the ring, Winograd likewise, PrivQuant's best.

    The direct ring has L = w + a + ceil(log2 9C) bits, Winograd's 2 more for the 4 in 4 y. X is
    extended once per pixel, before im2col or the transform, which then is local.
    """
    source, forms = published_setting()
    ring = w + a + extra_bits(layer.shape[1])
    pixels = layer.inputs * layer.resolution**2

    def extension(bits: int) -> int:
        return extend_cost(source, pixels, a, bits, True, False, forms).bits

    direct = extension(ring) + _product_bits(layer.shape, w, ring)
    wide = ring + SCALE_BITS
    winograd = extension(wide) + winograd_bits(layer, [w + g for g in growth()], wide)
    return direct, winograd, min(choice_bits(layer.shape, w, a))


def compute(args: argparse.Namespace) -> dict:
    """Every layer in the uniform ring and at a few widths."""
    runs = []
    for network, layers in NETWORKS.items():
        for layer, count in layers():
            direct, winograd = uniform_bits(layer)
            row = {
                "network": network,
                "layer": layer.name,
                "count": count,
                "uniform": {"direct": direct, "winograd": winograd},
                "exact": {},
            }
            for w, a in WIDTHS:
                names = ("direct", "winograd", "privquant")
                row["exact"][f"W{w}A{a}"] = dict(zip(names, exact_bits(layer, w, a), strict=True))
            runs.append(row)
    config = {"seed": None, "uniform_bits": UNIFORM_BITS, "transport": "IKNP, inline"}
    return {"config": config, "runs": runs}


def _totals(runs: list[dict]) -> list[dict]:
    """Per network, the sums over its layers, MiB."""
    found = []
    for network in NETWORKS:
        rows = [row for row in runs if row["network"] == network]

        def whole(pick, rows=rows) -> float:
            return sum(row["count"] * pick(row) for row in rows) / MIB

        columns = {
            "direct": whole(lambda r: r["uniform"]["direct"]),
            "winograd": whole(lambda r: r["uniform"]["winograd"]),
        }
        found.append({"network": network, "widths": f"{UNIFORM_BITS}-bit ring", **columns})
        for widths in rows[0]["exact"]:
            columns = {
                name: whole(lambda r, w=widths, n=name: r["exact"][w][n])
                for name in ("direct", "winograd", "privquant")
            }
            found.append({"network": network, "widths": widths, **columns})
    return found


def report(tree: dict) -> str:
    """Assumptions, layers, networks, quoted totals."""
    runs = tree["runs"]
    lines = []
    for row in runs:
        uniform = row["uniform"]
        line = {
            "network": row["network"],
            "layer": row["layer"],
            "count": row["count"],
            f"direct, {UNIFORM_BITS} bits": uniform["direct"] / MIB,
            "Winograd": uniform["winograd"] / MIB,
            "W / d": percent(relative(uniform["winograd"], uniform["direct"])),
        }
        for widths, bits in row["exact"].items():
            line[f"direct {widths}"] = bits["direct"] / MIB
            line[f"Winograd {widths}"] = bits["winograd"] / MIB
            line[f"W / d {widths}"] = percent(relative(bits["winograd"], bits["direct"]))
        lines.append(line)
    totals = _totals(runs)
    shown = [
        {
            "network": row["network"],
            "widths": row["widths"],
            "direct, X in the ring": row["direct"],
            "Winograd": row["winograd"],
            "Winograd / direct": percent(relative(row["winograd"], row["direct"])),
            "PrivQuant, best of four": row.get("privquant", ""),
        }
        for row in totals
    ]
    return (
        "# CoPriv: Winograd convolution over OT, cost only\n\n"
        "F(2x2, 3x3): 16 products of K x C by C x tiles. Predicted by formulas; CoPriv's own text "
        "and code are not at hand, so these are assumptions:\n\n"
        f"- The {UNIFORM_BITS}-bit ring is CrypTFlow2's setting, on which CoPriv builds: weights, "
        "shares and products all in that ring, transforms absorbed in fixed point.\n"
        "- At low widths the result is exact. Weights are transformed in the clear by 2G, so they gain "
        f"{min(growth())} to {max(growth())} bits, place by place; the output transform gives 4 y, "
        f"so the ring has {SCALE_BITS} bits more than the direct one. The input's own growth is "
        "free: the transform is linear and local on shares that fill the ring.\n"
        "- X is extended once per pixel to fill the ring (part of the figure), correlated OTs over "
        "whichever side's bits are cheaper; no wrap is left to put right.\n"
        "- 3x3 layers of stride 1 only: ResNet32's two strided ones and all 1x1 and dense layers are "
        "left out.\n\n## Networks\n\nMiB, sums over their 3x3 stride-1 layers:\n\n"
        + table(shown)
        + "\n\nWinograd saves multiplications, which pays where weights are wide. Weights of 2 bits "
        "become 4 to 6 bits wide, and OTs are paid by the bit.\n\n## Layers\n\nMiB each:\n\n"
        + table(lines)
        + "\n\n"
        + _picture(totals)
        + "\n## Quoted totals\n\n"
        + _quoted()
    )


def _quoted() -> str:
    tree = published("table11")
    shown, notes = [], []
    for row in tree["rows"]:
        if row["name"] in ("COINN", "CoPriv"):
            line = {"system": f"{row['name']} (quoted)"}
            for i, network in enumerate(tree["networks"]):
                line[f"{network}, GB"] = row["gigabytes"][i] or ""
                line[f"{network}, s"] = row["seconds"][i] or ""
            shown.append(line)
            notes.append(f"{row['name']}: {row['note']}.")
    return (
        table(shown)
        + f"\n\n{published('source')}, table 11: {tree['title']}. {' '.join(notes)} No figure here can "
        "be set beside them: they are totals of whole networks, of another network in CoPriv's case.\n"
    )


def _picture(totals: list[dict]) -> str:
    groups = [f"{row['network']}\n{row['widths']}" for row in totals]
    series = {
        "direct, X in the ring": [row["direct"] for row in totals],
        "Winograd F(2x2, 3x3)": [row["winograd"] for row in totals],
        "PrivQuant, best of four": [row.get("privquant", 0.0) for row in totals],
    }
    title = "3x3 stride-1 convolutions of a network: direct and Winograd"
    figure = grouped_bars(groups, series, "communication, MiB", title, log=True)
    caption = (
        "Sums over the 3x3 stride-1 layers. All bars: predicted by formulas under the assumptions "
        "above, none measured or quoted; PrivQuant's has no bar in the uniform ring. Logarithmic."
    )
    return save(figure, "copriv", caption)


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/copriv.json`, `.md` and the picture."""
    return run(parser("exp-copriv", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
