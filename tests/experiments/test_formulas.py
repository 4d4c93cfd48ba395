import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import INLINE

from experiments.convolution import choice_bits
from experiments.formulas import CHOICES, SMALL, evaluate, product_names
from experiments.record import published
from experiments.table4 import exact_parts, printed_parts, totals
from pqjax.protocols.forms import Forms
from pqjax.protocols.nonlinear import relu_cost
from pqjax.protocols.resize import (
    bit_to_ring_cost,
    extend_cost,
    select_cost,
    truncate_cost,
    truncate_reduce_cost,
)
from pqjax.ring import Ring

PAPER = Forms("choice", relu_chosen=True)
N = 2  # even: two triples share an OT


def test_formulas_are_arithmetic_on_names():
    assert evaluate("λ*(l1 + 1) - 2*l2", {"l1": 3, "l2": 5}) == 128 * 4 - 10
    assert evaluate("min(S(2), 100)", {"L": 7}) == 13
    for bad in ("l1 + x", "S(2)", "l1 ** 2", "open(l1)", "l1.real", "1.5*l1"):
        with pytest.raises(ValueError, match="no value"):
            evaluate(bad, {"l1": 3})


@given(
    st.integers(1, 40),
    st.integers(2, 700),
    st.integers(1, 40),
    st.integers(1, 8),
    st.integers(1, 12),
)
def test_the_four_choices_are_priced_alike_by_formula_and_model(d1, d2, d3, l1, l2):
    names = product_names(d1, d2 * 2, d3 * 2, l1, l2)

    assert totals(exact_parts(names)) == choice_bits((d1, d2 * 2, d3 * 2), l1, l2)


@pytest.mark.parametrize("l1", range(2, 41))
def test_small_protocols_are_priced_alike_by_formula_and_model(l1):
    for l2 in range(l1 + 1, l1 + 25):
        more = l2 - l1
        up = {"l1": l1, "l2": l2}
        assert extend_cost(INLINE, N, l1, l2, True, False, PAPER).bits == N * evaluate(
            SMALL["Ext"], up
        )
        known = extend_cost(INLINE, N, l1, l2, True, True, PAPER).bits
        assert known == N * evaluate(SMALL["Ext, MSB known"], up)
        element = extend_cost(INLINE, N, l1, l2, True, True, Forms()).bits
        assert element == N * evaluate(SMALL["Ext, MSB known, one correlation"], up)
        down = {"l1": l2, "l2": more}
        reduced = truncate_reduce_cost(INLINE, N, l2, more)
        assert reduced.bits == N * evaluate(SMALL["TR"], down)
        whole = truncate_cost(INLINE, N, l2, more, True, False, PAPER).bits
        assert whole == N * evaluate(SMALL["Trunc"], down)
        parts = reduced + extend_cost(INLINE, N, l1, l2, True, False, PAPER)
        assert parts.bits == N * evaluate(SMALL["Trunc as TR, Ext"], down)
        assert bit_to_ring_cost(INLINE, N, Ring(l1)).bits == N * evaluate(SMALL["B2A"], up)
        assert select_cost(INLINE, N, Ring(l1)).bits == N * evaluate(SMALL["MUX"], up)
        assert relu_cost(INLINE, N, l1, PAPER).bits == N * evaluate(SMALL["ReLU"], up)


def test_row_four_is_read_as_it_is_meant():
    names = product_names(64, 576, 3136, 2, 4)

    meant = printed_parts(names)[3]["multiplication"]

    assert meant == 64 * 576 * 2 * (128 + 2 * (4 + 10) * 3136)
    assert len(published("table4")["rows"]) == len(CHOICES)
