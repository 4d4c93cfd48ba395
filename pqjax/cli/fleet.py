"""`pqjax fleet`: servers on a Ray cluster, with a directory that sends clients to them."""

import argparse
import json
import pathlib
import re

from pqjax.cli.console import BANNER, say
from pqjax.cli.options import (
    Commands,
    command,
    hints_option,
    json_option,
    plan_options,
    planning,
    positive,
    seconds_option,
)
from pqjax.engine.server import DRAIN_S
from pqjax.errors import InputError
from pqjax.fleet.client import fleet_state
from pqjax.fleet.cluster import deploy, stop
from pqjax.fleet.deployment import Deployment
from pqjax.fleet.scaling import Scale
from pqjax.service.offer import Offer, titled
from pqjax.wire.tls import Tls

PORT = 8000
_IDLE_S = 300.0
_SEATS = 2


def add(commands: Commands) -> None:
    """Adds the commands."""
    text = "servers on a Ray cluster"
    fleet = commands.add_parser("fleet", help=text, description=text)
    ours = fleet.add_subparsers(dest="fleet", required=True, metavar="COMMAND")
    _add_deploy(ours)
    state = command(
        ours, "state", _state, "what a fleet's directory tells", "fleet state http://127.0.0.1:8000"
    )
    state.add_argument("url", metavar="URL", help="where its directory listens")
    _security(state)
    json_option(state)
    text = "end a fleet; sessions finish first"
    ended = command(ours, "stop", _stop, text, "fleet stop")
    _cluster(ended)
    seconds_option(ended, "--drain", DRAIN_S, "wait for sessions at work for so long")


def _add_deploy(ours: Commands) -> None:
    made = command(
        ours, "deploy", _deploy, "start a fleet, and leave it running",
        "fleet deploy network.npz",
        "fleet deploy cats=cats.npz dogs=dogs.npz --replicas 1:8 --cores 2 --memory 4 "
        "--listen 0.0.0.0:8000 --tls pki",
    )  # fmt: skip
    models = (
        "network file (.npz), or NAME=FILE, NAME@VERSION=FILE; every node reads it at this path"
    )
    made.add_argument("model", nargs="+", help=models)
    _cluster(made)
    listen = "where the directory listens"
    made.add_argument("--listen", default=f"127.0.0.1:{PORT}", metavar="HOST:PORT", help=listen)
    replicas = "so many servers at least and at most, or N"
    made.add_argument("--replicas", type=_replicas, default=(1, 1), metavar="L:M", help=replicas)
    cores = "cores of a node for each, which has as many worker processes"
    made.add_argument("--cores", type=positive(int), default=1, metavar="N", help=cores)
    memory = "memory of a node for each; its sessions may take no more together"
    made.add_argument("--memory", type=positive(float), metavar="GB", help=memory)
    seats = f"sessions at a time of each (default: {_SEATS} a core)"
    made.add_argument("--clients", type=positive(int), metavar="N", help=seats)
    each = "sessions at a time of one client (its certificate or, without TLS, its address), in all"
    made.add_argument("--clients-each", type=positive(int), metavar="N", help=each)
    answers = (
        "answers for one client in a day (UTC), in all: who has many can train a model like yours"
    )
    made.add_argument("--answers-a-day", type=positive(int), metavar="N", help=answers)
    books = "the directory counts them in this file, so that another in its place forgets none"
    made.add_argument("--books", type=pathlib.Path, metavar="FILE", help=books)
    idle = "end a server that has had no session for so long"
    seconds_option(made, "--idle", _IDLE_S, idle)
    drain = "a server that is ended lets sessions finish for so long"
    seconds_option(made, "--drain", DRAIN_S, drain)
    hints_option(
        made, "keep here what is made once for a model: best a folder that all nodes share"
    )
    _security(made)
    plan_options(made, "plan for this network")


def _cluster(made: argparse.ArgumentParser) -> None:
    where = "the cluster: host:port of its head, or auto for the one that this machine is part of"
    made.add_argument("--ray", default="auto", metavar="ADDRESS", help=where)


def _security(made: argparse.ArgumentParser) -> None:
    made.add_argument("--tls", metavar="DIR", help="folder that `pqjax certs` wrote")
    made.add_argument(
        "--insecure-plaintext", action="store_true", help="no TLS off loopback, on purpose"
    )


def _replicas(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"LEAST:MOST or N expected, e.g. 1:4, got {text!r}")
    least = int(found[1])
    return least, least if found[2] is None else int(found[2])


def _tls(args: argparse.Namespace, side: str) -> Tls | None:
    if args.tls is None:
        return None
    folder = pathlib.Path(args.tls).resolve()  # nodes have other working folders
    return Tls(*(str(folder / name) for name in (f"{side}.pem", f"{side}.key", "ca.pem")))


def _deploy(args: argparse.Namespace) -> int:
    models = tuple((title, str(pathlib.Path(path).resolve())) for title, path in titled(args.model))
    (least, most), seats = args.replicas, args.clients or _SEATS * args.cores
    books = None if args.books is None else args.books.resolve()
    memory = None if args.memory is None else round(args.memory * 1e9)
    deployment = Deployment(
        Offer(models, planning(args), str(args.hints.resolve())),
        Scale(least, most, seats, args.idle), args.clients_each, args.answers_a_day, books,
        args.cores, memory,
        _tls(args, "server"), args.insecure_plaintext, args.drain,
    )  # fmt: skip
    say(BANNER)
    url = deploy(deployment, args.listen, args.ray)
    print(f"directory at {url}", flush=True)
    for title, _ in models:
        say(f"pqjax: ask it with: pqjax infer fleet+{url}/{title} PICTURE")
    return 0


def _state(args: argparse.Namespace) -> int:
    told = fleet_state(args.url, _tls(args, "client"), args.insecure_plaintext)
    if args.json:
        print(json.dumps(told))
        return 0
    try:
        bounds = f"{told['least']}:{told['most']} replicas of {told['seats']} seats"
        print(f"{', '.join(told['models'])}; {bounds}; clients waiting: {told['waiting']}")
        for each in told["replicas"]:
            where = each["address"] or "nowhere yet"
            print(f"{each['name']}  {where}  {each['is']}, seats taken: {each['taken']}")
    except (KeyError, TypeError) as error:
        raise InputError(f"{args.url} tells the state of another version's fleet") from error
    return 0


def _stop(args: argparse.Namespace) -> int:
    stop(args.ray, args.drain)
    say("pqjax: the fleet is gone")
    return 0
