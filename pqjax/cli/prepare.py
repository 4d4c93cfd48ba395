"""`pqjax prepare`: does now what later inferences need, and keeps it on both sides."""

import argparse
import contextlib
import time
from typing import NoReturn

from pqjax.cli.console import BANNER, Bar, say
from pqjax.cli.options import (
    Commands,
    command,
    connection,
    hints_option,
    link_option,
    network_options,
    positive,
    store_option,
    target,
)
from pqjax.cli.report import report, write_report
from pqjax.engine import connect
from pqjax.engine.process import settle
from pqjax.engine.spending import Shelf
from pqjax.engine.store import Store
from pqjax.errors import DeadlineExceeded, InputError, PeerGone, Refused
from pqjax.wire.address import parse_address
from pqjax.wire.relay import Relay

_PAUSE_S = 5.0  # between two looks at the store, and at a server that has others to serve


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "prepare", _prepare, "prepare inferences that `pqjax infer` spends another day",
        "prepare 127.0.0.1:7700 10", "prepare server.example:7700 20 --fill --tls client",
    )  # fmt: skip
    made.add_argument(
        "address", metavar="HOST:PORT[/MODEL]", help="where `pqjax serve --store` listens"
    )
    made.add_argument("count", type=positive(int), metavar="N", help="how many inferences")
    fill = "go on for ever: whenever fewer than N are there, prepare more, but give way to other clients"
    made.add_argument("--fill", action="store_true", help=fill)
    link_option(made, "emulate a network, e.g. 200mbps,13ms, lan, none")
    store_option(made, "keep them here, encrypted; each is spent once")
    hints_option(made, "keep here what a model's clients get once")
    network_options(made)


def _prepare(args: argparse.Namespace) -> int:
    settle()
    say(BANNER)
    if args.fill:
        _fill(args)
    with contextlib.ExitStack() as stack:
        address, model = target(args.address)
        options = connection(args, "client", address) | {"hints": args.hints}
        options |= {"name": parse_address(address)[0], "model": model}
        options["store"] = Shelf(Store(args.store), args.address)
        if args.link is not None:
            address = stack.enter_context(Relay(address, args.link)).address
        begin = time.perf_counter()
        session = stack.enter_context(connect(address, spend=0, progress=Bar(), **options))
        for done in range(args.count):
            session.keep()
            print(f"{done + 1} of {args.count} kept", flush=True)
        trace, made = session.trace, session.plan
    seconds = time.perf_counter() - begin
    write_report(args.trace, report(made, trace, {"prepare": seconds}, 1))
    sent, received = trace.bytes()
    say(
        f"pqjax: {args.count} inferences prepared by {made.protocol}: {sent / 1e6:.2f} MB sent, "
        f"{received / 1e6:.2f} MB received, {seconds:.2f} s"
    )
    return 0


def _fill(args: argparse.Namespace) -> NoReturn:
    """Keeps so many in store, for ever: whatever is in the way is waited out."""
    address, model = target(args.address)
    if args.link is not None:
        raise InputError("--fill: leave out --link, nothing is timed")
    options = connection(args, "client", address) | {"hints": args.hints, "model": model}
    shelf, said = Shelf(Store(args.store), args.address), ""
    while True:
        try:
            if (ready := shelf.store.ready_for(args.address)) < args.count:
                with connect(address, background=True, store=shelf, **options) as session:
                    while ready < args.count:
                        session.keep()
                        ready, said = ready + 1, ""
                        print(f"{ready} of {args.count} in store", flush=True)
        except (Refused, PeerGone, DeadlineExceeded) as error:
            if str(error) != said:
                said = str(error)
                say(f"pqjax: waiting: {said}")
        time.sleep(_PAUSE_S)
