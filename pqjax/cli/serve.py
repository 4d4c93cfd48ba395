"""`pqjax serve`: serves networks to clients, from one process or several."""

import argparse
import dataclasses
import os
import pathlib
import signal
import threading
from collections.abc import Callable
from typing import Any

from pqjax.cli.banner import describe
from pqjax.cli.console import BANNER, Bar, say
from pqjax.cli.options import (
    Commands,
    command,
    connection,
    hints_option,
    network_options,
    plan_options,
    planning,
    positive,
    rates,
    seconds_option,
)
from pqjax.cli.report import report, write_report
from pqjax.cli.watch import Watch, add_options, watching
from pqjax.engine import Server
from pqjax.engine.catalogue import Catalogue, Title
from pqjax.engine.desk import Limits, LimitsDesk
from pqjax.engine.events import All, Events
from pqjax.engine.process import settle
from pqjax.engine.server import DRAIN_S
from pqjax.engine.store import DAYS, MOST_BYTES, MOST_BYTES_EACH, Store
from pqjax.engine.store import Limits as StoreLimits
from pqjax.engine.visit import IDLE_S, Visit
from pqjax.errors import DataError, InputError, PqjaxError
from pqjax.service.front import Front
from pqjax.service.offer import Offer, titled
from pqjax.wire.address import PORT
from pqjax.wire.trace import Trace

INTERRUPTED = 130
_CLIENTS = 2  # at a time, in a process


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "serve", _serve, "serve networks",
        "serve network.npz", "serve network.npz --listen 0.0.0.0:7700 --tls pki",
        "serve cats@2=cats.npz dogs.npz --workers 2 --answers-a-day 1000 --tls pki",
        "serve network.npz --protocol privquant --clients 1 --sessions 1 --trace served.json",
    )  # fmt: skip
    models = (
        "network file (.npz), or NAME=FILE, NAME@VERSION=FILE; clients that name none get the first"
    )
    made.add_argument("model", nargs="+", help=models)
    listen = "where clients dial; port 0 takes a free one"
    made.add_argument("--listen", default=f"127.0.0.1:{PORT}", metavar="HOST:PORT", help=listen)
    made.add_argument("--sessions", type=positive(int), metavar="N", help="end after N sessions")
    workers = "serve from so many processes, which share no interpreter; else from one, in threads"
    made.add_argument("--workers", type=positive(int), metavar="N", help=workers)
    most = f"sessions at a time (default: {_CLIENTS} a process)"
    made.add_argument("--clients", type=positive(int), metavar="N", help=most)
    each = "of them for one client (its certificate or, without TLS, its address)"
    made.add_argument("--clients-each", type=positive(int), metavar="N", help=each)
    answers = "answers for one client in a day (UTC): who has many can train a model like yours"
    made.add_argument("--answers-a-day", type=positive(int), metavar="N", help=answers)
    books = "count them in this file, so that a new start forgets none"
    made.add_argument("--books", type=pathlib.Path, metavar="FILE", help=books)
    memory = "GB that all sessions together may take; further clients are told so"
    made.add_argument("--max-memory", type=positive(float), metavar="GB", help=memory)
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
    add_options(made)
    plan_options(made, "plan for this network")
    network_options(made)


def _serve(args: argparse.Namespace) -> int:
    if args.workers is not None and args.trace is not None:
        raise InputError("--trace is written by a server of one process: leave out --workers")
    offer = Offer(titled(args.model), planning(args), str(args.hints))
    many = args.clients or _CLIENTS * (args.workers or 1)
    memory = None if args.max_memory is None else round(args.max_memory * 1e9)
    limits = Limits(many, args.clients_each, args.answers_a_day, memory)
    watch = watching(args)
    code = _Code()
    store = None if args.store is None else Store(args.store, StoreLimits(*_store_limits(args)))
    if args.workers is None:
        server, reload = _threads(args, offer, LimitsDesk(limits, args.books), store, watch, code)
    else:
        server, reload = _processes(args, offer, limits, watch, code)

    def state() -> dict[str, Any]:
        if isinstance(server, Front):
            told = server.state
        else:
            told = {"sessions": server.state, "models": [title for title, _ in offer.models]}
        return told if store is None else told | {"stored": store.ready}

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=reload, daemon=True).start())
    try:
        with watch.door(state, lambda: server.open):
            print(f"listening on {server.address}", flush=True)
            server.run(args.sessions)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("pqjax: interrupted")
        os._exit(INTERRUPTED)  # a thread in compiled code would hold up every other way out
    return 1 if code.failures and args.sessions is not None else 0


def _threads(
    args: argparse.Namespace,
    offer: Offer,
    desk: LimitsDesk,
    store: Store | None,
    watch: Watch,
    code: "_Code",
) -> tuple[Server, Callable[[], None]]:
    """One process, and how to have it read its models anew."""
    settle()
    catalogue = offer.catalogue(rates(), progress=Bar())
    events: list[Events] = [code, watch.events]
    options = connection(args, "server", args.listen)
    options |= {"idle_s": args.idle, "drain_s": args.drain, "desk": desk, "store": store}
    if args.trace is not None:
        events.append(_Traces(args.trace, catalogue, code))
    server = Server(catalogue, None, args.listen, progress=Bar(), events=All(*events), **options)
    _say_models(catalogue, offer)

    def reload() -> None:
        try:
            server.offer(offer.catalogue(rates()))
        except PqjaxError as error:
            watch.take({"event": "reload_failed", "text": str(error)})
        else:
            watch.take({"event": "reloaded"})

    return server, reload


def _processes(
    args: argparse.Namespace, offer: Offer, limits: Limits, watch: Watch, code: "_Code"
) -> tuple[Front, Callable[[], None]]:
    """A front and its workers, and how to have them read their models anew."""

    def record(told: dict) -> None:
        code.failures += told["event"] == "ended" and told["error"] is not None
        watch.take(told)

    options = connection(args, "server", args.listen)
    options |= {"idle_s": args.idle, "drain_s": args.drain, "limits": limits, "books": args.books}
    if args.store is not None:
        options["store"] = str(args.store), _store_limits(args)
    front = Front(
        offer, args.listen, workers=args.workers, record=record, layers=watch.layers, **options
    )
    say(BANNER)
    for title, path in offer.models:
        say(f"pqjax: serving {title} ({path}) from {args.workers} processes")
    return front, front.reload


def _store_limits(args: argparse.Namespace) -> tuple[int, int, float]:
    each, most = (round(1e9 * gb) for gb in args.store_gb)
    return most, each, args.store_days


def _say_models(catalogue: Catalogue, offer: Offer) -> None:
    say(BANNER)
    for title, path in offer.models:
        model = catalogue.models[Title.parse(title)]
        name = path if len(offer.models) == 1 else f"{title} ({path})"
        for line in describe(model.plan, name):
            say(f"pqjax: {line}")


@dataclasses.dataclass
class _Code(Events):
    """Counts sessions that failed, for the exit code."""

    failures: int = 0

    def ended(self, visit: Visit, trace: Trace | None, error: PqjaxError | None) -> None:
        """As `Events`."""
        self.failures += error is not None


class _Traces(Events):
    """Writes the last session's trace."""

    def __init__(self, path: str, catalogue: Catalogue, code: _Code):
        self._path, self._catalogue, self._code = path, catalogue, code

    def ended(self, visit: Visit, trace: Trace | None, error: PqjaxError | None) -> None:
        """As `Events`."""
        if trace is None:
            return
        plan = self._catalogue.models[Title.parse(visit.model)].plan
        try:
            write_report(self._path, report(plan, trace, {}, 0))
        except DataError as failure:
            self._code.failures += 1
            say(f"pqjax: {failure}")
