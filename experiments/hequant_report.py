"""The report of `exp-hequant`, from its result file alone."""

from __future__ import annotations

import math

from experiments.ideas import ALL, CHEETAH, SCI, VARIANTS
from experiments.plots import curves, save
from experiments.record import published, table
from experiments.rows import LINK

UNIFORM, WIDTHS, TILING = "quantized, Cheetah's parameters", "parameters alone", "tiling alone"


def report(tree: dict) -> str:
    """All parts, each with how its figures came to be."""
    quick = "**Quick: not all that the command measures.**\n\n" if tree["config"]["quick"] else ""
    return (
        f"# HEQuant's three ideas, {tree['config']['widths']}\n\n{quick}"
        f"{published('hequant')['title']}. Of its text only abstract and summary are at hand. Networks "
        "have random weights (bits do not depend on them) and shapes that are usual for the data sets; "
        "which networks it ran on which, and in how many bits, is not said. Encodings, tilings and "
        "packings are its own, moduli are powers of two; all but Cheetah is exact, wraps paid for.\n\n"
        + _claims(tree)
        + _networks(tree)
        + _measured(tree)
        + _saturation(tree)
        + _packing(tree)
        + _accumulators(tree)
    )


def _by_network(tree: dict) -> dict[str, dict[str, dict]]:
    found: dict[str, dict[str, dict]] = {}
    for row in tree["networks"]:
        found.setdefault(row["network"], {})[row["system"]] = row
    return found


def _times(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f} (one network)" if values else ""
    return f"{min(values):.1f} to {max(values):.1f}, geometric mean {_mean(values):.1f}"


def _mean(values: list[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _seconds(row: dict) -> float:
    """Of one inference at 200 Mbit/s, 13 ms: both parties' computing here, and the messages alone."""
    return row["seconds"] + LINK.seconds(row["bits"], 0, row["flows"])


def _claims(tree: dict) -> str:
    networks = _by_network(tree)

    def ratios(system: str) -> list[float]:
        rows = [by for by in networks.values() if "bits" in by[system]]
        return [by[system]["bits"] / by[ALL]["bits"] for by in rows]

    runs = {r["system"]: r for r in tree["runs"] if "layer" not in r}
    latency = ""
    if {CHEETAH, ALL} <= runs.keys():
        latency = f"{_seconds(runs[CHEETAH]) / _seconds(runs[ALL]):.1f} (one network)"
    alone = ""
    if {UNIFORM, WIDTHS} <= runs.keys():
        alone = f"{_seconds(runs[UNIFORM]) / _seconds(runs[WIDTHS]):.1f} (one network)"
    cheetah = _times(ratios(CHEETAH))
    ours = [
        f"CrypTFlow2 {_times(ratios(SCI)) or 'not run'}; Cheetah {cheetah}",
        "",
        cheetah,
        latency,
        alone,
    ]
    rows = []
    for claim, mine in zip(published("hequant")["claims"], ours, strict=True):
        low, high = claim["times"]
        quoted = (
            f"over {low}" if high is None else f"{low}" + (f" to {high}" if high != low else "")
        )
        told = f"{quoted} ({claim['from']})"
        rows.append({"times less": claim["what"], "quoted": told, "here": mine or "not run"})
    tighter = _times(ratios(TILING))
    return (
        "## What it claims, and what comes out\n\n"
        + table(rows)
        + "\n\nCommunication: predicted, whole "
        "networks. Latency: seconds of one inference that both parties took in this process on two "
        "cores, plus what the messages alone take at 200 Mbit/s, 13 ms (its own setting is not at "
        f"hand). `{CHEETAH}` is Cheetah as its text encodes convolutions, one filter an output "
        "polynomial; one that tiles as HEQuant does, exact and with uniform parameters "
        f"(`{TILING}`), sends {tighter} times what HEQuant does.\n\n"
    )


def _networks(tree: dict) -> str:
    text = "## Whole networks (predicted)\n\n"
    for network, by in _by_network(tree).items():
        rows = []
        for system in (SCI, CHEETAH, *VARIANTS):
            row = by[system]
            if "bits" not in row:
                rows.append({"system": system, "all, MB": row["why_not"]})
                continue
            rows.append(
                {
                    "system": system,
                    "all, MB": row["bits"] / 8e6,
                    "linear up, MB": row["up"] / 8e6,
                    "linear down, MB": row["down"] / 8e6,
                    "times HEQuant": row["bits"] / by[ALL]["bits"],
                    "linear alone": (row["up"] + row["down"]) / (by[ALL]["up"] + by[ALL]["down"]),
                }
            )
        text += f"### {network}\n\n{table(rows)}\n\n"
    return (
        text
        + "First inference of a client. CrypTFlow2's linear layers: by the formula of its public "
        "code; its other layers as preset `cryptflow2` has them, in a ring of 37 bits. Its fields "
        "modulo a prime, whose comparisons are dearer, are not built here, so that much is missing. "
        "Depthwise layers of Cheetah and HEQuant have a polynomial a channel.\n\n"
    )


def _measured(tree: dict) -> str:
    whole, layers = [], []
    for row in tree["runs"]:
        line = {
            "MB": row["bits"] / 8e6,
            "seconds": row["seconds"],
            "answers off": f"{row['off']} of {row['outputs']}",
        }
        if "layer" in row:
            name = f"{row['what']} ({row['network']}, {row['layer']})"
            layers.append({"layer": name, "system": row["system"], **line})
        else:
            line["flows"] = row["flows"]
            line["200 Mbit/s s"] = _seconds(row)
            whole.append({"network": row["what"], "system": row["system"], **line})
    return (
        "## Measured between two parties\n\n" + table(whole) + "\n\n" + table(layers) + "\n\nEvery "
        "layer's bits and flows are as predicted, every answer equals the integer reference, but for "
        "Cheetah's, counted where they are off. MB of single layers are the layer's alone; their "
        "seconds include what makes its shares, and compiling; those of networks are of a second run. "
        "200 Mbit/s: these seconds and the messages alone.\n\n"
    )


def _saturation(tree: dict) -> str:
    rows = tree["saturation"]
    names = [key for key in rows[0] if key != "bits"]
    widest, narrowest = rows[-1], rows[0]
    series = {"in step with widths": [(row["bits"], widest["bits"] / row["bits"]) for row in rows]}
    for name in names:
        series[name] = [(row["bits"], widest[name] / row[name]) for row in rows]
    title = f"Linear layers of ResNet18, CIFAR-100: saved since {widest['bits']} bits"
    figure = curves(series, "bits of weights and of activations", "times less", title)
    caption = (
        "How much less all linear layers send than at the most bits, for any weights of a width "
        "(worst-case accumulators). All lines: predicted by the cost model, but for the first, which is "
        "how widths shrink; high slots of packed sums may be off by one."
    )
    shown = [
        {"bits": row["bits"], **{f"{name}, MB": row[name] / 8e6 for name in names}} for row in rows
    ]
    packing = 100 * (1 - narrowest[ALL] / narrowest["parameters and tiling"])
    saved = ", ".join(f"{name} {widest[name] / narrowest[name]:.2f}x" for name in names)
    return (
        "## Naive quantization saturates\n\n"
        + save(figure, "hequant", caption)
        + "\n"
        + table(shown)
        + f"\n\nFrom {widest['bits']} bits to {narrowest['bits']}, "
        f"{widest['bits'] / narrowest['bits']:.0f}x fewer: {saved}. What is left grows with N and with "
        "what errors take, not with widths. Tiling moves the line down; packing, with moduli of any "
        f"number of bits and short replies, saves {packing:.1f} % of that at {narrowest['bits']} "
        "bits.\n\n"
    )


def _packing(tree: dict) -> str:
    rows = [
        {
            "widths": row["widths"],
            "l": row["l"],
            "s": row["s"],
            "sums": row["sums"],
            "off by one, %": 100 * row["counted"],
            "E low / 2^s, %": 100 * row["formula"],
            "standard deviation, %": 100 * row["deviation"],
            "HEQuant's s = l: E low / 2^l, %": 100 * row["formula_of_l_bits"],
            "largest error": row["largest_error"],
        }
        for row in tree["packing"]
    ]
    return (
        "## Packing across channels errs as often as its formula says\n\n"
        + table(rows)
        + "\n\nMeasured: one 3x3 convolution of 14x14 pixels, 32 to 64 channels, random weights and "
        "activations, run through encryption, reply and decryption, the wrap that makes sums exact left "
        "out. In networks here that wrap is always paid for.\n\n"
    )


def _accumulators(tree: dict) -> str:
    found, rows = tree["accumulators"], []
    for row in found["rows"]:
        widths = list(row["widths"].values())
        rows.append(
            {
                "strategy": row["strategy"],
                "l, least": min(widths),
                "mean": sum(widths) / len(widths),
                "most": max(widths),
                "linear layers, MB": row["linear_bits"] / 8e6,
                "sums that overflow": f"{row['overflows']} of {row['sums']}",
            }
        )
    return (
        "## Accumulators by three strategies\n\n"
        + table(rows)
        + f"\n\nResNet18, CIFAR-100. MB: predicted by HEQuant's method. Overflows: counted on "
        f"{found['each']} pictures other than the {found['each']} that were measured (with a bit more "
        f"than their largest sum); {found['pictures']}. Ours is the second everywhere: it never "
        "overflows.\n"
    )
