"""`pqjax certs` and `pqjax relay`: certificates for both sides, and an emulated network."""

import argparse
import sys

from pqjax.cli.options import Commands, command, link_option
from pqjax.errors import DataError, InputError
from pqjax.wire.relay import Relay
from pqjax.wire.tls import make_certificates


def add(commands: Commands) -> None:
    """Adds both commands."""
    certs = command(
        commands, "certs", _certs, "make certificates for both sides",
        "certs pki", "certs pki --name server.example --name 192.0.2.7",
    )  # fmt: skip
    certs.add_argument("folder", help="where to write them")
    name = "host name or address under which clients reach the server; may be given again"
    certs.add_argument("--name", action="append", metavar="HOST", help=name)
    relay = command(
        commands, "relay", _relay, "emulate a network in front of a local server",
        "relay 127.0.0.1:7700 --link 200mbps,13ms",
    )  # fmt: skip
    relay.add_argument("target", metavar="HOST:PORT", help="where `pqjax serve` listens")
    link_option(relay, "the network to emulate, e.g. 200mbps,13ms or lan")


def _certs(args: argparse.Namespace) -> int:
    if "://" in args.folder:
        raise InputError(
            f"{args.folder} is a URL: a folder expected; the server's name goes to --name"
        )
    try:
        make_certificates(args.folder, *([tuple(args.name)] if args.name else []))
    except OSError as error:
        raise DataError(f"cannot write certificates to {args.folder}: {error}") from error
    print(f"wrote ca.pem, server.pem, server.key, client.pem and client.key to {args.folder}")
    print(
        "server: ca.pem, server.pem, server.key; client: ca.pem, client.pem, client.key, nothing more"
    )
    return 0


def _relay(args: argparse.Namespace) -> int:
    if args.link is None:
        raise InputError("a relay needs --link, for instance --link 200mbps,13ms")
    with Relay(args.target, args.link) as relay:
        print(relay.address, flush=True)
        sys.stdin.read()
    return 0
