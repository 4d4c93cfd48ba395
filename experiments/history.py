"""`make exp-history`: what ResNet50 cost at every commit that recorded it, by preset `pqjax`.

Of the result files that git keeps of `make exp-resnet50 ARGS=--record`; nothing is run. Files record the
commit that they were measured at, and the machines were alike, but not always idle: only bytes, flows
and large ratios say something.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

from experiments.command import parser, run
from experiments.record import table
from pqjax.errors import PqjaxError

FILE = "experiments/results/resnet50.json"
PROTOCOLS = ("pqjax", "pqjax-ot")
_ROOT = pathlib.Path(__file__).parents[1]


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise PqjaxError(f"a git checkout with its history expected in {_ROOT}: {error}") from error
    return done.stdout


def compute(args: argparse.Namespace) -> dict:
    """The rows of `FILE` at every commit that changed it, the oldest first."""
    runs = []
    for line in reversed(_git("log", "--format=%h %cs", "--", FILE).splitlines()):
        changed, date = line.split()
        tree = json.loads(_git("show", f"{changed}:{FILE}"))
        rows = {row["protocol"]: row for row in tree["runs"]}
        for name in PROTOCOLS:
            measured = {"measured_at": tree["commit"], **rows.get(name, {})}
            if name in rows and measured not in [row["run"] for row in runs]:
                runs.append({"date": date, "run": measured})
    return {"config": {"seed": None, "file": FILE}, "runs": runs}


def report(tree: dict) -> str:
    """A row a record."""
    rows = [
        {
            "date": date,
            "measured at": row["measured_at"],
            "protocol": row["protocol"],
            "once MB": row.get("install_bytes", 0) / 1e6 or "",
            "offline MB": row["offline_bytes"] / 1e6,
            "online MB": row["online_bytes"] / 1e6,
            "flows": row["flows"],
            "loopback s": row["loopback_s"],
            "MiB server, client": f"{row['server_MiB']:.0f}, {row['client_MiB']:.0f}",
        }
        for date, row in ((each["date"], each["run"]) for each in tree["runs"])
    ]
    return (
        "# ResNet50 through the commits\n\n"
        "One inference of 224x224 pixels between two processes on two cores, as recorded (`make "
        "exp-resnet50`). What is called pqjax-ot now was pqjax before linear layers were encrypted. "
        "Machines were not always idle.\n\n" + table(rows) + "\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/history.json` and `.md`."""
    return run(parser("exp-history", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
