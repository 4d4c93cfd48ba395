"""Every protocol of `tests/cases.py`: right, as priced, as recorded on the wire, compiled once."""

import contextlib
import functools

import jax
import numpy as np
import pytest
from cases import CASES
from jax import monitoring
from pairs import KINDS
from wire_trace import SET_UP, line, recorded, set_up_line, traced

EVERY = pytest.mark.parametrize("name", CASES)
BOTH = pytest.mark.parametrize("source", KINDS)


@functools.cache
def ran(name, source):
    """The case's inputs and its run, once."""
    return traced(CASES[name], KINDS[source])


@contextlib.contextmanager
def counted_traces():
    """A list that grows with every function that JAX traces meanwhile, in any thread."""
    traces = []

    def note(event: str, duration_secs: float, **_: str | int):
        if event == "/jax/core/compile/jaxpr_trace_duration":
            traces.append(event)

    monitoring.register_event_duration_secs_listener(note)
    try:
        yield traces
    finally:
        monitoring.unregister_event_duration_listener(note)


@BOTH
@EVERY
def test_a_protocol_is_exact_costs_what_was_predicted_and_sends_what_was_recorded(name, source):
    case = CASES[name]

    inputs, run = ran(name, source)  # holds bits, flows and OTs to the cost

    wanted = case.plain(*inputs, case.joined(*run.outputs))
    for got, right in zip(case.joined(*run.outputs), wanted, strict=True):
        np.testing.assert_array_equal(got, np.asarray(right).astype(got.dtype))
    assert line(case, source, run) == recorded()[name, source], "see `make trace`"


@BOTH
@EVERY
def test_a_second_run_of_equal_shapes_traces_nothing(name, source):
    ran(name, source)

    with counted_traces() as traces:
        traced(CASES[name], KINDS[source])

    assert traces == []


def test_new_shapes_are_counted_as_traces():
    with counted_traces() as traces:
        jax.jit(lambda x: x + 1)(np.zeros(3, np.float32))

    assert traces


@BOTH
def test_setting_up_sends_what_was_recorded(source):
    assert set_up_line(source) == recorded()[SET_UP, source], "see `make trace`"


def test_the_record_has_a_line_for_every_case_and_no_other():
    names = (SET_UP, *CASES)

    assert set(recorded()) == {(name, source) for name in names for source in KINDS}
