"""Clients of a server, several at once in one process: `python -m experiments.crowd ADDRESS ...`.

Prints one JSON object: of every client the seconds of its inferences, how many answers were other than
expected, and its error if it had one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time

import numpy as np

import pqjax
from pqjax.engine.process import settle
from pqjax.errors import PqjaxError


def one(args: argparse.Namespace, x: np.ndarray, wanted: np.ndarray) -> dict:
    """One client: connects, and asks again and again."""
    told: dict = {"connect_s": None, "each_s": [], "wrong": 0, "error": None}
    try:
        start = time.perf_counter()
        with pqjax.connect(args.address, hints=args.hints, deadline_s=args.deadline) as session:
            session.install()
            told["connect_s"] = time.perf_counter() - start
            for _ in range(args.inferences):
                start = time.perf_counter()
                y = session.infer(x).output
                told["each_s"].append(time.perf_counter() - start)
                told["wrong"] += int((y != wanted).any())
    except PqjaxError as error:
        told["error"] = type(error).__name__
    return told


def main() -> int:
    """The clients, side by side, each so many times, and for so long."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("address")
    options.add_argument("file", help=".npz with x and wanted")
    options.add_argument("--hints", required=True)
    options.add_argument("--clients", type=int, default=1)
    options.add_argument("--inferences", type=int, default=1)
    options.add_argument("--turns", type=int, default=1)
    options.add_argument("--seconds", type=float, default=0.0)
    options.add_argument("--deadline", type=float, default=120.0)
    args = options.parse_args()
    settle()
    with np.load(args.file) as file:
        x, wanted = file["x"], file["wanted"]
    found: list[dict] = []
    begin, until = threading.Barrier(args.clients), time.monotonic() + args.seconds

    def ask() -> None:
        begin.wait()
        for turn in itertools.count(1):
            found.append(one(args, x, wanted))
            if turn >= args.turns and time.monotonic() >= until:
                return

    threads = [threading.Thread(target=ask) for _ in range(args.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
