"""A server's log: for every record a line of text, or of JSON."""

import datetime
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from pqjax.watching.records import Record, event, printable, short

Form = Literal["text", "json"]
_MOST_LINE = 1000  # characters
_LINES = {
    "began": "session began: {model}",
    "noted": "{text}",
    "held_back": "{count} more connections were refused meanwhile",
    "watched": "metrics, health and state: http://{address}",
    "reloaded": "the models were read anew",
    "reload_failed": "the models there were are served on; reading them anew failed: {text}",
    "worker_died": "worker {worker} died (code {code}) with {sessions} sessions",
    "worker_failed": "worker {worker} talks nonsense and is ended: {error}",
}


class Log:
    """A sink that says what it hears, line by line."""

    def __init__(
        self,
        say: Callable[[str], None],
        form: Form = "text",
        now: Callable[[], float] = time.monotonic,
    ):
        self._say, self._form, self._refusals = say, form, Refusals(now)

    def __call__(self, record: Record) -> None:
        """Says it, unless it is one refusal of very many."""
        if record["event"] == "refused":
            held_back, said = self._refusals.another()
            if held_back:
                self._write(event("held_back", count=held_back))
            if not said:
                return
        self._write(record)

    def _write(self, record: Record) -> None:
        for line in _json(record) if self._form == "json" else _text(record):
            self._say(line)


class Refusals:
    """Of a flood of refusals a few a minute are said, then how many more there were."""

    most, every_s = 10, 60.0

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now, self._lock = now, threading.Lock()  # every connection has a thread of its own
        self._began, self._said, self._held_back = now(), 0, 0

    def another(self) -> tuple[int, bool]:
        """Counts one more: how many were held back, if it is time to say so; and whether it is said."""
        with self._lock:
            told = 0
            if self._now() - self._began >= self.every_s:
                told, self._held_back = self._held_back, 0
                self._began, self._said = self._now(), 0
            if self._said < self.most:
                self._said += 1
                return told, True
            self._held_back += 1
            return told, False


def _when(record: Record, timespec: str) -> str:
    """Its time, in this machine's zone."""
    return datetime.datetime.fromtimestamp(record["time"]).astimezone().isoformat(timespec=timespec)


def _json(record: Record) -> list[str]:
    """What it holds, owners shortened and seconds rounded; when layers were is for spans."""
    if record["event"] == "layers":
        return []
    shown: dict[str, Any] = {"time": _when(record, "milliseconds")}
    for name, value in record.items():
        if name not in ("time", "at"):
            shown[name] = round(value, 6) if isinstance(value, float) else value
    if "owner" in shown:
        shown["owner"] = short(shown["owner"])
    return [json.dumps(shown)]


def _text(record: Record) -> list[str]:
    """When, which client, what; nothing of phases and layers."""
    when = _when(record, "seconds")
    return [
        printable(" ".join(filter(None, (when, client, text))), _MOST_LINE)
        for client, text in _said(record)
    ]


def _said(record: Record) -> list[tuple[str, str]]:
    what, client, error = record["event"], record.get("client", ""), record.get("error")
    if what in ("done", "layers"):
        return []
    if what == "refused":
        return [(client, f"connection refused: {record['error']['text']}")]
    if what == "ended":
        so_far = "{inferences} inferences, {sent_bytes} bytes out, {received_bytes} in"
        ended = error["text"] if error else so_far.format_map(record)
        return [(client, f"session ended: {ended}")]
    if what == "stopping":
        at_work = record["sessions"]
        stopping = (
            f"stopping: nobody is let in any more; waiting for sessions at work: {len(at_work)}, for "
            f"{record['drain_s']:g} s at most; Ctrl-C again ends them at once"
        )
        return [("", stopping), *((x["client"], f"at work: {x['doing']}") for x in at_work)]
    if what in _LINES:
        return [(client, _LINES[what].format_map(record))]
    return [(client, what)]
