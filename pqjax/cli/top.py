"""`pqjax top`: what a server's sessions do, in a table that is drawn anew every second."""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pqjax.cli.options import Commands, command, json_option
from pqjax.errors import InputError, PeerGone
from pqjax.schema import read
from pqjax.watching import look
from pqjax.watching.records import printable

USUAL = "127.0.0.1:9100"
_EVERY_S = 1.0
_HEAD = ("client", "model", "s", "MB out", "MB in", "MB/s out", "MB/s in", "does")
_SIDES = "<<>>>>><"
_CLEAR = "\x1b[H\x1b[J"
_Bytes = Mapping["_Session", tuple[int, int]]


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "top", _top, "watch the sessions of a server (`pqjax serve --metrics HOST:PORT`)",
        "top", "top 127.0.0.1:9100 --once", "top 127.0.0.1:9100 --json",
    )  # fmt: skip
    where = "what the server's --metrics says"
    made.add_argument("address", nargs="?", default=USUAL, metavar="HOST:PORT", help=where)
    made.add_argument("--once", action="store_true", help="print one table")
    json_option(made)


@dataclasses.dataclass(frozen=True)
class _Session:
    """A row, as a server's state has it; the same as another if it is the same session."""

    client: str
    worker: int
    model: str = dataclasses.field(compare=False)
    doing: str = dataclasses.field(compare=False)
    seconds: int | float = dataclasses.field(compare=False)
    sent_bytes: int = dataclasses.field(compare=False)
    received_bytes: int = dataclasses.field(compare=False)


def _top(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(look(args.address)))
        return 0
    before: _Bytes = {}
    try:
        while True:
            begin, state = time.monotonic(), look(args.address)
            sessions = _sessions(state, args.address)
            lines = [_heading(state), *table(sessions, before, _EVERY_S)]
            if sys.stdout.isatty():
                width = shutil.get_terminal_size().columns
                lines = [line[:width] for line in lines]
            clear = _CLEAR if sys.stdout.isatty() and not args.once else ""
            print(clear + "\n".join(lines), flush=True)
            if args.once:
                return 0
            before = {each: (each.sent_bytes, each.received_bytes) for each in sessions}
            time.sleep(max(0.0, begin + _EVERY_S - time.monotonic()))
    except KeyboardInterrupt:
        return 0


def table(sessions: Sequence[_Session], before: _Bytes, every_s: float) -> list[str]:
    """The sessions in columns; rates since `before`, of a new one since it began."""
    rows = [_HEAD, *(_row(each, before, every_s) for each in sessions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    forms = [f"{{:{side}{width}}}" for side, width in zip(_SIDES, widths, strict=True)]
    return ["  ".join(forms).format(*row).rstrip() for row in rows]


def _row(each: _Session, before: _Bytes, every_s: float) -> tuple[str, ...]:
    sent, received = before.get(each, (0, 0))
    seconds = every_s if each in before else max(each.seconds, 0.1)
    rates = ((each.sent_bytes - sent) / seconds, (each.received_bytes - received) / seconds)
    amounts = (each.sent_bytes, each.received_bytes, *rates)
    numbers = (f"{each.seconds:.0f}", *(f"{amount / 1e6:.2f}" for amount in amounts))
    return (printable(each.client, 60), printable(each.model, 60), *numbers, printable(each.doing))


def _sessions(state: Mapping[str, Any], address: str) -> list[_Session]:
    """Those of a state.

    Raises:
      PeerGone: it is no pqjax server's.
    """
    names = [field.name for field in dataclasses.fields(_Session)]
    try:
        return [
            read(_Session, {"worker": 0} | {name: each[name] for name in names if name in each})
            for each in state["sessions"]
        ]
    except (InputError, KeyError, TypeError) as error:
        raise PeerGone(f"{address} answers as no pqjax server does: {error}") from error


def _heading(state: Mapping[str, Any]) -> str:
    """What the server is, and what it has."""
    about = [f"sessions: {len(state['sessions'])}"]
    if not state.get("ready", True):
        about.append("stopping")
    for name in ("models", "workers", "stored"):
        there = state.get(name)
        if isinstance(there, list):
            titles = ", ".join(str(each) for each in there) if name == "models" else len(there)
            about.append(f"{name}: {titles}")
        elif isinstance(there, int):
            about.append(f"preparations {name}: {there}")
    return printable(f"pqjax {state.get('version', '')}, {', '.join(about)}")
