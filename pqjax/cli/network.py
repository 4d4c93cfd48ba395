"""`pqjax certs` and `pqjax relay`: certificates for both sides, and an emulated network."""

from __future__ import annotations

import argparse
import sys

from pqjax.cli.options import Commands, command, link_option
from pqjax.errors import DataError, InputError
from pqjax.wire.relay import Relay
from pqjax.wire.tls import make_certificates


def add(commands: Commands) -> None:
    """Adds both commands."""
    certs = command(commands, "certs", _certs, "make certificates for both sides")
    certs.add_argument("folder")
    certs.add_argument("--name", action="append", help="host name or address of the server")
    relay = command(commands, "relay", _relay, "emulate a network in front of a local server")
    relay.add_argument("target", metavar="HOST:PORT")
    link_option(relay, None)


def _certs(args: argparse.Namespace) -> int:
    try:
        make_certificates(args.folder, *([tuple(args.name)] if args.name else []))
    except OSError as error:
        raise DataError(f"cannot write certificates to {args.folder}: {error}") from error
    print(f"wrote ca.pem, server.pem, server.key, client.pem and client.key to {args.folder}")
    return 0


def _relay(args: argparse.Namespace) -> int:
    if args.link is None:
        raise InputError("a relay needs --link, for instance --link 200mbps,13ms")
    with Relay(args.target, args.link) as relay:
        print(relay.address, flush=True)
        sys.stdin.read()
    return 0
