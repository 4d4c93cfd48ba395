"""`pqjax calibrate`: measures what work takes this machine, once, for plans to predict seconds."""

import argparse
import json

from pqjax.cli.console import say
from pqjax.cli.options import Commands, command, json_option
from pqjax.engine.calibration import calibrate
from pqjax.engine.process import settle
from pqjax.engine.rates import keep_rates
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.work import UNITS, Rates


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "calibrate", _calibrate, "measure this machine, for predictions in seconds",
        "calibrate",
    )  # fmt: skip
    json_option(made)


def _calibrate(args: argparse.Namespace) -> int:
    settle()
    say("pqjax: running sample networks in two processes, for about half a minute")
    rates = calibrate()
    path = keep_rates(rates)
    if args.json:
        print(
            json.dumps(
                {"seconds": dict(zip(UNITS, rates.seconds, strict=True)), "turn_s": rates.turn_s}
            )
        )
    else:
        print(table(rates))
    say(f"pqjax: kept in {path}")
    return 0


def table(rates: Rates) -> str:
    """Every unit, what it takes here, and what was taken for granted before."""
    rows = [("unit", "here", "nominal", "")]
    for unit, what in UNITS.items():
        rows.append((unit, _short(rates.of(unit)), _short(NOMINAL.of(unit)), what))
    rows.append(
        ("turn", _short(rates.turn_s), _short(NOMINAL.turn_s), "a message's way on loopback")
    )
    return "\n".join(f"{a:13} {b:>10} {c:>10}  {d}".rstrip() for a, b, c, d in rows)


def _short(seconds: float) -> str:
    for unit, scale in (("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-12:.3g} ps"
