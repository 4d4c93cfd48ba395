"""Products of two shared operands between two parties: exact, and as priced, in every way."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import EVERY, KINDS, OT, exact, job_of, joined, operands, run, shares, way_for

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.graph import Graph, Input, Product, TensorType
from pqjax.linear import Choice
from pqjax.linear.choice import ProductPacking
from pqjax.linear.products_by_ot import VARIANTS
from pqjax.linear.shared import product_way_of
from pqjax.ot.inline import Inline
from pqjax.planner import plan
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party, run_pair
from pqjax.ring import Ring
from pqjax.wire.messenger import Messenger

FORMS = (Forms(), Forms("choice"), Forms("table"))


@pytest.mark.parametrize("method,variant", EVERY)
@pytest.mark.parametrize("kinds", [("signed", "signed"), ("unsigned", "nonnegative")])
def test_products_are_exact_on_every_pair_of_shares(method, variant, kinds):
    widths = 2, 3
    job = job_of((1, 1, 1, 1), widths, kinds, bits=7)
    domains = [range(1 << bits) for bits in widths for _ in (0, 1)]
    a0, a1, b0, b1 = (np.array(x) for x in zip(*itertools.product(*domains), strict=True))
    values = []
    for x0, x1, t in ((a0, a1, job.left), (b0, b1, job.right)):
        ring = Ring(t.bits)
        x = ring.add(ring.reduce(x0), ring.reduce(x1))
        values.append((ring.signed(x) if t.signed else x).astype(np.int64))
    good = np.ones(len(a0), bool)
    for x, t in zip(values, (job.left, job.right), strict=True):
        good &= (x >= t.low) & (x <= t.high)
    a, b = (x[good] for x in values)
    job = dataclasses.replace(job, heads=len(a), guard=1)
    way = way_for(job, method, variant)
    pair = lambda x0, x1, t: [Ring(t.bits).reduce(x[good]).reshape(-1, 1, 1) for x in (x0, x1)]

    y0, y1 = run(way, job, pair(a0, a1, job.left), pair(b0, b1, job.right))

    assert len(a) >= 64
    np.testing.assert_array_equal(joined(way, job, y0, y1).ravel(), (a * b) % (1 << job.bits))


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), *[st.integers(1, 5)] * 3), seed=st.integers(0, 2**32),
    widths=st.tuples(*[st.integers(1, 9)] * 2), kinds=st.tuples(*[st.sampled_from(KINDS)] * 2),
    way=st.sampled_from(EVERY), forms=st.sampled_from(FORMS), guard=st.integers(1, 3),
)  # fmt: skip
def test_products_of_every_shape_are_exact_and_cost_what_was_predicted(
    shape, seed, widths, kinds, way, forms, guard
):
    rng = np.random.default_rng(seed)
    job = job_of(shape, widths, kinds, guard=guard)
    made = way_for(job, *way)
    a, b = operands(rng, job)

    y0, y1 = run(made, job, shares(rng, a, job.left), shares(rng, b, job.right), forms)

    np.testing.assert_array_equal(joined(made, job, y0, y1), exact(a, b) % (1 << job.bits))


WIDE = [((20, 20), 43), ((32, 31), 64), ((1, 60), 64), ((40, 7), 49), ((64, 64), 64)]


@pytest.mark.parametrize("variant,widths,bits", [
    (variant, *each) for variant in VARIANTS for each in WIDE
    if each[0][0] < 64 or VARIANTS[variant].extends == "both"
])  # fmt: skip
def test_products_in_rings_of_up_to_64_bits_are_exact(variant, widths, bits):
    rng = np.random.default_rng(bits)
    job = job_of((2, 2, 3, 2), widths, ("signed", "signed"), bits)
    way = way_for(job, "shared-ot", variant)
    a, b = operands(rng, job)
    y0, y1 = run(way, job, shares(rng, a, job.left), shares(rng, b, job.right))

    np.testing.assert_array_equal(joined(way, job, y0, y1), exact(a, b) % (1 << bits))


@pytest.mark.parametrize("bits", [20, 24])
def test_wide_shares_are_multiplied_on_ciphertexts(bits):
    rng = np.random.default_rng(bits)
    job = job_of((2, 9, 40, 11), (7, 8), ("signed", "unsigned"), bits, guard=1)
    way = way_for(job, "shared-rlwe", "guarded")
    a, b = operands(rng, job)

    y0, y1 = run(way, job, shares(rng, a, job.left), shares(rng, b, job.right))

    np.testing.assert_array_equal(joined(way, job, y0, y1), exact(a, b) % (1 << bits))


class Listening(Messenger):
    """Keeps what it is sent."""

    def __init__(self, wire, rank, heard):
        super().__init__(wire, rank)
        self.heard = heard

    def receive(self, bits, idle_s=None):
        self.heard.append(super().receive(bits, idle_s))
        return self.heard[-1]

    def receive_each(self, sizes, ahead=3):
        for found in super().receive_each(sizes, ahead):
            self.heard.append(found)
            yield found


def heard_of(job, keys):
    """What rank 0 and rank 1 heard of two products on ciphertexts, one after the other, same shares."""
    rng, way, heard = np.random.default_rng(1), way_for(job, "shared-rlwe", "guarded"), ([], [])
    a, b = (
        shares(rng, x, t) for x, t in zip(operands(rng, job), (job.left, job.right), strict=True)
    )

    def side(rank):
        def go(wire):
            messenger = Listening(wire, rank, heard[rank])
            none: Any = None
            me = Party(messenger, Randomness(bytes([keys[rank]] * 16)), OT, none, none)
            for _ in range(2):
                way.run(me, Forms(), job, a[rank], b[rank], way.prepare(me, job, "product"))

        return go

    run_pair(side(0), side(1))
    return heard


def test_products_and_heads_have_keys_and_masks_of_their_own():
    job = job_of((2, 3, 4, 2), (12, 12), ("signed", "signed"), bits=12, guard=1)
    heard, server = heard_of(job, (1, 2)), heard_of(job, (3, 2))
    client = heard_of(job, (1, 4))

    for rank in (0, 1):
        once, twice = np.split(np.arange(len(heard[rank])), 2)
        for i, j in zip(once, twice, strict=True):
            assert (heard[rank][i] == heard[rank][j]).mean() < 0.2  # a product's own
            assert (heard[rank][i] == client[rank][i]).mean() < 0.2
    assert len(heard[0]) == 2 * (2 + job.heads) and len(heard[1]) == 2 * 2 * job.heads
    for first in (heard[0][2], heard[1][0]):  # ciphertexts, and replies: a head's own
        others = [x for x in (*heard[0], *heard[1]) if x is not first and x.shape == first.shape]
        assert others and all((first == x).mean() < 0.2 for x in others)
    for mine, other in zip(heard[1], server[1], strict=True):
        assert (mine == other).mean() < 0.2  # of one message up
    np.testing.assert_array_equal(heard[0][0], server[0][0])


def test_inline_ots_serve_products_too():
    rng = np.random.default_rng(5)
    job = job_of((2, 3, 4, 2), (4, 5), ("signed", "nonnegative"))
    a, b = operands(rng, job)
    for variant in VARIANTS:
        way = way_for(job, "shared-ot", variant)
        both = shares(rng, a, job.left), shares(rng, b, job.right)

        y0, y1 = run(way, job, *both, Forms("table", True), source=Inline())

        np.testing.assert_array_equal(joined(way, job, y0, y1), exact(a, b) % (1 << job.bits))


def test_what_does_not_go_says_why():
    job = job_of((1, 4, 4, 4), (20, 20), ("signed", "signed"))
    packing = ProductPacking((4, 4, 4), 4096, 64, 60, 60)
    choice = Choice("shared-rlwe", "guarded", "pixels", "shared", packing)

    assert "no parameters for products" in (way_reason(job, None) or "")
    assert "may fail with" in (way_reason(job, packing) or "")
    small = job_of((1, 4, 4, 4), (3, 3), ("signed", "signed"))
    assert "blocks of 1 to 1024 slots" in (
        way_reason(small, dataclasses.replace(packing, block=(16, 16, 8), degree=1024, sent_bits=26,
                                              c1_bits=20, c0_bits=20)) or ""
    )  # fmt: skip
    with pytest.raises(InputError, match="of another method"):
        product_way_of(dataclasses.replace(choice, packing=None)).parts(Inline(), Forms(), job)
    filled = dataclasses.replace(small, bits=3)
    whys = [way_for(filled, "shared-ot", variant).unfit(filled) for variant in VARIANTS]
    assert [why is None for why in whys] == [False] * 4 + [True] * 2


def way_reason(job, packing):
    choice = Choice("shared-rlwe", "guarded", "pixels", "shared", packing)
    return product_way_of(choice).unfit(job)


def test_planners_take_the_cheapest_way_by_the_sizes():
    found = {}
    for tokens, protocol in itertools.product((1, 32), ("pqjax", "pqjax-ot", "privquant")):
        image, wide = TensorType((tokens, 1, 512), 8, 0), TensorType((tokens, 1, 4 * tokens), 24, 0)
        x = Input("x", (), image)
        made = plan(Graph((x, Product("y", ("x", "x"), wide, 4, True))), protocol)
        choice = made.step("y").task.choice
        assert choice is not None
        found[tokens, protocol] = choice.method
        assert choice.title in made.table() and "A product of two shared" in made.explain("y")

    assert found.pop((32, "pqjax")) == "shared-rlwe"
    assert set(found.values()) == {"shared-ot"}
