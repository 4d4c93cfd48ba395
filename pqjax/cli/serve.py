"""`pqjax serve`: serves a network to clients."""

import argparse
import os
import pathlib
import signal
from collections.abc import Sequence

from pqjax.cli.banner import describe
from pqjax.cli.console import BANNER, Bar, Refusals, log, say
from pqjax.cli.options import (
    Commands,
    command,
    connection,
    hints_option,
    network_options,
    plan_options,
    planned,
    positive,
    seconds_option,
)
from pqjax.cli.report import report, write_report
from pqjax.engine import Server
from pqjax.engine.process import settle
from pqjax.engine.server import DRAIN_S
from pqjax.engine.store import DAYS, MOST_BYTES, MOST_BYTES_EACH, Limits, Store
from pqjax.engine.visit import IDLE_S, Visit
from pqjax.errors import DataError, PqjaxError
from pqjax.graph import load_model
from pqjax.planner.plan import REVEAL_LAYER
from pqjax.wire.address import PORT
from pqjax.wire.trace import Trace

INTERRUPTED = 130


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "serve", _serve, "serve a network",
        "serve network.npz", "serve network.npz --listen 0.0.0.0:7700 --tls pki",
        "serve network.npz --protocol privquant --clients 1 --sessions 1 --trace served.json",
    )  # fmt: skip
    made.add_argument("model", help="network file (.npz)")
    listen = "where clients dial; port 0 takes a free one"
    made.add_argument("--listen", default=f"127.0.0.1:{PORT}", metavar="HOST:PORT", help=listen)
    made.add_argument("--sessions", type=positive(int), metavar="N", help="end after N sessions")
    most = "clients at a time"
    made.add_argument("--clients", type=positive(int), default=2, metavar="N", help=most)
    idle = "end the session of a client that asks for nothing for so long"
    seconds_option(made, "--idle", IDLE_S, idle)
    drain = "after Ctrl-C let sessions at work finish for so long; a second Ctrl-C ends them"
    seconds_option(made, "--drain", DRAIN_S, drain)
    hints = (
        "keep here what is made once for a model and sent to its clients, and the secret key to it"
    )
    hints_option(made, hints)
    store = "keep here what clients prepare ahead, encrypted, until they spend it"
    made.add_argument("--store", type=pathlib.Path, metavar="DIR", help=store)
    each = (
        "at most so many GB of it for one client (its certificate or, without TLS, its address); "
    )
    each += "and for all clients"
    made.add_argument(
        "--store-gb", type=positive(float), nargs=2, metavar=("EACH", "ALL"),
        default=(MOST_BYTES_EACH / 1e9, MOST_BYTES / 1e9), help=each,
    )  # fmt: skip
    days = "throw away what was not spent in so many days"
    made.add_argument("--store-days", type=positive(float), default=DAYS, metavar="N", help=days)
    plan_options(made, "plan for this network")
    network_options(made)


def _serve(args: argparse.Namespace) -> int:
    settle()
    graph, weights, meta = load_model(args.model)
    made = planned(args, graph, meta)
    failures = 0

    def began(client: str) -> None:
        log("session began", client)

    def ended(client: str, trace: Trace | None, error: PqjaxError | None) -> None:
        nonlocal failures
        if error is not None:
            failures += 1
            log(f"session ended: {error}", client)
        elif trace is not None:
            asked = sum(e.layer == REVEAL_LAYER for e in trace.entries)
            sent, received = trace.bytes()
            log(f"session ended: {asked} inferences, {sent} bytes out, {received} in", client)
            try:
                write_report(args.trace, report(made, trace, {}, 0))
            except DataError as error:
                failures += 1
                log(str(error), client)

    told = {"on_begin": began, "on_end": ended, "on_refused": Refusals(), "on_stop": _stopping}
    told |= {"hints": args.hints, "on_note": lambda client, text: log(text, client)}
    if args.store is not None:
        each, most = (round(1e9 * gb) for gb in args.store_gb)
        told["store"] = Store(args.store, Limits(most, each, args.store_days))
    limits = {"most_clients": args.clients, "idle_s": args.idle, "drain_s": args.drain}
    options = connection(args, "server", args.listen) | told | limits
    server = Server(made, weights, args.listen, progress=Bar(), **options)
    del weights  # the server has its own, narrower
    say(BANNER)
    for line in describe(made, args.model):
        say(f"pqjax: {line}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    print(f"listening on {server.address}", flush=True)
    try:
        server.run(args.sessions)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("pqjax: interrupted")
        os._exit(INTERRUPTED)  # a thread in compiled code would hold up every other way out
    return 1 if failures and args.sessions is not None else 0


def _stopping(visits: Sequence[Visit], drain_s: float) -> None:
    log(
        f"stopping: nobody is let in any more; waiting for sessions at work: {len(visits)}, for "
        f"{drain_s:g} s at most; Ctrl-C again ends them at once"
    )
    for visit in visits:
        log(f"at work: {visit.doing}", visit.client)
