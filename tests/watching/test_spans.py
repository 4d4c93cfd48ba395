"""Spans: of a session its phases, and of these the layers, with the bytes that the trace says."""

import subprocess
import sys
from collections import Counter

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from serving import ROOT, X
from watched import Watched, across

import pqjax
from pqjax.planner.plan import BEGIN_LAYER
from pqjax.watching import Spans


class Kept:
    """Spans that are over, and what makes them."""

    def __init__(self):
        self.exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.sink = Spans(provider.get_tracer("test"))

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def under(self, parent):
        """Those inside another; of None the outermost."""
        of = None if parent is None else parent.context.span_id
        return [span for span in self.spans if (span.parent and span.parent.span_id) == of]


@pytest.fixture(scope="module")
def traced():
    """Two inferences in one session, and a session that its client leaves."""
    kept = Kept()
    watched = Watched(kept.sink)
    with watched.running():
        with pqjax.connect(watched.address, deadline_s=60.0) as session:
            session.infer(X)
            session.infer(X)
        with pytest.raises(KeyError), pqjax.connect(watched.address, deadline_s=60.0):
            raise KeyError("of its own")
        watched.truth.wait(ends=2)
    return watched, kept


def test_a_session_has_its_phases_and_these_their_layers(traced):
    watched, kept = traced
    fine, left = kept.under(None)
    trace = watched.truth.ends[0][1]

    names = [span.name for span in kept.under(fine) if span.name != BEGIN_LAYER]
    assert names == ["setup", "offline", "online", "offline", "online"]
    assert [span.name for span in kept.under(left)] == ["setup"]
    layers = Counter()
    for phase in kept.under(fine):
        inside = kept.under(phase)
        assert inside or phase.name == BEGIN_LAYER
        for span in inside:
            assert span.attributes["pqjax.phase"] == phase.name
        layers.update((phase.name, span.name) for span in inside)
    true = Counter((e.phase, e.layer) for e in trace.entries if e.layer != BEGIN_LAYER)
    assert layers == true


def test_layers_have_the_bytes_of_the_trace_and_lie_in_their_session(traced):
    watched, kept = traced
    session, _ = kept.under(None)
    trace = watched.truth.ends[0][1]
    layers = [span for span in kept.spans if "pqjax.phase" in span.attributes]

    for at, way in enumerate(("sent", "received")):
        assert sum(span.attributes[f"pqjax.{way}_bytes"] for span in layers) == trace.bytes()[at]
        assert session.attributes[f"pqjax.{way}_bytes"] > trace.bytes()[at]
    for span in kept.spans:
        assert span.start_time <= span.end_time
    for span in layers:
        assert session.start_time <= span.start_time and span.end_time <= session.end_time


def test_how_a_session_ended_is_its_spans_status(traced):
    _, kept = traced
    fine, left = kept.under(None)

    assert fine.status.status_code is StatusCode.UNSET and fine.attributes["pqjax.answers"] == 2
    assert left.status.status_code is StatusCode.ERROR
    assert left.attributes["error.type"] == "SessionEnded" and left.attributes["pqjax.answers"] == 0


def test_spans_of_two_workers_do_not_mix(traced):
    watched, _ = traced
    kept = Kept()

    one, two = (list(across(watched.records, worker)) for worker in (1, 2))
    for pair in zip(one, two, strict=True):
        for record in pair:
            kept.sink(record)

    assert len(kept.under(None)) == 4
    assert len({len(kept.under(each)) for each in kept.under(None)}) == 2


def test_without_opentelemetry_or_somebody_who_set_it_up_there_are_no_spans():
    program = (
        "import sys; from pqjax.watching import tracer; assert tracer() is None; "
        "import opentelemetry.trace as t; from opentelemetry.sdk.trace import TracerProvider; "
        "t.set_tracer_provider(TracerProvider()); assert tracer() is not None; "
        "[sys.modules.__setitem__(n, None) for n in list(sys.modules) if n.startswith('opentel')]; "
        "assert tracer() is None"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
