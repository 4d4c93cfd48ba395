"""OpenTelemetry spans, made of records: one a session, in it one a phase, in these one a layer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pqjax.engine.spending import KEEP_LAYER
from pqjax.planner.plan import BEGIN_LAYER
from pqjax.version import VERSION
from pqjax.watching.records import Key, Record, key, short

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_IN_NO_PHASE = (
    BEGIN_LAYER,
    KEEP_LAYER,
)  # a wait for the next command; what is kept for another day


def tracer() -> Tracer | None:
    """What makes spans; None where OpenTelemetry is not installed, or nobody asked it for any.

    `opentelemetry-instrument pqjax serve ...` does ask.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return None
    return provider.get_tracer("pqjax", VERSION)


@dataclasses.dataclass
class _Phase:
    """One that is over, so many seconds after its session began."""

    name: str
    end: float
    span: Span


@dataclasses.dataclass
class _Session:
    """One that is not."""

    span: Span
    time: float
    phases: list[_Phase] = dataclasses.field(default_factory=list)


class Spans:
    """A sink that makes spans. Give it records of layers (`Records`)."""

    def __init__(self, tracer: Tracer):
        from opentelemetry import context, trace

        self._tracer, self._trace, self._no_parent = tracer, trace, context.Context()
        self._sessions: dict[Key, _Session] = {}

    def __call__(self, record: Record) -> None:
        """Begins or ends what it tells of."""
        if record["event"] == "began":
            about = {"model": record["model"], "client": record["client"]}
            about |= {"owner": short(record["owner"]), "session": record["session"]}
            span = self._tracer.start_span(
                "session", self._no_parent, attributes=_named(about), start_time=_ns(record["time"])
            )
            self._sessions[key(record)] = _Session(span, record["time"])
        elif record["event"] in ("done", "layers", "ended"):
            session = self._sessions.get(key(record))
            if session is not None:
                {"done": self._done, "layers": self._layers, "ended": self._ended}[record["event"]](
                    session, record
                )

    def _done(self, session: _Session, record: Record) -> None:
        name, end, seconds = record["phase"], record["at"], record["seconds"]
        about = {"answers": record["count"]} if record["count"] else {}
        span = self._made(session, session.span, name, end, seconds, about)
        session.phases.append(_Phase(name, end, span))

    def _layers(self, session: _Session, record: Record) -> None:
        if not session.span.is_recording():
            return
        for phase, layer, seconds, end, sent, received in record["layers"]:
            ran = (each.span for each in session.phases if each.name == phase and end <= each.end)
            parent = session.span if layer in _IN_NO_PHASE else next(ran, session.span)
            about = {"phase": phase, "sent_bytes": sent, "received_bytes": received}
            self._made(session, parent, layer, end, seconds, about)

    def _ended(self, session: _Session, record: Record) -> None:
        del self._sessions[key(record)]
        names = ("inferences", "answers", "sent_bytes", "received_bytes")
        session.span.set_attributes(_named({name: record[name] for name in names}))
        error = record.get("error")
        if error:
            session.span.set_attribute("error.type", error["type"])
            session.span.set_status(self._trace.StatusCode.ERROR, error["text"])
        session.span.end(_ns(session.time + record["seconds"]))

    def _made(
        self,
        session: _Session,
        parent: Span,
        name: str,
        end: float,
        seconds: float,
        about: dict[str, str | int],
    ) -> Span:
        """A span that is over."""
        inside = self._trace.set_span_in_context(parent, self._no_parent)
        begin = _ns(session.time + end - seconds)
        span = self._tracer.start_span(name, inside, attributes=_named(about), start_time=begin)
        span.end(_ns(session.time + end))
        return span


def _named(about: dict[str, str | int]) -> dict[str, str | int]:
    """Attributes under names that are nobody else's."""
    return {f"pqjax.{name}": value for name, value in about.items()}


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
