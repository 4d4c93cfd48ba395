"""`pqjax hint`: makes what every client of a network gets once, as a file."""

import argparse
import shutil

from pqjax.cli.console import Bar, say
from pqjax.cli.options import Commands, command, hints_option, output_file, plan_options, planned
from pqjax.engine.hints import hint_path
from pqjax.engine.model import ServedModel
from pqjax.errors import DataError
from pqjax.graph import load_model


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "hint", _hint, "make the file that every client of a network gets once",
        "hint network.npz", "hint network.npz --out network.hint --inferences 1000",
    )  # fmt: skip
    made.add_argument("model", help="network file (.npz)")
    out = "write the file here, too, for clients that are to have it beforehand"
    made.add_argument("--out", type=output_file, metavar="FILE", help=out)
    hints_option(made, "where `pqjax serve` looks for it, with the secret key to it")
    plan_options(made, "plan for this network, as `pqjax serve` is told to")


def _hint(args: argparse.Namespace) -> int:
    graph, weights, meta = load_model(args.model)
    plan = planned(args, graph, meta)
    model = ServedModel.of(plan, weights, args.hints, Bar())
    if model.hints is None:
        say(f"pqjax: protocol {plan.protocol} has no hints: clients get nothing beforehand")
        return 0
    path = hint_path(args.hints, model.hints)
    if args.out is not None:
        try:
            shutil.copyfile(path, args.out)
        except OSError as error:
            raise DataError(f"cannot write {args.out}: {error}") from error
        path = args.out
    print(path)
    say(f"pqjax: {model.hints.whole.size / 1e6:.2f} MB, public; digest {model.hints.digest.hex()}")
    return 0
