"""A server's metrics for Prometheus, made of records.

No label is what a client can choose: models are the server's, phases, errors and reasons the program's.
"""

import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pqjax.engine.process import resident_bytes
from pqjax.errors import InputError
from pqjax.version import VERSION
from pqjax.watching.records import Key, Record, key
from pqjax.wire.handshake import PROTOCOL_VERSION

BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_DIRECTIONS = {"sent": "sent_bytes", "received": "received_bytes"}


class Metrics:
    """A sink that counts, in a registry of its own.

    Bytes are counted as phases and sessions end: all frames of a session, greeting included. By phase
    they are the trace's, of sessions that ended well.

    Raises:
      InputError: prometheus-client is not installed.
    """

    def __init__(self) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise InputError(
                "metrics need the package prometheus-client: pip install 'pqjax[watch]'"
            ) from error
        registry = prometheus.CollectorRegistry()
        self.content_type = prometheus.CONTENT_TYPE_LATEST
        self._registry, self._generate = registry, prometheus.generate_latest
        self._lock = threading.Lock()  # of a scrape
        self._bytes_of: dict[Key, dict[str, int]] = {}  # of sessions that have not ended

        def counter(name: str, text: str, *labels: str):
            return prometheus.Counter(f"pqjax_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str):
            return prometheus.Gauge(f"pqjax_{name}", text, labels, registry=registry)

        self._sessions = gauge("sessions", "Sessions under way", "model")
        self._ended = counter(
            "sessions_ended", 'Sessions that are over; result "fine", or the error\'s type',
            "model", "result", "reason",
        )  # fmt: skip
        self._answers = counter("answers", "Answers that clients got", "model")
        self._seconds = prometheus.Histogram(
            "pqjax_phase_seconds", "Seconds that phases took", ("model", "phase"),
            buckets=BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._bytes = counter("bytes", "Bytes of sessions", "model", "direction")
        self._phase_bytes = counter(
            "phase_bytes", "Bytes of sessions that ended well", "model", "phase", "direction"
        )
        self._refusals = counter("refusals", "Connections that became no session", "reason")
        self._notes = counter("store_notes", "Stored preparations that were not spent: notes")
        self._deaths = counter("worker_deaths", "Worker processes that died")
        self._stored = gauge("stored_preparations", "Preparations in the server's store")
        self._resident = gauge("resident_bytes", "Memory in use", "process")
        build = {"version": VERSION, "protocol": str(PROTOCOL_VERSION), "jax": version("jax")}
        prometheus.Info("pqjax_build", "What runs", registry=registry).info(build)

    def __call__(self, record: Record) -> None:
        """Counts it."""
        match record["event"]:
            case "began":
                self._bytes_of[key(record)] = dict.fromkeys(_DIRECTIONS.values(), 0)
                self._sessions.labels(record["model"]).inc()
            case "done":
                model, phase = record["model"], record["phase"]
                self._seconds.labels(model, phase).observe(record["seconds"])
                if record["count"]:
                    self._answers.labels(model).inc(record["count"])
                self._count_bytes(record, self._bytes_of[key(record)])
            case "ended":
                self._count_end(record)
            case "refused":
                error = record["error"]
                self._refusals.labels(error["reason"] or error["type"]).inc()
            case "noted":
                self._notes.inc()
            case "worker_died":
                self._deaths.inc()

    def _count_end(self, record: Record) -> None:
        model, error = record["model"], record.get("error")
        counted = self._bytes_of.pop(key(record), None)
        if counted is not None:  # one that came too late has not begun
            self._sessions.labels(model).dec()
        self._count_bytes(record, counted or dict.fromkeys(_DIRECTIONS.values(), 0))
        result = (error["type"], error["reason"]) if error else ("fine", "")
        self._ended.labels(model, *result).inc()
        for phase, sums in record.get("phases", {}).items():
            for direction, name in _DIRECTIONS.items():
                self._phase_bytes.labels(model, phase, direction).inc(sums[name])

    def _count_bytes(self, record: Record, counted: dict[str, int]) -> None:
        """What came on top of what was counted of this session."""
        for direction, name in _DIRECTIONS.items():
            self._bytes.labels(record["model"], direction).inc(record[name] - counted[name])
            counted[name] = record[name]

    def text(self, state: Mapping[str, Any]) -> bytes:
        """All of it as Prometheus reads it; memory and what is in store as the server's state says."""
        with self._lock:
            self._resident.labels("server").set(resident_bytes())
            if "workers" in state:
                there = sum(worker["resident_bytes"] for worker in state["workers"])
                self._resident.labels("workers").set(there)
            if "stored" in state:
                self._stored.set(state["stored"])
            return self._generate(self._registry)
