"""`pqjax infer`: asks a server about a picture or integers."""

import argparse
import contextlib
import json
import pathlib
import time

import numpy as np

from pqjax.answers import likeliest
from pqjax.cli.classes import in_words, names_of, read_names
from pqjax.cli.console import BANNER, Bar, say
from pqjax.cli.options import (
    Commands,
    command,
    connection,
    hints_option,
    json_option,
    link_option,
    network_options,
    positive,
    store_option,
    target,
)
from pqjax.cli.report import report, write_report
from pqjax.engine import Session, connect
from pqjax.engine.commands import MOST_PREPARED
from pqjax.engine.process import settle
from pqjax.engine.spending import Shelf
from pqjax.engine.store import Store
from pqjax.errors import InputError, WireError
from pqjax.fleet.client import FLEET, directory_place, fleet_connect, fleet_target
from pqjax.questions import fitted, in_batches, likely_inputs, read_question
from pqjax.wire.address import format_address, parse_address
from pqjax.wire.relay import Relay


def add(commands: Commands) -> None:
    """Adds the command."""
    text = "ask a server about a picture or an .npy file of integers"
    made = command(
        commands, "infer", _infer, text,
        "infer 127.0.0.1:7700 cat.png", "infer 127.0.0.1:7700 cat.png --top 5 --link 200mbps,13ms",
        "infer server.example:7700 digits.npy --tls client --json",
    )  # fmt: skip
    where = (
        "where `pqjax serve` listens, and which of its models is asked; or a fleet's directory, "
    )
    where += "fleet+http://HOST:PORT[/MODEL]"
    made.add_argument("address", metavar="HOST:PORT[/MODEL]", help=where)
    asked = (
        "pictures, or .npy files with one input or a batch of them: as many as the server answers "
    )
    asked += "at a time, or several times as many"
    made.add_argument("input", nargs="+", help=asked)
    link_option(made, "emulate a network, e.g. 200mbps,13ms, lan, none")
    labels = (
        "class names instead of the server's: a JSON list, or a network file (.npz) that has them"
    )
    made.add_argument("--labels", metavar="FILE", help=labels)
    top = "name the N likeliest classes, with their scores"
    made.add_argument("--top", type=positive(int), metavar="N", help=top)
    patience = "keep dialling while nobody listens"
    made.add_argument("--patience", type=float, default=0.0, metavar="SECONDS", help=patience)
    made.add_argument("--verbose", action="store_true", help="print all outputs")
    hints_option(made, "keep here what a model's clients get once")
    store_option(made, "spend first what `pqjax prepare` has put here")
    hint = "a file of `pqjax hint`, so that the server need not send it"
    made.add_argument("--hint", type=pathlib.Path, metavar="FILE", help=hint)
    json_option(made)
    network_options(made)


def _infer(args: argparse.Namespace) -> int:
    settle()
    say(BANNER)
    questions, names = [read_question(path) for path in args.input], read_names(args.labels)
    with contextlib.ExitStack() as stack:
        begin = time.perf_counter()
        options = {"hints": args.hints, "hint_file": args.hint, "note": _noted, "progress": Bar()}
        if args.address.startswith(FLEET):
            session = stack.enter_context(_of_fleet(args, options))
        else:
            session = stack.enter_context(_of_server(args, questions, options, stack))
        graph = session.plan.source
        labels = names_of(names, args.labels, session.plan)
        found = [fitted(graph, question, session.plan.shorter) for question in questions]
        for question, (_, done) in zip(questions, found, strict=True):
            if done:
                say(f"pqjax: {question.path} was {done}")
        batches = in_batches(session.plan, np.concatenate([x for x, _ in found]))
        outputs, times = [], []
        connected = time.perf_counter()
        if session.stored < len(batches):
            session.install()
        installed = time.perf_counter()
        for i, x in enumerate(batches):
            start = time.perf_counter()
            if i >= session.stored:
                session.prepare()
            ready = time.perf_counter()
            y = session.infer(x).output
            times.append({"offline": ready - start, "online": time.perf_counter() - ready})
            several = y[None] if session.plan.batch == 1 else y
            outputs += list(several)
            for each in several if not args.json else ():
                found = likeliest(graph, each, labels, args.top or 1)
                whole = f"  {each.tolist()}" if args.verbose else ""
                print(in_words(found, args.top is not None) + whole, flush=True)
        trace, made = session.trace, session.plan
    seconds = {"connect": connected - begin, "install": installed - connected, "each": times}
    answers = {"outputs": [y.tolist() for y in outputs]}
    told = report(made, trace, seconds, 1) | answers
    write_report(args.trace, told)
    if args.json:
        told["answers"] = [likeliest(graph, y, labels, args.top or 1) for y in outputs]
        print(json.dumps({key: told[key] for key in told if key != "trace"}))
    sent, received = trace.bytes()
    of = "" if made.batch == 1 else f" of {made.batch} inputs"
    of += f" ({min(session.stored, len(batches))} prepared before)" if session.stored else ""
    say(
        f"pqjax: {len(times)} inferences{of} by {made.protocol}: {sent / 1e6:.2f} MB sent, "
        f"{received / 1e6:.2f} MB received, {connected - begin:.2f} s to connect, then "
        f"{sum(t['offline'] + t['online'] for t in times):.2f} s"
    )
    return 0


def _of_server(
    args: argparse.Namespace, questions: list, options: dict, stack: contextlib.ExitStack
) -> Session:
    """A session with the one server at an address, over an emulated network if there is to be one."""
    address, model = target(args.address)
    options |= connection(args, "client", address) | {"patience_s": args.patience}
    options |= {"name": parse_address(address)[0], "model": model}
    if args.store.is_dir():
        options["store"] = Shelf(Store(args.store), args.address)
        options["spend"] = min(sum(map(likely_inputs, questions)), MOST_PREPARED)
    if args.link is None:
        return connect(address, **options)
    address = stack.enter_context(Relay(address, args.link)).address
    try:
        return connect(address, **options)
    except WireError as error:
        raise WireError(f"{error} [{address} is the relay of --link to {args.address}]") from error


def _of_fleet(args: argparse.Namespace, options: dict) -> Session:
    """A session with one of a fleet's servers; what was prepared with another is no use there."""
    if args.link is not None:
        raise InputError("--link emulates a network to one server: name that, not a fleet")
    url, model = fleet_target(args.address)
    options |= connection(args, "client", format_address(*directory_place(url)[1:]))
    if args.patience:
        options["patience_s"] = args.patience
    return fleet_connect(url, model=model, **options)


def _noted(text: str) -> None:
    say(f"pqjax: {text}")
