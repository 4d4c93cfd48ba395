"""`pqjax search`: the bit widths of least loss that keep to a limit."""

import argparse
import dataclasses
import json
import pathlib

from pqjax.cli.console import say
from pqjax.cli.options import Commands, command, json_option, output_file, plan_options, positive
from pqjax.cli.plan import LINK, read_graph
from pqjax.errors import DataError, InputError
from pqjax.graph.sensitivity import read_sensitivities
from pqjax.planner import find_preset
from pqjax.planner.summary import summary
from pqjax.search import Limit, Space, parse_bits, search, widths_report


def add(commands: Commands) -> None:
    """Adds the command."""
    text = "find the bit widths of least loss that keep to a limit"
    made = command(
        commands, "search", _search, text,
        "search network.npz --sensitivity network.json --limit 0.5GB --protocol privquant",
        "search network.npz --sensitivity network.json --seconds 10 --link lan --out found.json",
    )  # fmt: skip
    plan_options(made, LINK)
    made.add_argument("model", help="network file (.npz) or graph (.json), at any widths")
    sensitivity = "JSON that `python -m nets.sensitivity` writes"
    made.add_argument("--sensitivity", metavar="FILE", required=True, help=sensitivity)
    made.add_argument("--limit", metavar="BYTES", help="at most, e.g. 0.5GB or 400MiB")
    made.add_argument("--online", action="store_true", help="--limit is of the online phase")
    made.add_argument("--seconds", type=positive(float), help="at most, on --link")
    made.add_argument("--bits", metavar="WIDTHS", help="of weights, 2-8 if not given")
    made.add_argument("--activations", metavar="WIDTHS", help="to try, e.g. 4,5,6")
    made.add_argument("--residual", metavar="WIDTHS", help="to try, e.g. 6,8")
    made.add_argument("--out", type=output_file, metavar="FILE", help="write the graph as JSON")
    widths = "write the widths for `python -m nets.train qat --bits`"
    made.add_argument("--widths", type=output_file, metavar="FILE", help=widths)
    json_option(made)


def _search(args: argparse.Namespace) -> int:
    limit = _limit(args)
    graph, sensitivities = read_graph(args.model), read_sensitivities(args.sensitivity)
    space = Space(
        _widths(args.bits) or Space.weights, _widths(args.activations), _widths(args.residual)
    )
    preset = find_preset(args.protocol, args.ot)
    preset = dataclasses.replace(preset, inferences=args.inferences, batch=args.batch)
    found = search(graph, sensitivities, limit, preset, space, say)
    if args.json:
        tree = {
            "widths": dataclasses.asdict(found.widths), "loss": found.loss, "cost": found.cost,
            "limit": limit.value, "proven": found.proven, "plan": summary(found.plan),
        }  # fmt: skip
        print(json.dumps(tree))
    else:
        print(widths_report(graph, sensitivities, limit, found))
    if args.out:
        _write(args.out, found.graph.to_json())
    if args.widths:
        _write(args.widths, str(found.widths))
    return 0


def _limit(args: argparse.Namespace) -> Limit:
    """The one limit that the options name."""
    if args.limit is not None and args.seconds is None:
        if args.link is not None:
            raise InputError(
                "a limit in bytes does not depend on a link: give --seconds with --link"
            )
        return Limit(parse_bits(args.limit), args.online)
    if args.seconds is not None and args.limit is None:
        if args.link is None:
            raise InputError("a limit in seconds needs --link, for instance --link 200mbps,13ms")
        return Limit(args.seconds, args.online, args.link)
    raise InputError("one limit expected: --limit 0.5GB, or --seconds 10 --link 200mbps,13ms")


def _widths(text: str | None) -> tuple[int, ...] | None:
    """Reads 2-8 or 4,6,8."""
    if text is None:
        return None
    try:
        first, dash, last = text.partition("-")
        if dash:
            return tuple(range(int(first), int(last) + 1))
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"cannot read the widths {text!r}; expected 2-8 or 4,6,8") from error


def _write(path: str, text: str) -> None:
    try:
        pathlib.Path(path).write_text(f"{text}\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error
