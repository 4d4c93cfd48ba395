"""Where the time of a run went, party by party and layer by layer: Chrome trace, picture, top ten.

A layer's seconds are split into waiting for messages, sending (waiting for room on the wire) and the
rest, which is computing. Chrome's `chrome://tracing` and https://ui.perfetto.dev open the trace.
"""

from __future__ import annotations

import json
import pathlib

from experiments.plots import save, stacked_bars
from experiments.record import RESULTS, table
from experiments.two_processes import Run
from pqjax.planner import Plan

PARTIES = ("server", "client")
SHARES = ("computing", "sending", "waiting")


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
            detail = {
                "sent_bits": entry["sent_bits"], "received_bits": entry["received_bits"],
                "messages": entry["messages"],
            }  # fmt: skip
            events.append(
                {"name": f"{entry['phase']} {entry['layer']}", "ph": "X", "pid": process, "tid": 0,
                 "ts": begin, "dur": round(entry["seconds"] * 1e6), "args": detail}
            )  # fmt: skip
            for name, seconds in shares(entry).items():
                if seconds > 0:
                    events.append({"name": name, "ph": "X", "pid": process, "tid": 1,
                                   "ts": begin, "dur": round(seconds * 1e6)})  # fmt: skip
                    begin += round(seconds * 1e6)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_trace(name: str, traces: dict[str, list[dict]]) -> pathlib.Path:
    """Writes `results/<name>.trace.json`; returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.trace.json"
    path.write_text(json.dumps(chrome_trace(traces), separators=(",", ":")) + "\n")
    return path


_KEPT = (
    "phase",
    "layer",
    "sent_bytes",
    "received_bytes",
    "seconds",
    "wait_seconds",
    "send_seconds",
)


def kept(name: str, made: Plan, run: Run) -> dict[str, list[dict]]:
    """Writes the first inference's trace; what `profile` needs of it, for the result file.

    Args:
      name: of the trace's file.
      made: the plan that was run.
      run: one inference or more.
    """
    both = {"server": run.server["trace"], "client": run.client["trace"]}
    first = {party: [e for e in entries if e["inference"] == 0] for party, entries in both.items()}
    write_trace(name, first)
    kinds = {step.node.name: step.node.kind for step in made.steps}
    return {
        party: [
            {key: _short(entry[key]) for key in _KEPT} | {"kind": kinds.get(entry["layer"], "")}
            for entry in entries
        ]
        for party, entries in first.items()
    }


def _short(value: object) -> object:
    """Seconds to the microsecond."""
    return round(value, 6) if isinstance(value, float) else value


def profile(name: str, title: str, traces: dict[str, list[dict]]) -> str:
    """A chapter of a report: seconds by kind of step, the longest layers, the picture.

    Args:
      name: of the picture's and the trace's files.
      title: network and protocol.
      traces: what `kept` returned.
    """
    return (
        f"\n## Profile, {title}\n\nBy kind of step:\n\n{by_kind(traces)}\n\n"
        f"The ten layers that took longest:\n\n{top_ten(traces)}\n\n{picture(name, title, traces)}"
        f"\nTime line for Chrome or Perfetto: `{name}.trace.json`.\n"
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
    return table(shown, list(shown[0]))


def picture(name: str, title: str, traces: dict[str, list[dict]]) -> str:
    """Stacked bars of both parties by block; returns Markdown."""
    grouped = {party: by_group(traces[party]) for party in PARTIES}
    groups = list(grouped["server"])
    parts = {
        share: [[grouped[party].get(group, {}).get(share, 0.0) for party in PARTIES]
                for group in groups]
        for share in SHARES
    }  # fmt: skip
    figure = stacked_bars(groups, ["s", "c"], parts, "seconds", title)
    return save(
        figure, name,
        f"{title}: seconds by block, server (s) and client (c). All bars: measured in one run between "
        "two processes on loopback; `ends` is everything outside of blocks.",
    )  # fmt: skip


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
    return table(rows, list(rows[0])) if rows else ""
