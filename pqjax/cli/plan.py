"""`pqjax plan` and `pqjax explain`: what a network's layers cost, and why."""

import argparse
import json
import pathlib
import textwrap

from pqjax.cli.options import Commands, command, json_option, plan_options, planned
from pqjax.errors import DataError
from pqjax.graph import Graph, load_model
from pqjax.planner import Plan
from pqjax.planner.report import exactness, security
from pqjax.planner.summary import summary
from pqjax.wire.link import LAN, Link
from pqjax.wire.timeline import NOMINAL

LINK = "predict seconds on this network, e.g. 200mbps,13ms or lan"
_WAN = Link(mbps=200, rtt_ms=13)
_WORDS = {
    "formats": "s16@9 is signed, 16 bits, value = integer / 2^9; u4@4 is unsigned; +5@2 is signed, and "
    "known not to be negative",
    "variant": "of a linear layer: static-hints and merged-hints are computed on ciphertexts (tile, "
    "filters a hint or hints in one, bits of a ciphertext's coefficient and of a hint's), as are "
    "uniform, widths and tiling, whose results come back (with N, bits up and back); of the others, by "
    "oblivious transfer, whose operand is extended (w: weights, x: inputs, full: the operand fills its "
    "ring already) and whose bits choose",
    "install": "what every client gets once, before its first inference",
    "stored OTs": "random oblivious transfers that a layer uses up; they are made ahead in the offline "
    "phase, where their bytes are counted, unless the plan streams them",
    "flows": "one-way bursts that the other side waits for; each takes half a round trip",
    "seconds": "of computing and messages, of each step by itself on the link, without one on loopback; "
    "in the total overlapped, of a first inference, OTs made included",
}


def add(commands: Commands) -> None:
    """Adds both commands."""
    shown = command(
        commands, "plan", _plan, "print what every layer costs",
        "plan network.npz", "plan network.npz --protocol privquant --link 200mbps,13ms --variants",
        "plan network.npz --inferences 1 --json",
    )  # fmt: skip
    plan_options(shown, LINK)
    shown.add_argument("model", help="network file (.npz) or graph (.json)")
    shown.add_argument("--variants", action="store_true", help="also what was not chosen")
    json_option(shown)
    explained = command(
        commands, "explain", _explain, "print why a layer runs as it does",
        "explain network.npz conv2", "explain network.npz conv2 --json",
    )  # fmt: skip
    plan_options(explained, LINK)
    explained.add_argument("model", help="network file (.npz) or graph (.json)")
    explained.add_argument("layer", help="a layer's name, see `pqjax plan`")
    json_option(explained)


def _plan(args: argparse.Namespace) -> int:
    made = planned(args, read_graph(args.model))
    if args.json:
        print(json.dumps(summary(made)))
        return 0
    links = [made.link] if made.link else [LAN, _WAN]
    alone = ", ".join(f"{made.seconds(link):.2f} s on {link}" for link in links)
    print(made.table(args.variants))
    print(f"\n{predictions(made)}")
    held = f"{exactness(made)}\n{security(made.preset.source)}"
    print(f"messages alone: {alone}\n{legend(made)}\n{held}")
    return 0


def _explain(args: argparse.Namespace) -> int:
    made = planned(args, read_graph(args.model))
    told = made.explain(args.layer)  # an unknown layer is an error either way
    if args.json:
        print(json.dumps(summary(made, args.layer)))
        return 0
    print(f"{told}\n\n{legend(made)}")
    return 0


def predictions(made: Plan) -> str:
    """Seconds of every phase, on the plan's link or some."""
    lines = [
        f"predicted seconds, by {made.rates.source} rates; a first inference, then the next ones"
    ]
    if made.rates == NOMINAL:
        lines[0] += " (`pqjax calibrate` measures this machine's)"
    for link in [made.link] if made.link else [None, LAN, _WAN]:
        first, later = made.predicted(link, 0), made.predicted(link)
        phases = [f"install {first['install']:.2f}"] if made.hinted else []
        phases += [
            f"{phase} {first[phase]:.2f}, {later[phase]:.2f}" for phase in ("offline", "online")
        ]
        lines.append(f"  {'loopback' if link is None else link}: {'; '.join(phases)}")
    return "\n".join(lines)


def legend(made: Plan) -> str:
    """What the columns of a table and the words in them mean."""
    used = {step.variant for step in made.steps if step.variant}
    numbered = ", ".join(sorted(name for name in used if name[0].isdigit()))
    words = dict(_WORDS)
    if numbered:
        words["variant"] += f"; {numbered}: numbered as in PrivQuant, table 4"
    return "\n".join(
        textwrap.fill(
            text,
            100,
            initial_indent=f"{word:12}",
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )
        for word, text in words.items()
    )


def read_graph(path: str) -> Graph:
    """The graph of a network file, or of the JSON that `pqjax search --out` writes."""
    if not path.endswith(".json"):
        return load_model(path)[0]
    try:
        return Graph.from_json(pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the graph {path}: {error}") from error
