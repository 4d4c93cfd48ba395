"""Rows of evidence: what a test tried and how it ended, for docs/evidence.md.

Nothing is written unless `PQJAX_EVIDENCE` names a folder, as `make evidence` does. Then every row is one
line of JSON in the folder's file of its kind, appended in a single write: tests and their children may
record at once.
"""

import json
import os
import pathlib

KINDS = ("faults", "fuzz", "statistics", "service", "versions")


def record(kind: str, case: str, outcome: str, **numbers: float | int | str) -> None:
    """Adds a row: the case that was tried, how it ended, and figures with their units in their names."""
    if kind not in KINDS:
        raise ValueError(f"evidence is of one of {', '.join(KINDS)}, got {kind!r}")
    folder = os.environ.get("PQJAX_EVIDENCE")
    if not folder:
        return
    row = json.dumps({"case": case, "outcome": outcome, **numbers}, sort_keys=True) + "\n"
    path = pathlib.Path(folder) / f"{kind}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    to = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(to, row.encode())  # one write, at the end: rows of two processes never mix
    finally:
        os.close(to)
