"""Linear layers whose results come back, between two parties: exact or off by one, and as priced."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from encrypted import PACKED, layouts
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layers import maps, operand, random_layer, slow_conv
from networks import random_network, run_both
from test_by_rlwe import SMALL, VERSION, party

import pqjax
from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError, PlanError
from pqjax.he import LIMITS
from pqjax.he import Packing as Slots
from pqjax.layers.linear import job_of
from pqjax.linear import Choice, Job, by_reply
from pqjax.linear.by_reply import SYSTEMS, ByReply
from pqjax.linear.choice import Packing
from pqjax.linear.way import way_of
from pqjax.ot.stocked import SoftSpoken
from pqjax.planner import PRESETS, plan, read_plan
from pqjax.planner.summary import summary
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import make_party, run_pair
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


def packed_way(rng, job, packing) -> Any:
    """Any layout that the system may find for two sums a coefficient; None where there is none."""
    found = layouts(job, packing)
    return way_of(found[rng.integers(len(found))][1]) if found else None


def tightest(job, w, x):
    """The layer with the fewest bits that hold its products; with its bias they may need one less."""
    most = int(np.abs(w.astype(object)).reshape(-1, job.map.outputs).sum(0).max() * np.abs(x).max())
    own = job.x.bits < job.bits
    bits = max(most.bit_length(), job.x.bits + 1 if own else int(x.max()).bit_length() + 1)
    x_bits = job.x.bits if own else bits
    return dataclasses.replace(job, bits=bits, x=dataclasses.replace(job.x, bits=x_bits))


def run_packed(way, job, w, x, x0, forms=Forms()):  # noqa: B008 (frozen)
    """As `run`, with the OTs that the layer draws."""
    ring = Ring(job.x.bits)
    shares, source = (x0, ring.sub(ring.reduce(x), x0)), SoftSpoken(4)
    server = way.load(job, w, "layer", VERSION)
    parts = way.parts(source, forms, job)

    def side(rank):
        def go(wire):
            me: Any = make_party(wire, rank, source, Randomness(bytes([rank] * 16)))
            me.fill(total(parts.online.values()).rots)
            before = me.messenger.trace.bits()[0], me.messenger.clock
            ready = way.prepare(me, job, "layer", server, None)
            y = way.run(me, forms, job, server, shares[rank], ready)
            assert (me.sender.stock.left, me.receiver.stock.left) == (0, 0)
            return y, me.messenger.trace.bits()[0] - before[0], before[1], me.messenger.clock

        return go

    return parts, run_pair(side(0), side(1))


@settings(max_examples=30, deadline=None)
@given(
    m=maps(2), seed=st.integers(0, 2**32), guard=st.integers(1, 3),
    packing=st.sampled_from([Slots.WITHIN, Slots.CROSS]),
    kind=st.sampled_from(["signed", "nonnegative", "unsigned", "own"]),
    forms=st.sampled_from([Forms(), Forms(known_wrap="table")]),
)  # fmt: skip
def test_two_sums_a_coefficient_are_right_and_cost_what_was_predicted(
    m, seed, guard, packing, kind, forms
):
    rng = np.random.default_rng(seed)
    own = kind == "own"
    job, w, x = random_layer(rng, m, not own, "signed" if own else kind)
    job = dataclasses.replace(tightest(job, w, x), guard=guard)
    way = packed_way(rng, job, packing)
    assume(way is not None)
    assert way.unfit(job, own) is None
    ring = Ring(job.x.bits)
    x0 = np.zeros(x.shape, ring.dtype) if own else any_share(rng, job, x)

    parts, ((y0, sent0, from0, clock0), (y1, sent1, from1, clock1)) = run_packed(
        way, job, w, x, x0, forms
    )

    found = Ring(job.bits + guard).add(y0, y1).astype(object)
    np.testing.assert_array_equal(found >> guard, slow_conv(x, w, m) % (1 << job.bits))
    assert ((found & (1 << guard) - 1) <= 1).all()
    cost = total([*parts.offline.values(), *parts.online.values()])
    assert (sent0, sent1) == cost.sent and (clock0, clock1) == cost.clocks((from0, from1))
    assert parts.online["wraps"].bits and (parts.online["extension"].bits == 0 or not own)


@pytest.mark.parametrize("packing", [Slots.WITHIN, Slots.CROSS])
@pytest.mark.parametrize("sign", [-1, 1])
def test_products_that_only_their_bias_brings_back_into_the_accumulator_take_both_spare_bits(
    packing, sign, monkeypatch
):
    rng = np.random.default_rng(3)
    m = dataclasses.replace(SMALL, image=(6, 12), inputs=2, outputs=1)
    w, x = np.full(m.weight_shape, 3 * sign), np.full(m.in_shape, 31)
    w[:, :, 0], x[:, :3] = 0, 1  # across, low slots are the first channel's values by these weights
    job = dataclasses.replace(tightest(Job(m, 3, operand(m, 16, "signed"), 16), w, x), guard=1)
    wanted = slow_conv(x, w, m).astype(np.int64)
    assert np.abs(wanted).max() >= 1 << job.bits - 1

    def found():
        _, ((y0, *_), (y1, *_)) = run_packed(
            packed_way(rng, job, packing), job, w, x, any_share(rng, job, x)
        )
        return Ring(job.bits + 1).add(y0, y1) >> 1

    assert (found() == wanted % (1 << job.bits)).all()
    monkeypatch.setattr("pqjax.he.packing._SPARE_BITS", 1)
    by_reply._laid.cache_clear()
    assert (found() != wanted % (1 << job.bits)).any()
    by_reply._laid.cache_clear()


@pytest.mark.parametrize("m, change, complaint", [
    (SMALL, {"packed": "within"}, "plain_bits|may fail|must be in"),
    (SMALL, {"packed": "cross"}, "may fail|must be in"),
    (dataclasses.replace(SMALL, groups=2, inputs=4, outputs=4), {"packed": "cross"}, "in one group"),
])  # fmt: skip
def test_layouts_of_one_sum_do_not_hold_two(m, change, complaint):
    job = Job(m, 3, operand(m, 14, "signed"), 14, 1)
    way = way_for(job, "hequant", "widths+packing")
    plain = dataclasses.replace(way_for(job, "hequant", "widths").packing, **change)

    why = dataclasses.replace(way, packing=plain).unfit(job, own=False)

    assert why and re.search(complaint, why)


def test_sums_share_a_coefficient_only_where_that_is_on_and_none_overflows():
    job, *_ = small_job(np.random.default_rng(6))
    job = dataclasses.replace(job, guard=1)
    packed = packed_way(np.random.default_rng(0), job, Slots.WITHIN)
    off = way_of(Choice("hequant", "widths+tiling", "pixels", "shared", packed.packing))
    loose = dataclasses.replace(job, overflows=True)

    assert packed.unfit(job, own=False) is None
    assert "switched on" in str(off.unfit(job, own=False))
    assert "none overflows" in packed.unfit(loose, own=False)
    unplaced = dataclasses.replace(packed, packing=None)
    choice = Choice("hequant", PACKED, "pixels", "shared")
    assert {c.packing.packed for c in unplaced.options(choice, loose, 1)} == {"none"}
    wide = dataclasses.replace(job, w_bits=40)
    cross = packed_way(np.random.default_rng(0), job, Slots.CROSS)
    assert re.search("more than 64", cross.unfit(wide, own=False))


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

    assert [each.seed for each in theirs] == [each.seed for each in ready]
    assert len({each.seed for each in ready}) == 3
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

    assert sent["widths+tiling+packing"] <= sent["widths+tiling"]
    assert sent["widths+packing"] <= sent["widths"]
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


@pytest.mark.parametrize("seed, streamed", [(1, False), (3, True)])
def test_networks_of_packed_layers_are_exact_and_meet_their_books(seed, streamed):
    graph, weights, x = random_network(seed)
    rng, forced = np.random.default_rng(seed), {}
    for step in plan(graph, "hequant").steps:
        if step.task.choice:
            both = (layouts(job_of(step.task), packing) for packing in (Slots.WITHIN, Slots.CROSS))
            if found := sum(both, []):
                forced[step.node.name] = found[rng.integers(len(found))][1]
    preset = PRESETS["hequant"]
    if streamed:
        tuning = dataclasses.replace(preset.tuning, stream_above=0)
        preset = dataclasses.replace(preset, tuning=tuning)

    made = plan(graph, preset, variants=forced)

    (_, trace0, _), (y, trace1, _) = run_both(made, weights, x)
    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
    assert read_plan(made.document).document == made.document and made.streamed == streamed
    assert ", packed " in made.table() and "wraps" in made.explain(next(iter(forced)))


@pytest.mark.parametrize("packed", ["both", None, 1, ["cross"], "cross"])
def test_a_document_names_a_packing_there_is_and_that_fits(packed):
    graph = random_network(1)[0]
    tree = json.loads(plan(graph, "hequant").document)
    name = next(iter(tree["choices"]))
    tree["choices"][name]["packing"]["packed"] = packed

    with pytest.raises(PlanError, match="packed|may fail|must be in|one group|expected"):
        read_plan(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())
