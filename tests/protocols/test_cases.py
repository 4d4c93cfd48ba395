"""Every protocol of `tests/cases.py`: right, as priced, as recorded on the wire, compiled once."""

import contextlib
import functools

import jax
import numpy as np
import pytest
from cases import CASES
from jax import monitoring
from pairs import SCHEMES
from wire_trace import SET_UP, line, recorded, set_up_line, traced

EVERY = pytest.mark.parametrize("name", CASES)
BOTH = pytest.mark.parametrize("scheme", SCHEMES)


@functools.cache
def ran(name, scheme):
    """The case's inputs and its run, once."""
    return traced(CASES[name], SCHEMES[scheme])


@contextlib.contextmanager
def counted_traces():
    """A list that grows with every function that JAX traces meanwhile, in any thread."""
    traces = []

    def note(event, _seconds, **_):
        if event == "/jax/core/compile/jaxpr_trace_duration":
            traces.append(event)

    monitoring.register_event_duration_secs_listener(note)
    try:
        yield traces
    finally:
        monitoring.unregister_event_duration_listener(note)


@BOTH
@EVERY
def test_a_protocol_is_exact_costs_what_was_predicted_and_sends_what_was_recorded(name, scheme):
    case = CASES[name]

    inputs, run = ran(name, scheme)  # holds bits, flows and OTs to the cost

    wanted = case.plain(*inputs, case.joined(*run.outputs))
    for got, right in zip(case.joined(*run.outputs), wanted, strict=True):
        np.testing.assert_array_equal(got, np.asarray(right).astype(got.dtype))
    assert line(case, scheme, run) == recorded()[name, scheme], "see `make trace`"


@BOTH
@EVERY
def test_a_second_run_of_equal_shapes_traces_nothing(name, scheme):
    ran(name, scheme)

    with counted_traces() as traces:
        traced(CASES[name], SCHEMES[scheme])

    assert traces == []


def test_new_shapes_are_counted_as_traces():
    with counted_traces() as traces:
        jax.jit(lambda x: x + 1)(np.zeros(3, np.float32))

    assert traces


@BOTH
def test_setting_up_sends_what_was_recorded(scheme):
    assert set_up_line(scheme) == recorded()[SET_UP, scheme], "see `make trace`"


def test_the_record_has_a_line_for_every_case_and_no_other():
    names = (SET_UP, *CASES)

    assert set(recorded()) == {(name, scheme) for name in names for scheme in SCHEMES}
