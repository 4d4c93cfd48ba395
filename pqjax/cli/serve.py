"""`pqjax serve`: serves a network to clients."""

from __future__ import annotations

import argparse

from pqjax.cli.console import BANNER, Bar, Refusals, say
from pqjax.cli.options import Commands, command, connection, network_options, plan_options, positive
from pqjax.cli.report import report, write_report
from pqjax.engine import Server
from pqjax.engine.process import settle
from pqjax.errors import DataError, PqjaxError
from pqjax.graph import load_model
from pqjax.planner import plan
from pqjax.planner.plan import REVEAL_LAYER
from pqjax.wire.trace import Trace


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(commands, "serve", _serve, "serve a network")
    made.add_argument("model", help="network file (.npz)")
    made.add_argument("--listen", default="127.0.0.1:7700", metavar="HOST:PORT")
    made.add_argument("--sessions", type=positive(int), metavar="N", help="end after N sessions")
    most = "clients at a time"
    made.add_argument("--clients", type=positive(int), default=2, metavar="N", help=most)
    plan_options(made, "plan for this network")
    network_options(made)


def _serve(args: argparse.Namespace) -> int:
    settle()
    graph, weights, meta = load_model(args.model)
    made = plan(graph, args.protocol, args.link, classes=meta.get("classes"))
    failures = 0

    def ended(trace: Trace | None, error: PqjaxError | None) -> None:
        nonlocal failures
        if error is not None:
            failures += 1
            say(f"pqjax: session ended: {error}")
        elif trace is not None:
            asked = sum(e.layer == REVEAL_LAYER for e in trace.entries)
            sent, received = trace.bytes()
            say(f"pqjax: session ended: {asked} inferences, {sent} bytes out, {received} in")
            try:
                write_report(args.trace, report(made, trace, {}, 0))
            except DataError as error:
                failures += 1
                say(f"pqjax: {error}")

    told = {"on_end": ended, "on_refused": Refusals(), "progress": Bar()}
    options = connection(args, "server") | told
    server = Server(made, weights, args.listen, most_clients=args.clients, **options)
    say(BANNER)
    print(f"listening on {server.address}", flush=True)
    server.run(args.sessions)
    return 1 if failures and args.sessions is not None else 0
