"""Every protocol of `tests/cases.py`: right, as priced, as recorded on the wire, compiled once."""

import threading

import jax
import numpy as np
import pytest
from cases import CASES
from pairs import SCHEMES, run_dealt
from wire_trace import FEW, line, recorded, traced

EVERY = pytest.mark.parametrize("name", CASES)
BOTH = pytest.mark.parametrize("scheme", SCHEMES)


@BOTH
@EVERY
def test_a_protocol_is_exact_costs_what_was_predicted_and_sends_what_was_recorded(name, scheme):
    case = CASES[name]

    inputs, run = traced(case, SCHEMES[scheme])

    wanted = case.plain(*inputs, case.joined(*run.outputs))
    for got, right in zip(case.joined(*run.outputs), wanted, strict=True):
        np.testing.assert_array_equal(got, np.asarray(right).astype(got.dtype))
    assert line(case, scheme, run) == recorded()[name, scheme], "see `make trace`"
