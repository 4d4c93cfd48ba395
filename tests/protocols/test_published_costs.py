"""The table of docs/design.md, "Oblivious transfer", row by row: exact bits and flows."""

import pytest
from pairs import INLINE

from pqjax.graph.ir import TensorType
from pqjax.linear import PRIVQUANT, ByOt, Job, LinearMap, on_shares_cost
from pqjax.ot.correlations import chosen_both_cost, cot_cost, pick_cost
from pqjax.protocols.compare import and_cost, carry_out_cost, known_wrap_cost
from pqjax.protocols.forms import Forms
from pqjax.protocols.nonlinear import arg_max_cost, max_tree_cost, relu_cost
from pqjax.protocols.resize import (
    bit_to_ring_cost,
    extend_cost,
    select_cost,
    truncate_cost,
    truncate_reduce_cost,
)
from pqjax.ring import Ring

PAPER = Forms("choice", relu_chosen=True)
TABLE = Forms("table", relu_chosen=True)
N = 2  # elements; even, so that two triples share an OT


def levels(l):
    return (-(-l // 4) - 1).bit_length()


def mill(l):
    if l <= 4:
        return 130 if l == 1 else 256 + 2**l
    q = -(-l // 4)
    return 288 * q + 148 * (2 * (q - 1) - levels(l))


def holds(cost, bits, flows):
    assert (cost.bits, cost.flows) == (N * bits, flows)


@pytest.mark.parametrize("l", range(1, 65))
def test_comparison_and_what_is_built_on_it(l):
    holds(carry_out_cost(INLINE, N, l), mill(l), 2 + levels(l))
    b2a = 128 + l if l > 1 else 0
    assert bit_to_ring_cost(INLINE, N, Ring(l)).bits == N * b2a
    holds(select_cost(INLINE, N, Ring(l)), 2 * (128 + l), 2)
    holds(select_cost(INLINE, N, Ring(l), True), 2 * (128 + 2 * l), 2)
    holds(cot_cost(INLINE, 0, N, Ring(l)), 128 + l, 2)
    holds(chosen_both_cost(INLINE, N, Ring(l)), 2 * (128 + 2 * l), 2)


@pytest.mark.parametrize("l,bits", [(4, 272), (8, 724), (12, 1160), (16, 1744), (32, 3932)])
def test_comparison_costs_the_quoted_bits(l, bits):
    assert carry_out_cost(INLINE, N, l).bits == N * bits


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("t", [1, 2, 4])
def test_one_of_many(m, t):
    holds(pick_cost(INLINE, 0, (N, m, t)), 256 + t * 2**m, 2)


def mill_eq(l):
    q = -(-l // 4)
    return 256 + 2 * 2**l if q == 1 else 288 * q + 148 * 2 * (q - 1)


def test_and_with_its_triple():
    assert and_cost(INLINE, N).bits == N * 148


def test_wrap_with_known_sign():
    holds(known_wrap_cost(INLINE, N, by_table=True), 260, 2)
    holds(known_wrap_cost(INLINE, N), 130, 2)


@pytest.mark.parametrize("m,n", [(4, 16), (8, 12), (8, 32), (13, 37), (31, 33), (4, 64)])
def test_extension(m, n):
    rest = 128 + (n - m)
    assert extend_cost(INLINE, N, m, n, True, False, PAPER).bits == N * (mill(m) + rest)
    assert extend_cost(INLINE, N, m, n, True, True, TABLE).bits == N * (260 + rest)
    assert extend_cost(INLINE, N, m, n, True, True, PAPER).bits == N * (130 + rest)


@pytest.mark.parametrize("l,s", [(16, 7), (16, 4), (37, 13), (32, 12), (64, 20), (8, 1)])
def test_truncation(l, s):
    reduced = mill(s) + 128 + (l - s)
    assert truncate_reduce_cost(INLINE, N, l, s).bits == N * reduced
    # SiRNN's own: the closed form of the design, with 148 bits for an AND that shares no operand.
    b2a = lambda bits: 128 + bits if bits > 1 else 0  # noqa: E731
    own = mill(s) + mill_eq(l - s) + 148 + b2a(l) + b2a(s)
    assert truncate_cost(INLINE, N, l, s, True, False, PAPER).bits == N * own
    by_parts = reduced + mill(l - s) + b2a(s)  # PrivQuant, proposition 4.1
    assert by_parts < own


@pytest.mark.parametrize("l", [2, 5, 8, 13, 16, 32, 37, 64])
def test_relu(l):
    holds(relu_cost(INLINE, N, l, PAPER), mill(l - 1) + 2 * (128 + 2 * l), 4 + levels(l - 1))
    holds(relu_cost(INLINE, N, l, Forms()), mill(l - 1) + 2 * (128 + l), 4 + levels(l - 1))


@pytest.mark.parametrize("k", [2, 4, 9])
def test_max_and_arg_max_are_trees(k):
    l, places = 8, 4
    one = relu_cost(INLINE, N, l, Forms())
    cost = max_tree_cost(INLINE, k, N, l, Forms())
    assert cost.bits == (k - 1) * one.bits
    # The last message of one level and the first of the next travel together.
    depth = (k - 1).bit_length()
    assert cost.flows == depth * one.flows - (depth - 1)
    # Pairs of a single vector may leave half a triple OT unused: at least, and nearly.
    floor = (k - 1) * (mill(l - 1) + 2 * (128 + l) + 2 * (128 + places))
    assert floor <= arg_max_cost(INLINE, k, 1, l, places, Forms()).bits <= floor + 144 * k
    many = arg_max_cost(INLINE, k, N, l, places, Forms())
    assert many.bits <= N * floor + 144 * k
    assert many.flows == arg_max_cost(INLINE, k, 1, l, places, Forms()).flows


@pytest.mark.parametrize("d1,d2,d3", [(64, 576, 1024), (128, 1152, 784), (10, 1024, 2)])
@pytest.mark.parametrize("l1,l2", [(2, 4), (2, 6), (4, 8)])
def test_the_four_choices_of_privquant(d1, d2, d3, l1, l2):
    e = (d2 - 1).bit_length()
    whole = l1 + l2 + e

    def s(n):
        return n * whole - n * (n - 1) // 2

    ext = mill(l2) + 128 + e
    formulas = {
        PRIVQUANT[0]: d2 * d3 * (l2 * 128 + d1 * s(l2))
        + d2 * d3 * (mill(l2) + 128 + 2 * d1 * (l1 + e)),
        PRIVQUANT[1]: d1 * d2 * ((l1 + e) * 128 + d3 * s(l1 + e))
        + d2 * d3 * (mill(l2) + 128 + 2 * d1 * (l1 + e)),
        PRIVQUANT[2]: d2 * d3 * (ext + (l2 + e) * 128 + d1 * s(l2 + e))
        + d2 * d3 * (mill(l2 + e) + 128 + 2 * d1 * l1),
        PRIVQUANT[3]: d2 * d3 * ext
        + d1 * d2 * (l1 * 128 + d3 * s(l1))
        + d2 * d3 * (mill(l2 + e) + 128 + 2 * d1 * l1),
    }
    job = Job(LinearMap.pointwise((1, d3), d2, d1), l1, TensorType((1, d3, d2), l2, 0), whole)
    for variant, bits in formulas.items():
        assert on_shares_cost(INLINE, ByOt(variant, "patches"), job, PAPER).bits == bits, variant
