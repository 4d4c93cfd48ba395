"""`make evidence`: what was tried against pqjax, and how it ended: `docs/evidence.md`.

Runs the tests that record rows of evidence (`tests/evidence.py`), the slow ones included, and makes the
page of the rows. `--only KIND` runs one kind's and keeps the others' rows; `--kinds FILE` takes in kinds
whole from another checkout's `evidence.json`; `--rows FOLDER` takes in what others have recorded there,
too: `PQJAX_EVIDENCE=FOLDER make fuzz`.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

from experiments import record
from experiments.command import parser, run
from experiments.record import table
from pqjax.errors import DataError

NAME = "evidence"
ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "evidence.md"
# Whose rows are of which kind; and what a section of the page says first.
SUITES = {
    "faults": ("tests/faults",),
    "fuzz": ("tests/fuzz",),
    "statistics": ("tests/statistics",),
    "service": ("tests/service",),
    "versions": ("tests/supply",),
}
_ABOUT = {
    "faults": (
        "A client and a server with a proxy between them that knows frames, or limits and jumps of the "
        "clock that befall one of their processes. A case has survived if both sides ended as the table "
        "says, without an error of no type and no later than the deadline and two seconds, and the "
        "server then gave a good client the right answer. Payloads are authenticated by TLS alone: one "
        "that is altered may make a wrong answer."
    ),
    "fuzz": "What comes from outside, altered: only errors of pqjax's own types may come of it.",
    "statistics": (
        "Tests of what a party sees, at fixed seeds; with every test a control that must fail."
    ),
    "service": "Servers under many clients, for long, and under crashes.",
    "versions": "The tests with other versions of what pqjax needs.",
}


def compute(args: argparse.Namespace) -> dict:
    """The rows: of the suites that are run, of the folders that are given, and those that were there."""
    rows, about = _kept()
    kinds = [] if args.only == ["none"] else args.only or list(SUITES)
    for kind in kinds:
        paths = [path for path in SUITES[kind] if (ROOT / path).is_dir()]
        if not paths:
            print(f"{NAME}: there are no tests of {kind}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            passed = _suite(paths, pathlib.Path(folder))
            seconds = round(time.monotonic() - began, 1)
            rows = [row for row in rows if row["kind"] != kind] + collected(
                pathlib.Path(folder), kind
            )
        about[kind] = {"commit": record.commit(), "seconds": seconds, "passed": passed}
    for path in args.kinds:
        given, theirs = _told(path)
        rows = [row for row in rows if row["kind"] not in theirs]
        rows += [row for row in given if row["kind"] in theirs]
        about |= theirs
    for folder in args.rows:
        given = [row for kind in SUITES for row in collected(folder, kind)]
        if not given:
            raise DataError(f"{folder} holds no rows of evidence")
        cases = {_case(row) for row in given}
        rows = [row for row in rows if _case(row) not in cases] + given
    order = list(SUITES)
    rows.sort(key=lambda row: order.index(row["kind"]))
    return {"config": {"seed": None, "kinds": about}, "runs": rows}


def _kept() -> tuple[list[dict], dict]:
    """The rows that there are, and of every kind the commit, seconds and outcome of its tests."""
    if not record.found(f"{NAME}.json").exists():
        return [], {}
    return _told(record.found(f"{NAME}.json"))


def _told(path: pathlib.Path) -> tuple[list[dict], dict]:
    """The rows of a result file, and of every kind that was run for it how and at which commit.

    Raises:
      DataError: it cannot be read.
    """
    try:
        tree = json.loads(path.read_text())
        return tree["runs"], tree["config"]["kinds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no result of {NAME}: {error}") from error


def _suite(paths: list[str], folder: pathlib.Path) -> bool:
    """Runs tests, slow ones included, which leave rows in the folder; whether all passed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", *paths],
        cwd=ROOT, env={**os.environ, "PQJAX_EVIDENCE": str(folder)},
    )  # fmt: skip
    return done.returncode == 0


def _case(row: dict) -> tuple[str, str, str]:
    """What tells a row from others."""
    return row["kind"], row.get("group", ""), row["case"]


def collected(folder: pathlib.Path, kind: str) -> list[dict]:
    """The rows of a kind that tests have left in a folder; of a case the last one.

    Raises:
      DataError: they cannot be read.
    """
    path = folder / f"{kind}.jsonl"
    if not path.exists():
        return []
    try:
        rows = [{"kind": kind, **json.loads(x)} for x in path.read_text().splitlines()]
        last = {_case(row): row for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no rows of evidence: {error}") from error
    return list(last.values())


def report(tree: dict) -> str:
    """The page."""
    by_kind: dict[str, list[dict]] = {}
    for row in tree["runs"]:
        by_kind.setdefault(row["kind"], []).append(row)
    about, machine = tree["config"]["kinds"], tree["machine"]
    summary = [_summed(kind, rows, about.get(kind, {})) for kind, rows in by_kind.items()]
    parts = [
        "# Evidence",
        "What was tried against this code, and how it ended. The page is made by `make evidence` of "
        "what its tests recorded; no number in it is typed.",
        table(summary),
        f"Machine: {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, "
        f"JAX {machine['jax']}; written at commit {tree['commit']}.",
    ]
    for kind, rows in by_kind.items():
        sections = _faults(rows) if kind == "faults" else [table(_plain(rows))]
        parts += [f"## {kind.capitalize()}", _ABOUT[kind], *sections]
    return "\n\n".join(parts) + "\n"


def _summed(kind: str, rows: list[dict], about: dict) -> dict:
    outcomes = collections.Counter(row["outcome"] for row in rows)
    return {
        "kind": kind,
        "cases": len(rows),
        "outcomes": ", ".join(f"{name}: {n}" for name, n in sorted(outcomes.items())),
        "tests": {True: "all passed", False: "some failed"}.get(about.get("passed", ""), ""),
        "minutes": round(about["seconds"] / 60, 1) if "seconds" in about else "",
        "commit": about.get("commit", ""),
    }


def _plain(rows: list[dict]) -> list[dict]:
    """Rows as they are, without their kind."""
    return [{key: value for key, value in row.items() if key != "kind"} for row in rows]


def _faults(rows: list[dict]) -> list[str]:
    """What was done, how often, how each side ended, and how long that took beyond a deadline."""
    over = [row["seconds"] - row["limit_s"] for row in rows if row["limit_s"]]
    survived = sum(row["outcome"] == "survived" for row in rows)
    said = f"{survived} of {len(rows)} cases survived."
    if over:
        said += f" The latest end after a deadline came {max(0.0, *over):.1f} s after it."
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    lines = [
        {
            "what was done": name,
            "cases": len(of),
            "survived": sum(row["outcome"] == "survived" for row in of),
            "the client ends": _ends(row["client"] for row in of),
            "the server ends": _ends(row["server"] for row in of),
            "slowest s": max(row["seconds"] for row in of),
            "deadline s": max(row["limit_s"] for row in of) or "",
        }
        for name, of in groups.items()
    ]
    failed = [row for row in rows if row["outcome"] != "survived"]
    more = [table(_plain(failed))] if failed else []
    return [said, table(lines), *more, "### Where", _where(rows)]


def _ends(names: Iterable[str]) -> str:
    found = collections.Counter(name for name in names if name)
    return ", ".join(f"{name}: {n}" if len(found) > 1 else name for name, n in found.most_common())


def _where(rows: list[dict]) -> str:
    """How many cases there were in every phase and layer, where a case is at a frame."""
    found: collections.Counter[str] = collections.Counter()
    for row in rows:
        name = row["case"].removeprefix("before ").removeprefix("in ").split(":")[0]
        found[name if "/" in name else "elsewhere"] += 1
    elsewhere = {"elsewhere": found.pop("elsewhere", 0)}
    return table(
        [{"phase/layer": name, "cases": n} for name, n in {**found, **elsewhere}.items() if n]
    )


def main(arguments: list[str] | None = None) -> int:
    """Writes `evidence.json` and `.md`; with --record the page, too."""
    options = parser(NAME, __doc__)
    only = "run the tests of this kind alone (of `none`: no tests), and keep the others' rows"
    options.add_argument("--only", action="append", choices=(*SUITES, "none"), help=only)
    kinds = "take in the kinds that were run for this evidence.json of another checkout"
    options.add_argument("--kinds", action="append", type=pathlib.Path, default=[], help=kinds)
    rows = "take in the rows that tests have recorded in this folder"
    options.add_argument("--rows", action="append", type=pathlib.Path, default=[], help=rows)
    code = run(options, compute, report, arguments)
    made = record.into / f"{NAME}.md"
    if code == 0 and record.into == pathlib.Path(__file__).parent / "results":
        PAGE.write_text(made.read_text())
    return code


if __name__ == "__main__":
    sys.exit(main())
