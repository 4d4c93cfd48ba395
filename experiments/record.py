"""What every result file carries: configuration, seed, commit, machine; and tables made from rows."""

from __future__ import annotations

import json
import math
import os
import pathlib
import platform
import subprocess

import jax

import pqjax
from pqjax.engine.rates import processor
from pqjax.errors import DataError

RESULTS = pathlib.Path(__file__).parent / "results"  # committed
LATEST = pathlib.Path(__file__).parent / "latest"  # of this checkout, in no commit
into = LATEST  # where results are written; `--record` makes it RESULTS
PUBLISHED = pathlib.Path(__file__).parent / "published.json"


def commit() -> str:
    """The checkout's commit, with a plus where files differ from it."""
    folder = pathlib.Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", "../pqjax", "../nets", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    lines = [line for line in changed.splitlines() if "experiments/results/" not in line]
    return head + ("+" if lines else "")


def _git(folder: pathlib.Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def machine() -> dict:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "pqjax": pqjax.__version__,
    }


def write(name: str, config: dict, runs: list[dict], **more) -> pathlib.Path:
    """Writes `<name>.json`; returns its path."""
    path = written(f"{name}.json")
    tree = {"config": config, "commit": commit(), "machine": machine(), "runs": runs, **more}
    path.write_text(json.dumps(tree, indent=1) + "\n")
    return path


def written(file: str) -> pathlib.Path:
    """Where a file of that name is written to; its folder is there."""
    into.mkdir(exist_ok=True)
    return into / file


def found(file: str) -> pathlib.Path:
    """Where a file of that name is read from: what was written last, else what is committed."""
    return into / file if (into / file).exists() else RESULTS / file


def read(name: str) -> dict:
    """What `write` wrote last, else the committed result.

    Raises:
      DataError: there is no such result.
    """
    path = found(f"{name}.json")
    if not path.exists():
        raise DataError(f"{path.name} is not there: run make exp-{name} first")
    return json.loads(path.read_text())


def published(key: str):
    """A table of the paper, as printed; or where it is from, the key being `source`."""
    return json.loads(PUBLISHED.read_text())[key]


def relative(ours: float, theirs: float) -> float:
    """By what part of theirs ours is larger."""
    return ours / theirs - 1


def percent(part: float) -> str:
    """A relative difference as a table shows it."""
    return f"{100 * part:+.1f} %"


def rms(values: list[float]) -> float:
    """Root of the mean square."""
    return math.sqrt(math.fsum(v * v for v in values) / len(values))


def table(rows: list[dict], columns: list[str] | None = None) -> str:
    """A Markdown table of the rows' columns, by default all, in the order in which they come up."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns] + [[_cell(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in cells]
    lines = ["| " + " | ".join(line) + " |" for line in padded]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
