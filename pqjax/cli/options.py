"""Options that several commands have, and how their values are read."""

import argparse
import os
import pathlib
import shutil
import typing
from collections.abc import Callable, Mapping

from pqjax.cli.console import say
from pqjax.engine.catalogue import Title
from pqjax.engine.process import cache_folder
from pqjax.engine.rates import kept_rates
from pqjax.errors import DataError, InputError
from pqjax.graph import Graph
from pqjax.planner import PRESETS, Plan
from pqjax.planner.presets import OTS
from pqjax.planner.wishes import OBJECTIVES
from pqjax.service.offer import Planning
from pqjax.wire.address import is_loopback, resolve
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.link import Link, parse_link
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.tls import Tls
from pqjax.wire.work import Rates

MANY = 100  # inferences that a plan is made for if nobody says
_ROOM_BYTES = 64 << 20  # the longest trace so far, ResNet50's, takes a tenth

Commands = argparse._SubParsersAction
Run = Callable[[argparse.Namespace], int]  # returns the exit code


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples as they are written; defaults where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def command(
    commands: Commands, name: str, run: Run, text: str, *examples: str
) -> argparse.ArgumentParser:
    """A new command, which `run` carries out; examples are what may follow `pqjax`."""
    shown = "\n".join(f"  pqjax {example}" for example in examples)
    made = commands.add_parser(
        name, help=text, description=text, epilog=f"examples:\n{shown}", formatter_class=_Help
    )
    made.set_defaults(run=run)
    return made


def positive(kind: type) -> Callable[[str], int | float]:
    """Reads a number above 0."""
    what = "a whole number" if kind is int else "a number"

    def read(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < 1e9:
            raise argparse.ArgumentTypeError(f"{what} above 0 expected, got {text!r}")
        return value

    return read


def link_option(made: argparse.ArgumentParser, text: str | None) -> None:
    """Adds --link: an emulated or assumed network."""

    def read(value: str) -> Link | None:
        try:
            return parse_link(value)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    made.add_argument("--link", type=read, metavar="LINK", help=text)


def json_option(made: argparse.ArgumentParser) -> None:
    """Adds --json."""
    made.add_argument("--json", action="store_true", help="print JSON for scripts, nothing else")


def output_file(text: str) -> str:
    """Reads the path of a file to write later: whether that will be possible is asked now."""
    path = pathlib.Path(text)
    folder = path.parent
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file in it")
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {folder}: make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: no permission")
    if shutil.disk_usage(folder).free < _ROOM_BYTES:
        raise argparse.ArgumentTypeError(
            f"{text} cannot be written: less than {_ROOM_BYTES >> 20} MiB free on its disk"
        )
    return text


def plan_options(made: argparse.ArgumentParser, link: str) -> None:
    """Adds what a plan is made from: --protocol, --ot, --inferences, --batch, --objective, --link."""
    presets = f"one of {', '.join(sorted(PRESETS))}"
    made.add_argument("--protocol", default="pqjax", metavar="NAME", help=presets)
    sources = "source of OTs of a protocol that has a store: silent, or softspoken (assumes no LPN)"
    made.add_argument("--ot", choices=tuple(OTS), help=sources)
    many = "how many inferences a client is expected to make: what it gets once is worth the more"
    made.add_argument("--inferences", type=positive(int), default=MANY, metavar="N", help=many)
    batch = "how many inputs an inference answers at a time"
    made.add_argument("--batch", type=positive(int), default=1, metavar="N", help=batch)
    what = "what is to be least: bytes, or seconds of computing and messages online or in total"
    made.add_argument("--objective", choices=OBJECTIVES, help=what)
    link_option(made, link)


def hints_option(made: argparse.ArgumentParser, text: str) -> None:
    """Adds --hints: a folder, by default in the user's cache."""
    usual = cache_folder() / "hints"
    made.add_argument("--hints", type=pathlib.Path, default=usual, metavar="DIR", help=text)


def store_option(made: argparse.ArgumentParser, text: str) -> None:
    """Adds --store: a folder, by default in the user's cache."""
    usual = cache_folder() / "stored"
    made.add_argument("--store", type=pathlib.Path, default=usual, metavar="DIR", help=text)


def planning(args: argparse.Namespace) -> Planning:
    """What `plan_options` ask for."""
    link = None if args.link is None else str(args.link)
    wishes = args.inferences, args.ot, args.objective, args.batch
    return Planning(args.protocol, link, *wishes)


def planned(args: argparse.Namespace, graph: Graph, meta: Mapping[str, typing.Any] = {}) -> Plan:
    """The plan that `plan_options` ask for."""
    return planning(args).plan(graph, meta, rates())


def rates() -> Rates:
    """This machine's, or nominal ones where there are none."""
    try:
        return kept_rates() or NOMINAL
    except DataError as error:
        say(f"pqjax: {error}; nominal rates meanwhile")
        return NOMINAL


def network_options(made: argparse.ArgumentParser, trace: bool = True) -> None:
    """Adds what both ends of a connection may say about it; --trace, too, or not."""
    made.add_argument("--tls", metavar="DIR", help="folder that `pqjax certs` wrote")
    made.add_argument(
        "--insecure-plaintext", action="store_true", help="no TLS off loopback, on purpose"
    )
    seconds_option(
        made, "--deadline", DEADLINE_S, "give up a wait in which nothing moves for so long"
    )
    if trace:
        written = "write the session's trace as JSON"
        made.add_argument("--trace", type=output_file, metavar="FILE", help=written)


def seconds_option(made: argparse.ArgumentParser, name: str, usual: float, text: str) -> None:
    """Adds a limit in seconds."""
    text = f"{text} (default: %(default)g)"
    made.add_argument(name, type=positive(float), default=usual, metavar="SECONDS", help=text)


def target(text: str) -> tuple[str, str | None]:
    """Of HOST:PORT or HOST:PORT/MODEL: the address, and the model's title if there is one.

    Raises:
      InputError: a title that is none.
    """
    address, slash, title = text.partition("/")
    if not slash or "://" in text:  # who reads the address says what is wrong with a URL
        return text, None
    return address, str(Title.parse(title))


def connection(args: argparse.Namespace, side: str, address: str) -> dict[str, typing.Any]:
    """What `network_options` were given, as `Server` and `connect` take it; warns of plaintext."""
    tls = None
    if args.insecure_plaintext and args.tls is None and not is_loopback(resolve(address)):
        say(
            f"pqjax: WARNING: {address} without TLS: who listens on the way sees the shares of both "
            "parties, and so the input and the weights"
        )
    if args.tls is not None:
        folder = pathlib.Path(args.tls)
        tls = Tls(folder / f"{side}.pem", folder / f"{side}.key", folder / "ca.pem")
    plain, deadline_s = args.insecure_plaintext, args.deadline
    return {"tls": tls, "insecure_plaintext": plain, "deadline_s": deadline_s}
