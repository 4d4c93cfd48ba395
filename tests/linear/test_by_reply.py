"""Linear layers whose results come back, between two parties: exact or off by one, and as priced."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import maps, operand, random_layer, slow_conv
from networks import random_network, run_both
from test_by_rlwe import SMALL, VERSION, party

import pqjax
from pqjax.errors import InputError, PlanError
from pqjax.he import LIMITS
from pqjax.linear import Choice, Job
from pqjax.linear.by_reply import SYSTEMS, ByReply
from pqjax.linear.choice import Packing
from pqjax.linear.way import way_of
from pqjax.ot.stocked import SoftSpoken
from pqjax.planner import PRESETS, plan, read_plan
from pqjax.planner.summary import summary
from pqjax.protocols.party import run_pair
from pqjax.protocols.resize import Forms
from pqjax.ring import Ring
from pqjax.wire.cost import total

KINDS = [(system, variant) for system, found in SYSTEMS.items() for variant in found]


def way_for(job, system, variant) -> Any:
    choice = Choice(system, variant, "pixels", "shared")
    return way_of(way_of(choice).options(choice, job, 1)[0])


def run(way, job, w, x, x0, keys=(1, 2), again=False):
    """Both shares, what rank 0 and rank 1 heard, both messengers; twice with `again`."""
    ring, heard = Ring(job.bits), ([], [])
    shares = x0, ring.sub(ring.reduce(x), x0)
    server = way.load(job, w, "layer", VERSION)

    def side(rank):
        def go(wire):
            me = party(wire, rank, heard[rank], bytes([keys[rank]] * 16))
            for _ in range(1 + again):
                ready = way.prepare(me, job, "layer", server, None)
                y = way.run(me, Forms(), job, server, shares[rank], ready)
            return y, me.messenger

        return go

    (y0, one), (y1, two) = run_pair(side(0), side(1))
    return y0, y1, heard, (one, two)


def any_share(rng, job, x):
    return rng.integers(0, 1 << job.bits, x.shape).astype(Ring(job.bits).dtype)


@settings(max_examples=15, deadline=None)
@given(
    m=maps(), seed=st.integers(0, 2**32), guard=st.integers(1, 3), kind=st.sampled_from(KINDS),
)  # fmt: skip
def test_layers_of_every_shape_are_right_and_cost_what_was_predicted(m, seed, guard, kind):
    rng = np.random.default_rng(seed)
    job, w, x = random_layer(rng, m, full=True)
    way = way_for(job, *kind)
    if way.guards:
        job = dataclasses.replace(job, guard=guard)
        way = way_for(job, *kind)
    y0, y1, _, (one, two) = run(way, job, w, x, any_share(rng, job, x))

    ring = Ring(job.bits + job.guard)
    found, wanted = ring.add(y0, y1), slow_conv(x, w, m) % (1 << job.bits)
    if way.guards:
        np.testing.assert_array_equal(found.astype(object) >> guard, wanted)
        assert ((found.astype(object) & (1 << guard) - 1) <= 1).all()
    else:
        off = ring.signed(ring.sub(found, ring.reduce(wanted.astype(np.int64))))
        assert np.abs(off).max() <= 1 and (off != 0).mean() < 0.1
    assert way.exact is way.guards

    parts = way.parts(SoftSpoken(4), Forms(), job)
    cost = total([*parts.offline.values(), *parts.online.values()])
    assert not parts.install and way.secrets(job).count == 0
    assert (one.trace.bits()[0], two.trace.bits()[0]) == cost.sent
    assert (one.clock, two.clock) == cost.clocks()


def small_job(rng, bits=None):
    job, w, x = random_layer(rng, SMALL, full=True, widths=(3, 5))
    if bits is not None:
        job = Job(SMALL, 3, operand(SMALL, bits, "signed"), bits)
    return job, w, x


def test_sums_at_the_end_of_uniform_rings_are_off_by_one_as_often_as_stated():
    rng = np.random.default_rng(0)
    m = dataclasses.replace(SMALL, image=(40, 40), outputs=16)
    job = Job(m, 8, operand(m, 37, "signed"), 37)
    w, x = rng.integers(-128, 128, m.weight_shape), rng.integers(0, 256, m.in_shape)
    way = way_for(job, "cheetah", "uniform")
    y0, y1, _, _ = run(way, job, w, x, any_share(rng, job, x))

    ring = Ring(37)
    wanted = ring.reduce((slow_conv(x, w, m) % (1 << 37)).astype(np.int64))
    off = ring.signed(ring.sub(ring.add(y0, y1), wanted))

    stated = 2 ** way._laid(job).precision.error_log2
    assert np.abs(off).max() <= 1
    assert (off != 0).mean() <= stated + 7 * (stated / off.size) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_inferences_and_layers_have_keys_and_masks_of_their_own(kind):
    rng = np.random.default_rng(1)
    job, w, x = small_job(rng)
    job = dataclasses.replace(job, guard=int(kind[0] == "hequant"))
    way = way_for(job, *kind)
    x0 = np.zeros(x.shape, Ring(job.bits).dtype)

    heard = run(way, job, w, x, x0, again=True)[2]
    other = run(way, job, w, x, x0, keys=(3, 4))[2]
    replies = [run(way, job, w, x, x0, keys=(key, 2))[2] for key in (1, 3)]

    for rank, messages in ((0, 3), (1, 2)):  # seed, b_pk, b; c1, c0
        once, twice = heard[rank][:messages], heard[rank][messages:]
        for a, b, c in zip(once, twice, other[rank], strict=True):
            assert (a == b).mean() < 0.2 and (a == c).mean() < 0.2

    np.testing.assert_array_equal(replies[0][0][2], replies[1][0][2])  # of one message up
    for a, b in zip(replies[0][1], replies[1][1], strict=True):
        assert (a == b).mean() < 0.2


def test_every_layer_of_every_inference_has_a_seed_and_a_secret_of_its_own():
    job, w, _ = small_job(np.random.default_rng(3))
    way = way_for(job, "cheetah", "uniform")
    ready = []

    def client(wire):
        me = party(wire, 1, [], bytes(range(16)))
        ready.extend(way.prepare(me, job, name, None, None) for name in ("a", "b", "a"))

    def server(wire):
        me = party(wire, 0, [], bytes(16))
        return [way.prepare(me, job, name, None, None) for name in ("a", "b", "a")]

    theirs = run_pair(server, client)[0]

    assert [each.matrix for each in theirs] == [each.matrix for each in ready]
    assert len({each.matrix.seed for each in ready}) == 3
    secrets = [each.secret._s for each in ready]
    for a, b in zip(secrets, [*secrets[1:], secrets[0]], strict=True):
        assert 0.25 < (a == b).mean() < 0.42


def test_one_layer_meets_one_key_once():
    job, w, x = small_job(np.random.default_rng(2))
    job = dataclasses.replace(job, guard=1)
    way = way_for(job, "hequant", "widths+tiling")
    server = way.load(job, w, "layer", VERSION)
    share = Ring(job.bits).reduce(x)

    def client(wire):
        me = party(wire, 1, [], bytes(16))
        ready = way.prepare(me, job, "layer", None, None)
        way.run(me, Forms(), job, None, share, ready)
        with pytest.raises(InputError, match="once"):
            way.run(me, Forms(), job, None, share, ready)
        assert "array" not in repr(ready) and "secret" not in repr(ready).lower()

    def reader(wire):
        me = party(wire, 0, [], bytes(16))
        way.run(me, Forms(), job, server, share, way.prepare(me, job, "layer", server, None))

    run_pair(reader, client)


@pytest.mark.parametrize("field, value, complaint", [
    ("c1_bits", lambda own: own.c1_bits - 1, "may fail with"),
    ("c0_bits", lambda own: own.c0_bits - 1, "may fail with|c0_bits must be"),
    ("sent_bits", lambda own: LIMITS[own.degree] + 1, "allows a modulus"),
    ("degree", lambda own: own.degree - 1, "degree must be one of"),
    ("tile", lambda _: (2, 2), "tiles hold a kernel"),
    ("filters", lambda _: 4000, "slots"),
])  # fmt: skip
def test_a_packing_that_is_not_safe_and_exact_is_refused(field, value, complaint):
    job, *_ = small_job(np.random.default_rng(6))
    job = dataclasses.replace(job, guard=1)
    way = way_for(job, "hequant", "widths")
    changed = dataclasses.replace(way.packing, **{field: value(way.packing)})

    assert way.unfit(job, own=False) is None
    why = dataclasses.replace(way, packing=changed).unfit(job, own=False)
    assert why and re.search(complaint, why)


def test_other_packings_widths_and_times_are_refused():
    job, *_ = small_job(np.random.default_rng(7))
    uniform = way_for(job, "cheetah", "uniform")

    def why(**change) -> str:
        return dataclasses.replace(uniform, **change).unfit(job, own=False)

    assert uniform.unfit(job, own=False) is None
    assert "ahead" in why(when="ahead")
    assert "another method" in why(packing=Packing((4, 4), 1, 30, 30))
    narrow = dataclasses.replace(uniform.packing, c0_bits=60)
    assert "uniform widths are others" in why(packing=narrow)
    rlwe: Any = way_of(Choice("rlwe", "static-hints", "pixels", "ahead", uniform.packing))
    assert "another method" in rlwe.unfit(job, own=False)
    wide = dataclasses.replace(job, x=operand(SMALL, 40, "signed"), bits=40)
    unplaced: Any = ByReply(uniform.ideas, None, "shared")
    assert "more than 37" in unplaced.unfit(wide, own=False)
    thin = dataclasses.replace(job, x=operand(SMALL, 5, "signed"))
    assert "needs an operand" in uniform.unfit(thin, own=False)


def test_each_idea_alone_is_a_plan_that_sends_less_and_is_exact():
    graph, weights, x = random_network(1)
    sent = {}
    for variant in SYSTEMS["hequant"]:
        choices = (Choice("hequant", variant, "pixels", "shared"),)
        made = plan(graph, dataclasses.replace(PRESETS["hequant"], choices=choices))
        (_, trace0, _), (y, trace1, _) = run_both(made, weights, x)
        np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
        assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
        assert read_plan(made.document).document == made.document
        sent[variant] = summary(made)["linear_bytes"]

    assert sent["widths+tiling"] < min(sent["widths"], sent["tiling"])
    assert max(sent["widths"], sent["tiling"]) < sent["uniform"]


def test_an_inexact_plan_says_so_meets_its_books_and_differs_seldom():
    name = next(name for name, preset in PRESETS.items() if not preset.exact)
    differing = []
    for seed in range(4):
        graph, weights, x = random_network(seed)
        made = plan(graph, name)
        (_, trace0, _), (y, trace1, _) = run_both(made, weights, x)
        assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
        differing.append((y != pqjax.reference(graph, weights, x)).any())

    assert sum(differing) < len(differing)
    assert "may be off by one" in made.explain(made.source.nodes[1].name)
    assert summary(made)["exact"] is False and summary(plan(graph))["exact"] is True
    assert read_plan(made.document).preset.exact is False


def test_an_exact_plan_has_no_layer_that_may_be_off():
    graph = random_network(0)[0]
    made = plan(graph, "cheetah")
    tree = {**json.loads(made.document), "exact": True}

    with pytest.raises(PlanError, match="may be off by one"):
        read_plan(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())
    with pytest.raises(PlanError, match="may be off by one"):
        plan(graph, dataclasses.replace(PRESETS["cheetah"], exact=True))
