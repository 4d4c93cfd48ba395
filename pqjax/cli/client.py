"""`pqjax client`: the client's side as a server of HTTP, for programs of this machine."""

import argparse
import os
import pathlib
import signal
from typing import NoReturn

from pqjax.cli.console import BANNER, Bar, say
from pqjax.cli.extras import extra
from pqjax.cli.options import (
    Commands,
    command,
    connection,
    hints_option,
    network_options,
    positive,
    target,
)
from pqjax.cli.serve import INTERRUPTED
from pqjax.engine import Session, connect
from pqjax.engine.process import settle

PORT = 7800


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "client", _client, "answer other programs' questions over HTTP and JSON, on loopback",
        "client 127.0.0.1:7700", "client server.example:7700/resnet --tls client --token token",
    )  # fmt: skip
    where = "where `pqjax serve` listens, and which of its models is asked"
    made.add_argument("address", metavar="HOST:PORT[/MODEL]", help=where)
    listen = "where programs of this machine ask; port 0 takes a free one"
    made.add_argument("--listen", default=f"127.0.0.1:{PORT}", metavar="HOST:PORT", help=listen)
    token = "programs have to show what is in this file (Authorization: Bearer); made if not there"
    made.add_argument("--token", type=pathlib.Path, metavar="FILE", help=token)
    ahead = "prepare so many inferences while nobody asks; what is prepared last is for nobody"
    made.add_argument("--ahead", type=positive(int), metavar="N", help=ahead)
    patience = "keep dialling while nobody listens"
    made.add_argument("--patience", type=float, default=0.0, metavar="SECONDS", help=patience)
    hints_option(made, "keep here what a model's clients get once")
    network_options(made, trace=False)


def _client(args: argparse.Namespace) -> NoReturn:
    with extra("web", "client"):
        from pqjax.web.asking import Asker
        from pqjax.web.guard import kept_token
        from pqjax.web.listening import Listening
        from pqjax.web.sidecar import sidecar
    settle()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    say(BANNER)
    address, model = target(args.address)
    options = connection(args, "client", address) | {"hints": args.hints, "model": model}
    token = None if args.token is None else kept_token(args.token)

    def begin() -> Session:
        ahead, patience = args.ahead or 0, args.patience
        return connect(address, progress=Bar(), ahead=ahead, patience_s=patience, **options)

    with Listening(args.listen) as listening:
        asker = Asker(begin)
        print(f"listening on http://{listening.address}", flush=True)
        try:
            listening.serve(sidecar(asker, args.address, listening.hosts, token))
        except KeyboardInterrupt:
            say("pqjax: interrupted")
        asker.close()
        os._exit(INTERRUPTED)  # a question under way would hold up every other way out
