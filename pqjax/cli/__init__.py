"""The command line: `pqjax serve`, `infer`, `prepare`, `hint`, `plan`, `explain`, `calibrate`, ..."""

import argparse
from collections.abc import Sequence
from importlib.metadata import entry_points

from pqjax.cli import (
    calibrate,
    client,
    demo,
    doctor,
    evaluate,
    fleet,
    hint,
    infer,
    inspect,
    network,
    plan,
    prepare,
    search,
    serve,
    top,
    verify,
)
from pqjax.cli.console import say
from pqjax.cli.serve import INTERRUPTED
from pqjax.errors import PqjaxError
from pqjax.version import VERSION

_COMMANDS = (
    serve.add, infer.add, prepare.add, hint.add, plan.add, calibrate.add, search.add,
    inspect.add, verify.add, evaluate.add, network.add, top.add, client.add, demo.add, fleet.add,
    doctor.add,
)  # fmt: skip


GROUP = "pqjax.commands"  # of entry points: what other packages add to the command line


def parser() -> argparse.ArgumentParser:
    """All commands, those of other packages included."""
    made = argparse.ArgumentParser(
        prog="pqjax", description="Private inference of quantized networks between two parties.",
        epilog="`pqjax COMMAND --help` tells more, with examples",
    )  # fmt: skip
    made.add_argument("--version", action="version", version=f"pqjax {VERSION}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    for more in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        more.load()(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code. Expected failures are one line, no traceback."""
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except PqjaxError as error:
        say(f"pqjax: {error}")
        return 1
    except KeyboardInterrupt:
        say("pqjax: interrupted")
        return INTERRUPTED
