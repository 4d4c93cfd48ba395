"""`pqjax demo`: a server, a client, and a page on which both can be watched."""

import argparse
import os
import pathlib
import signal
from typing import NoReturn

from pqjax.cli.console import BANNER, say
from pqjax.cli.extras import extra
from pqjax.cli.options import Commands, command
from pqjax.cli.serve import INTERRUPTED
from pqjax.engine.process import settle
from pqjax.graph import load_model
from pqjax.web.outlook import SHOWN

PORT = 7801


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "demo", _demo, "watch a private inference in a browser, both parties on this machine",
        "demo", "demo --quick", "demo network.npz --protocol pqjax-ot",
    )  # fmt: skip
    model = (
        "network file (.npz); without one EfficientNet-Lite0, which is made first, once, in minutes"
    )
    made.add_argument("model", nargs="?", type=pathlib.Path, help=model)
    quick = "without a network file a small one, which is there at once"
    made.add_argument("--quick", action="store_true", help=quick)
    listen = "where the page is; port 0 takes a free one"
    made.add_argument("--listen", default=f"127.0.0.1:{PORT}", metavar="HOST:PORT", help=listen)
    protocol = "preset to begin with; the page can change it"
    made.add_argument("--protocol", choices=SHOWN, default=SHOWN[0], help=protocol)


def _demo(args: argparse.Namespace) -> NoReturn:
    with extra("web", "demo"):
        from pqjax.web.demo import Demo
        from pqjax.web.guard import new_token
        from pqjax.web.listening import Listening
        from pqjax.web.pages import demo_page
    settle()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    say(BANNER)
    if args.model is not None:
        load_model(args.model)  # what cannot be shown is said here, and no page opened
    token = new_token()
    with Listening(args.listen) as listening:
        demo = Demo(args.model, args.protocol, args.quick)
        print(f"open http://{listening.address}/?token={token}", flush=True)
        say("pqjax: the token in it is for you alone; Ctrl-C ends the page and its server")
        try:
            listening.serve(demo_page(demo, listening.hosts, token))
        except KeyboardInterrupt:
            say("pqjax: interrupted")
        demo.close()
        os._exit(INTERRUPTED)  # a thread in compiled code would hold up every other way out
