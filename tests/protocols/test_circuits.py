"""Carries and ranges of sums: every form of every circuit, on every pair of words."""

import hashlib
import itertools
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import INLINE, STOCKED, every_pair, run_protocol, shares

from pqjax.ot.silent import Silent
from pqjax.planner.document import FORMAT
from pqjax.protocols import adder
from pqjax.protocols.adder import Top, range_circuit
from pqjax.protocols.circuit import circuit_cost, evaluate
from pqjax.protocols.compare import carry_out, carry_out_cost
from pqjax.protocols.forms import Forms
from pqjax.protocols.saturate import saturate, saturate_cost, saturate_unfit
from pqjax.ring import Ring

SILENT = Silent(("b12", "b13"))
PRICES = [0, 1 << 13, 1 << 40]  # of a flow: of rings of up to 6 bits all of one circuit's forms


def built(found, taps, top):
    """The circuit of one way."""
    draft = adder.Draft()
    outputs = adder._climb(draft, found.steps, taps)
    if top is not None:
        outputs = [outputs[0], *adder._topped(draft, taps[-1], top, found.top or (), outputs[-1])]
    return draft.done(*outputs)


def wanted(x0, x1, taps, top):
    """What a circuit tells of pairs of words."""
    x0, x1 = x0.astype(np.int64), x1.astype(np.int64)
    carries = [(x0 % (1 << t)) + (x1 % (1 << t)) >> t for t in taps]
    if top is None:
        return carries
    number = (x0 + x1 >> taps[-1]) % (1 << top.bits)
    signed = number - (number >> top.bits - 1 << top.bits)
    inside = np.isin(signed, top.inside)
    return [carries[0], inside, (signed > 0) & ~inside]


def tops(bits):
    """What may be asked of so many bits."""
    return [None, *(Top(bits, both) for both in (False, True) if bits > both)]


WAYS = [
    (taps, top)
    for cut, keep in itertools.product(range(4), range(3))
    for bits in range(1, 7 - cut - keep)
    for taps in [(cut, cut + keep)]
    for top in tops(bits)
    if top is not None or (cut and keep)
]


@pytest.mark.parametrize("taps,top", WAYS)
def test_every_form_is_right_on_every_pair(taps, top):
    bits = taps[-1] + (top.bits if top else 0)
    _, x0, x1 = every_pair(bits)
    right = wanted(x0, x1, taps, top)
    for found in adder._ways(STOCKED.made_bits, taps, top) + adder._ways(
        SILENT.made_bits, taps, top
    ):
        circuit = built(found, taps, top)

        y0, y1 = run_protocol(
            lambda p, x, c=circuit: np.stack(evaluate(p, c, x)), (x0,), (x1,), STOCKED,
            circuit_cost(STOCKED, x0.size, circuit),
        )  # fmt: skip

        got = np.unpackbits(y0 ^ y1, axis=1, count=x0.size, bitorder="little")
        np.testing.assert_array_equal(got, np.stack(right), err_msg=str(found))


@pytest.mark.parametrize("source", [STOCKED, SILENT], ids=str)
@pytest.mark.parametrize("taps", [(1,), (3,), (7,), (16,), (33,), (63,), (0, 5), (4, 11), (9, 9)])
def test_a_way_costs_what_it_is_chosen_by(source, taps):
    bits = (
        [None] if len(taps) == 1 else [Top(e, both) for e in (2, 3, 5, 7) for both in (False, True)]
    )
    for top in bits:
        ways = adder._ways(source.made_bits, taps, top)
        for found in ways:
            cost = circuit_cost(source, 1000, built(found, taps, top))
            priced = cost.bits + source.made_bits * sum(cost.rots)
            assert priced == pytest.approx(1000 * found.bits)
            assert cost.flows == 2 * bool(found.steps or found.top) + found.rounds or not cost.bits
        assert [w.rounds for w in ways] == sorted({w.rounds for w in ways})
        assert [w.bits for w in ways] == sorted({w.bits for w in ways}, reverse=True)


def test_what_a_flow_is_worth_decides_between_bits_and_flows():
    few, many = (carry_out_cost(SILENT, 10**5, 16, Forms(flow_bits=b)) for b in (1 << 40, 0))

    assert few.flows < many.flows and few.bits > many.bits


def test_the_price_of_a_random_ot_shapes_a_circuit_and_sets_do_not():
    sources = Silent(("b10", "b10")), Silent(("b13", "b11"))

    circuits = {range_circuit(s, 10**4, 9, 6, Top(4, False), Forms()) for s in sources}

    assert len(circuits) == 1
    assert STOCKED.made_bits > 30 * SILENT.made_bits


@pytest.mark.parametrize("flow_bits", PRICES)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_saturation_on_every_sharing(bits, flow_bits):
    x, x0, x1 = every_pair(bits)
    value, forms = Ring(bits).signed(x), Forms(flow_bits=flow_bits)
    shapes = [(cut, kept) for cut in range(bits - 1) for kept in range(1, bits - cut)]
    for (cut, kept), both, more in itertools.product(shapes, (False, True), (0, 1, 4)):
        low = -(1 << kept - 1) if both else 0
        high, out = low + (1 << kept) - 1, Ring(kept + more)
        if saturate_unfit(bits, True, cut, low, high) is not None:
            continue
        how = bits, cut, low, high, out, forms

        y = run_protocol(
            lambda p, s, h=how: saturate(p, s, *h), (x0,), (x1,), STOCKED,
            saturate_cost(STOCKED, x.size, *how),
        )  # fmt: skip

        right = out.reduce(np.clip(value >> cut, low, high))
        np.testing.assert_array_equal(out.add(*y), right, err_msg=str(how))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_saturation_of_any_width(data):
    bits = data.draw(st.integers(2, 64))
    cut = data.draw(st.integers(0, bits - 2))
    kept = data.draw(st.integers(1, min(bits - cut - 1, 63)))
    both = data.draw(st.booleans())
    low = -(1 << kept - 1) if both else 0
    high, out = low + (1 << kept) - 1, Ring(data.draw(st.integers(kept, 64)))
    edges = [at << cut for at in (low, high, low - 1, high + 1, 0, -1)]
    ends = -(1 << bits - 1), (1 << bits - 1) - 1
    edges = [edge for edge in edges if ends[0] <= edge <= ends[1]]
    values = st.one_of(st.integers(*ends), st.sampled_from([*ends, *edges]))
    x = np.array(data.draw(st.lists(values, min_size=1, max_size=20)), np.int64)
    both_shares = shares(np.random.default_rng(x.size), x, bits)
    how = bits, cut, low, high, out, Forms(flow_bits=data.draw(st.sampled_from([0, 60, 1 << 40])))

    y = run_protocol(
        lambda p, s: saturate(p, s, *how), *((s,) for s in both_shares), STOCKED,
        saturate_cost(STOCKED, x.size, *how),
    )  # fmt: skip

    np.testing.assert_array_equal(out.add(*y), out.reduce(np.clip(x >> cut, low, high)))


@pytest.mark.parametrize("text,args", [
    ("signed values", (9, False, 2, 0, 7)), ("limits 0 and", (9, True, 2, 0, 6)),
    ("limits 0 and", (9, True, 2, -3, 4)), ("limits 0 and", (9, True, 2, 1, 8)),
    ("limits 0 and", (9, True, 2, 0, 0)), ("leaves 3 bits", (9, True, 6, -4, 3)),
])  # fmt: skip
def test_what_is_no_saturation_says_why(text, args):
    assert text in (saturate_unfit(*args) or "")


# What the search finds, by the format of plans that means it.
FOUND = {6: "bb2f8c2ae2c81873"}


def test_what_is_found_is_what_this_format_of_plans_means():
    """Two versions of one format must run the same circuits; where this fails, raise the format."""
    found = hashlib.sha256()
    for source in (SILENT, STOCKED):
        for n, flow_bits in itertools.product((10**3, 10**6), (0, 1 << 20, 1 << 40)):
            forms = Forms(flow_bits=flow_bits)
            for bits in (1, 5, 11, 16, 31, 63):
                circuit = adder.carry_circuit(source, n, bits, forms)
                found.update(repr((circuit.leaves, written(circuit))).encode())
            for (cut, keep), bits in itertools.product(((0, 3), (4, 7), (9, 6)), (1, 2, 4, 7)):
                for both in (False, True)[: 1 + (bits > 1)]:
                    circuit = range_circuit(source, n, cut, keep, Top(bits, both), forms)
                    found.update(repr((circuit.leaves, written(circuit))).encode())

    assert found.hexdigest()[:16] == FOUND[FORMAT]


def written(circuit):
    """Products and outputs with their signals in order."""
    products = [(sorted(p.x), [sorted(y) for y in p.ys], p.round) for p in circuit.products]
    return products, [sorted(signal) for signal in circuit.outputs]


def test_published_carries_have_digits_of_four_bits():
    circuit = adder.carry_circuit(INLINE, 10, 14, Forms())

    assert [leaf.width for leaf in circuit.leaves] == [4, 4, 4, 4]
    assert [len(leaf.entries) for leaf in circuit.leaves] == [2] * 4


def test_a_carry_of_words_in_a_wider_type_reads_low_bits_alone():
    x0, x1 = (np.arange(256, dtype=np.uint8), np.full(256, 200, np.uint8))

    y = run_protocol(
        lambda p, x: carry_out(p, x, 5),
        (x0 % 32,),
        (x1 % 32,),
        INLINE,
        carry_out_cost(INLINE, 256, 5),
    )

    np.testing.assert_array_equal(y[0] ^ y[1], x0 % 32 + 8 >= 32)


# Bits of an element, rounded, and flows, where flows are dear and where bits are: docs/design.md.
FIGURES = {
    (16, 9, 6, 16): ((137, 8), (101, 20)),
    (8, 2, 4, 8): ((98, 8), (63, 12)),
    (32, 22, 8, 32): ((305, 10), (206, 36)),
}


@pytest.mark.parametrize("sizes", FIGURES)
def test_a_requantization_takes_what_the_design_says(sizes):
    (bits, shift, kept, after), n = sizes, 200_704
    made = Silent(("b13", "b13")).share((n, n)).bits / (2 * n)
    for flow_bits, (each, flows) in zip((1 << 40, 0), FIGURES[sizes], strict=True):
        how = bits + 1, shift + 1, 0, (1 << kept) - 1, Ring(after), Forms(flow_bits=flow_bits)
        cost = saturate_cost(Silent(("b13", "b13")), n, *how)

        assert (round((cost.bits + made * sum(cost.rots)) / n), cost.flows) == (each, flows)
    text = (pathlib.Path(__file__).parents[2] / "docs" / "design.md").read_text()
    (few, few_flows), (many, many_flows) = FIGURES[sizes]
    assert f"{few} in {few_flows}" in text and f"{many} in {many_flows}" in text
