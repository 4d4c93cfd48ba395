"""Options that several commands have, and how their values are read."""

import argparse
import pathlib
import typing
from collections.abc import Callable

from pqjax.errors import InputError
from pqjax.planner import PRESETS
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.link import Link, parse_link
from pqjax.wire.tls import Tls

Commands = argparse._SubParsersAction
Run = Callable[[argparse.Namespace], int]  # returns the exit code


def command(commands: Commands, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A new command, which `run` carries out."""
    made = commands.add_parser(name, help=text, description=text)
    made.set_defaults(run=run)
    return made


def positive(kind: type) -> Callable[[str], int | float]:
    """Reads a number above 0."""

    def read(text: str):
        value = kind(text)
        if not 0 < value < 1e9:
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    return read


def link_option(made: argparse.ArgumentParser, text: str | None) -> None:
    """Adds --link: an emulated or assumed network."""

    def read(value: str) -> Link | None:
        try:
            return parse_link(value)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    made.add_argument("--link", type=read, help=text)


def plan_options(made: argparse.ArgumentParser, link: str) -> None:
    """Adds --protocol and --link, from which a plan is made."""
    made.add_argument("--protocol", default="pqjax", help=f"one of {', '.join(sorted(PRESETS))}")
    link_option(made, link)


def network_options(made: argparse.ArgumentParser) -> None:
    """Adds what both ends of a connection may say about it."""
    made.add_argument("--tls", metavar="DIR", help="folder that `pqjax certs` wrote")
    made.add_argument(
        "--insecure-plaintext", action="store_true", help="no TLS off loopback, on purpose"
    )
    seconds_option(
        made, "--deadline", DEADLINE_S, "give up a wait in which nothing moves for so long"
    )
    made.add_argument("--trace", metavar="FILE", help="write the session's trace as JSON")


def seconds_option(made: argparse.ArgumentParser, name: str, usual: float, text: str) -> None:
    """Adds a limit in seconds."""
    text = f"{text} (default: %(default)g)"
    made.add_argument(name, type=positive(float), default=usual, metavar="SECONDS", help=text)


def connection(args: argparse.Namespace, side: str) -> dict[str, typing.Any]:
    """What `network_options` were given, as `Server` and `connect` take it."""
    tls = None
    if args.tls is not None:
        folder = pathlib.Path(args.tls)
        tls = Tls(folder / f"{side}.pem", folder / f"{side}.key", folder / "ca.pem")
    plain, deadline_s = args.insecure_plaintext, args.deadline
    return {"tls": tls, "insecure_plaintext": plain, "deadline_s": deadline_s}
