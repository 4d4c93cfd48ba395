"""A client as a process of its own, which asks once and stays, so that its memory can be looked at.

    python planted.py ADDRESS INPUT.npy TRACE.json STORE [bare]

Logs at DEBUG go to standard error, with what goes wrong on purpose; what it holds to standard output
as text. It ends when its standard input does. `bare`: its masks are zeros, which must be noticed.
"""

import json
import logging
import sys
import traceback

import numpy as np

import pqjax
from pqjax.crypto.prg import Randomness
from pqjax.errors import PqjaxError


def stumble(session, x):
    """Calls that are refused, and what is said of them."""
    for wrong in (x[:, :3], x * 1000, x.astype(float), None):
        try:
            session.infer(wrong)
        except PqjaxError:
            traceback.print_exc()


def main(address, x, trace, store, bare=""):
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    x = np.load(x)
    if bare:
        Randomness.elements = lambda self, n, ring: np.zeros(n, ring.dtype)
    with pqjax.connect(address, deadline_s=60.0, store=store) as session:
        stumble(session, x)
        result = session.infer(x)
        with open(trace, "w") as file:
            json.dump(session.trace.to_json(), file)
        print(
            repr(result), repr(session), repr(session.plan), repr(session.trace), str(vars(session))
        )
        print("answer", result.output.tolist())
        print("ready", flush=True)
        sys.stdin.read()
    try:
        with pqjax.connect(address, deadline_s=60.0, progress=_give_up) as session:
            session.infer(x)
    except ArithmeticError:
        traceback.print_exc()


def _give_up(where, done, steps):
    if where.startswith("online"):
        raise ArithmeticError("in the middle")


if __name__ == "__main__":
    main(*sys.argv[1:])
