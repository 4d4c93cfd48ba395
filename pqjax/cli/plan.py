"""`pqjax plan` and `pqjax explain`: what a network's layers cost, and why."""

from __future__ import annotations

import argparse
import pathlib

from pqjax.cli.options import Commands, command, plan_options
from pqjax.errors import DataError
from pqjax.graph import Graph, load_model
from pqjax.planner import plan
from pqjax.planner.report import SECURITY

LINK = "predict seconds on this network"


def add(commands: Commands) -> None:
    """Adds both commands."""
    shown = command(commands, "plan", _plan, "print what every layer costs")
    plan_options(shown, LINK)
    shown.add_argument("model", help="network file (.npz) or graph (.json)")
    shown.add_argument("--variants", action="store_true", help="also what was not chosen")
    explained = command(commands, "explain", _explain, "print why a layer runs as it does")
    plan_options(explained, LINK)
    explained.add_argument("model", help="network file (.npz)")
    explained.add_argument("layer", help="a layer's name, see `pqjax plan`")


def _plan(args: argparse.Namespace) -> int:
    print(plan(read_graph(args.model), args.protocol, args.link).table(args.variants))
    print(f"\n{SECURITY}")
    return 0


def _explain(args: argparse.Namespace) -> int:
    graph, _, _ = load_model(args.model)
    print(plan(graph, args.protocol, args.link).explain(args.layer))
    return 0


def read_graph(path: str) -> Graph:
    """The graph of a network file, or of the JSON that `pqjax search --out` writes."""
    if not path.endswith(".json"):
        return load_model(path)[0]
    try:
        return Graph.from_json(pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the graph {path}: {error}") from error
