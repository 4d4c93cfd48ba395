"""Where the time of a run went, party by party and layer by layer: Chrome trace, picture, top ten.

A layer's seconds are split into waiting for messages, sending (waiting for room on the wire) and the
rest, which is computing. https://ui.perfetto.dev opens the trace as it is, `chrome://tracing` unpacked.
"""

from __future__ import annotations

import gzip
import json
import pathlib

from experiments import record
from experiments.plots import save, stacked_bars
from experiments.two_processes import Run
from pqjax.errors import DataError
from pqjax.planner import Plan

PARTIES = ("server", "client")
SHARES = ("computing", "sending", "waiting")
SUFFIX = ".trace.json.gz"


def shares(entry: dict) -> dict[str, float]:
    """Seconds of one layer by what they were spent on."""
    waiting, sending = entry["wait_seconds"], entry["send_seconds"]
    return {
        "computing": max(0.0, entry["seconds"] - waiting - sending),
        "sending": sending,
        "waiting": waiting,
    }


def chrome_trace(traces: dict[str, list[dict]]) -> dict:
    """Both parties' layers as one trace in Chrome's format: a row for layers, one for their shares.

    Args:
      traces: entries of each party's trace, see `pqjax.wire.trace`.
    """
    events: list[dict] = []
    for process, party in enumerate(PARTIES):
        events.append({"name": "process_name", "ph": "M", "pid": process, "args": {"name": party}})
        for entry in traces[party]:
            begin = round(entry["begin"] * 1e6)
            layer = _slice(
                f"{entry['phase']} {entry['layer']}", process, 0, begin, entry["seconds"]
            )
            events.append(layer | {"args": entry})
            for name, seconds in shares(entry).items():
                if seconds > 0:
                    events.append(_slice(name, process, 1, begin, seconds))
                    begin += events[-1]["dur"]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _slice(name: str, process: int, row: int, begin: int, seconds: float) -> dict:
    """A stretch of time in a row of a process, in microseconds."""
    times = {"ts": begin, "dur": round(seconds * 1e6)}
    return {"name": name, "ph": "X", "pid": process, "tid": row, **times}


def write_trace(name: str, made: Plan, run: Run) -> pathlib.Path:
    """Writes the first inference as `results/<name>.trace.json.gz`; returns its path.

    Args:
      name: of the file.
      made: the plan that was run.
      run: one inference or more.
    """
    kinds = {step.node.name: step.node.kind for step in made.steps}
    traces = {
        party: [
            {key: _short(value) for key, value in entry.items()}
            | {"kind": kinds.get(entry["layer"], "")}
            for entry in report["trace"]
            if entry["inference"] == 0
        ]
        for party, report in zip(PARTIES, (run.server, run.client), strict=True)
    }
    text = json.dumps(chrome_trace(traces), separators=(",", ":"))
    path = record.written(f"{name}{SUFFIX}")
    path.write_bytes(gzip.compress(text.encode(), mtime=0))  # no date: the same bytes every time
    return path


def read_trace(name: str) -> dict[str, list[dict]]:
    """The entries of each party that `write_trace` wrote, seconds to the microsecond.

    Raises:
      DataError: there is no such trace.
    """
    path = record.found(f"{name}{SUFFIX}")
    if not path.exists():
        raise DataError(f"{path.name} is not there: run make exp-{name.split('_')[0]} first")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return {
        party: [e["args"] for e in events if e["pid"] == process and e.get("tid") == 0]
        for process, party in enumerate(PARTIES)
    }


def _short(value: object) -> object:
    """Seconds to the microsecond."""
    return round(value, 6) if isinstance(value, float) else value


def profile(name: str, title: str) -> str:
    """A chapter of a report: seconds by kind of step, the longest layers, the picture.

    Args:
      name: of the picture's and the trace's files.
      title: network and protocol.
    """
    traces = read_trace(name)
    return (
        f"\n## Profile, {title}\n\nBy kind of step:\n\n{by_kind(traces)}\n\n"
        f"The ten layers that took longest:\n\n{top_ten(traces)}\n\n{picture(name, title, traces)}"
        f"\nTime line for Chrome or Perfetto: `{name}{SUFFIX}`.\n"
    )


def group_of(layer: str) -> str:
    """The part of the network a layer belongs to: its block, or itself."""
    head = layer.split(".")[0]
    return head if head[:1] == "s" and head[1:2].isdigit() else "ends"


def by_group(entries: list[dict]) -> dict[str, dict[str, float]]:
    """Seconds by block and share, in the order of the run; setup is left out."""
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        if entry["phase"] == "setup":
            continue
        group = found.setdefault(group_of(entry["layer"]), dict.fromkeys(SHARES, 0.0))
        for name, seconds in shares(entry).items():
            group[name] += seconds
    return found


def by_kind(traces: dict[str, list[dict]]) -> str:
    """Megabytes and seconds of every kind of step, the longest first, as a table.

    Args:
      traces: entries of each party's trace, with the `kind` of what ran.
    """
    rows: dict[tuple[str, str], dict] = {}
    for party in PARTIES:
        for entry in traces[party]:
            key = entry["phase"], entry["kind"] or entry["layer"]
            row = rows.setdefault(key, {"phase": key[0], "step": key[1], "MB": 0.0, "seconds": 0.0})
            if party == PARTIES[0]:
                row["MB"] += (entry["sent_bytes"] + entry["received_bytes"]) / 1e6
                row["seconds"] += entry["seconds"]
            for name, seconds in shares(entry).items():
                row[f"{party} {name}"] = row.get(f"{party} {name}", 0.0) + seconds
    longest = sorted(rows.values(), key=lambda row: -row["seconds"])
    shown = [row for row in longest if row["seconds"] >= 0.005 * longest[0]["seconds"]]
    return record.table(shown)


def picture(name: str, title: str, traces: dict[str, list[dict]]) -> str:
    """Stacked bars of both parties by block; returns Markdown."""
    grouped = {party: by_group(traces[party]) for party in PARTIES}
    groups = list(grouped["server"])
    parts = {
        share: [[by.get(group, {}).get(share, 0.0) for by in grouped.values()] for group in groups]
        for share in SHARES
    }
    figure = stacked_bars(groups, ["s", "c"], parts, "seconds", title)
    caption = (
        f"{title}: seconds by block, server (s) and client (c). All bars: measured in one run between "
        "two processes on loopback; `ends` is everything outside of blocks."
    )
    return save(figure, name, caption)


def top_ten(traces: dict[str, list[dict]]) -> str:
    """The ten layers that took longest at the server, as a table."""
    client = {(e["phase"], e["layer"]): e for e in traces["client"]}
    longest = sorted(traces["server"], key=lambda e: -e["seconds"])[:10]
    rows = []
    for entry in longest:
        other = client.get((entry["phase"], entry["layer"]))
        rows.append(
            {
                "layer": entry["layer"],
                "phase": entry["phase"],
                "MB": (entry["sent_bytes"] + entry["received_bytes"]) / 1e6,
                "seconds": entry["seconds"],
                **{f"server {k}": v for k, v in shares(entry).items()},
                **({f"client {k}": v for k, v in shares(other).items()} if other else {}),
            }
        )
    return record.table(rows) if rows else ""
