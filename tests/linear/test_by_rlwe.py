"""Linear layers on ciphertexts between two parties: exact, as priced, with fresh secrets every time."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import maps, operand, random_layer, slow_conv

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he import STATIC, Hint, Version
from pqjax.he.merging import turned
from pqjax.he.polynomial import product
from pqjax.linear import Choice, Job, LinearMap
from pqjax.linear.by_rlwe import MERGED_HINTS, VARIANTS, ByRlwe, bound, merged_packings, packings
from pqjax.linear.choice import Packing, When
from pqjax.linear.keys import Secrets, exchange_keys, keys_cost
from pqjax.ot.stocked import SoftSpoken
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party, run_pair
from pqjax.ring import Ring
from pqjax.wire.cost import total
from pqjax.wire.messenger import Messenger

VERSION = Version(bytes(16), bytes(range(16)))
SMALL = LinearMap((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 3, 4)


class Listening(Messenger):
    """Keeps what it is sent."""

    def __init__(self, wire, rank, heard):
        super().__init__(wire, rank)
        self.heard = heard

    def receive_elements(self, n, ring):
        found = super().receive_elements(n, ring)
        self.heard.append(found)
        return found


def party(wire, rank, heard, key):
    """A party without OTs: there are none in these layers."""
    none: Any = None
    return Party(Listening(wire, rank, heard), Randomness(key), SoftSpoken(4), none, none)


def run(way, job, w, x, x0, key=1):
    """Both shares, what rank 0 heard, both messengers; rank 0's share of the operand is x0."""
    ring, heard = Ring(job.bits), []
    shares = x0, ring.sub(ring.reduce(x), x0)
    server = way.load(job, w, "layer", VERSION)
    own = server, way.hint(job, server, "layer", VERSION)

    def side(rank):
        def go(wire):
            me = party(wire, rank, heard if rank == 0 else [], bytes([key, rank] * 8))
            keys = exchange_keys(me, VERSION.seed, way.secrets(job))
            ready = way.prepare(me, job, "layer", own[rank], keys)
            return way.run(me, Forms(), job, own[rank], shares[rank], ready), me.messenger

        return go

    (y0, one), (y1, two) = run_pair(side(0), side(1))
    return y0, y1, heard, (one, two)


def first_packing(job, inferences=1000):
    return next(iter(packings(job, inferences)))


def ways(job, inferences=1000, when: When = "ahead", variants=VARIANTS):
    """With every packing of a layer."""
    for variant in variants:
        own = ByRlwe(None, when, variant)
        if own.unfit(job, own=False) is None:
            for choice in own.options(Choice("rlwe", variant, "pixels", "ahead"), job, inferences):
                yield dataclasses.replace(own, packing=choice.packing)


def merging_way(job, together=4):
    """One that merges so many hints."""
    each = merged_packings(job, 1000)
    packing = next(packing for packing in each if packing.merged == together)
    return ByRlwe(packing, "ahead", MERGED_HINTS)


@settings(max_examples=25, deadline=None)
@given(
    m=maps(), seed=st.integers(0, 2**32), guard=st.integers(1, 3),
    when=st.sampled_from(["ahead", "shared"]), span=st.sampled_from([1, 1000]),
)  # fmt: skip
def test_layers_of_every_shape_are_exact_and_cost_what_was_predicted(m, seed, guard, when, span):
    rng = np.random.default_rng(seed)
    job, w, x = random_layer(rng, m, full=True)
    job = dataclasses.replace(job, guard=guard)
    for way in ways(job, span, when):
        x0 = rng.integers(0, 1 << job.bits, x.shape).astype(Ring(job.bits).dtype)
        y0, y1, _, (one, two) = run(way, job, w, x, x0)

        found = Ring(job.bits + guard).add(y0, y1).astype(object)
        expected = slow_conv(x, w, m) % (1 << job.bits)
        np.testing.assert_array_equal(found >> guard, expected)
        assert ((found & (1 << guard) - 1) <= 1).all()

        parts = way.parts(SoftSpoken(4), Forms(), job)
        cost = total([keys_cost(way.secrets(job)), *parts.offline.values(), *parts.online.values()])
        assert two.trace.bits()[0] == cost.sent[1] and one.trace.bits()[0] == cost.sent[0] == 0
        assert (one.clock, two.clock) == cost.clocks()
        hint = way.hint(job, way.load(job, w, "layer", VERSION), "layer", VERSION)
        assert 8 * hint.size == total(parts.install.values()).bits


def test_the_largest_weights_and_operands_are_exact():
    rng = np.random.default_rng(0)
    for sign in (-1, 1):
        job = random_layer(rng, SMALL, full=True, widths=(4, 5))[0]
        w = np.full(SMALL.weight_shape, -8 if sign < 0 else 7)
        x = np.full(SMALL.in_shape, -16 * sign if sign > 0 else 15)
        job = dataclasses.replace(job, guard=1)
        for way in (ByRlwe(first_packing(job), "ahead"), merging_way(job)):
            x0 = rng.integers(0, 1 << job.bits, x.shape).astype(Ring(job.bits).dtype)

            y0, y1, _, _ = run(way, job, w, x, x0)

            found = Ring(job.bits + 1).add(y0, y1).astype(object) >> 1
            np.testing.assert_array_equal(found, slow_conv(x, w, SMALL) % (1 << job.bits))


def small_job(rng, guard=1):
    job, w, x = random_layer(rng, SMALL, full=True, widths=(3, 5))
    return dataclasses.replace(job, guard=guard), w, x


@pytest.mark.parametrize("merging", [False, True])
def test_two_inferences_of_one_input_send_nothing_alike(merging):
    rng = np.random.default_rng(1)
    job, w, x = small_job(rng)
    x0 = np.zeros(x.shape, Ring(job.bits).dtype)
    way = merging_way(job) if merging else ByRlwe(first_packing(job), "ahead")

    one, two = (run(way, job, w, x, x0, key)[2] for key in (1, 2))

    for a, b in zip(one, two, strict=True):  # keys, low bits, high bits
        assert (a == b).mean() < 0.5


@pytest.mark.parametrize("merging", [False, True])
def test_two_equal_images_of_a_batch_send_nothing_alike(merging):
    rng = np.random.default_rng(1)
    job, w, x = small_job(rng)
    m = dataclasses.replace(job.map, images=2)
    job, x = dataclasses.replace(job, map=m), np.stack([x, x])
    x0 = np.zeros(x.shape, Ring(job.bits).dtype)
    way = merging_way(job) if merging else ByRlwe(first_packing(job), "ahead")

    heard = run(way, job, w, x, x0)[2]

    assert way.secrets(job).count == 2
    keys = STATIC.degree * way.secrets(job).count
    for sent in (heard[0][:keys], *heard[1:]):  # keys, low bits, high bits
        one, two = np.split(sent, 2)
        assert (one == two).mean() < 0.5


def test_every_tile_of_an_inference_has_a_secret_of_its_own():
    keys = []

    def client(wire):
        me = party(wire, 1, [], bytes(range(16)))
        keys.append(exchange_keys(me, VERSION.seed, Secrets(4)))
        keys.append(exchange_keys(me, VERSION.seed, Secrets(1)))

    def server(wire):
        me = party(wire, 0, [], bytes(16))
        return [exchange_keys(me, VERSION.seed, Secrets(n)).public for n in (4, 1)]

    rows: Any = run_pair(server, client)[0]
    public = np.concatenate(rows)
    secrets = [secret._s for each in keys for secret in each.secrets]

    assert len({s.tobytes() for s in secrets}) == 5 == len({row.tobytes() for row in public})
    for a, b in zip(secrets, secrets[1:], strict=False):
        assert 0.25 < (a == b).mean() < 0.42


def test_keys_that_merge_hints_are_those_of_their_secrets_and_come_whole():
    wanted, found = Secrets(3, 2, (4, 5)), []

    def client(wire):
        me = party(wire, 1, [], bytes(range(16)))
        found.append(exchange_keys(me, VERSION.seed, wanted))
        return me.messenger

    def server(wire):
        return exchange_keys(party(wire, 0, [], bytes(16)), VERSION.seed, wanted)

    own, messenger = run_pair(server, client)
    keys: Any = own
    assert messenger.trace.bits()[0] == keys_cost(wanted).bits == 8 * 5 * 2048 * (3 + 2 * 9)
    assert len(keys.public) == 3 and [len(each) for each in keys.merging] == [2, 2]
    for secret, mine in zip(found[0].secrets, keys.merging, strict=False):
        for level, key in zip(wanted.levels, mine, strict=True):
            noise = key + product(level.matrix(STATIC, VERSION.seed).polynomials(), secret._s, 40)
            place = 40 - level.depth - level.digit_bits * np.arange(1, level.digits + 1)
            turns = turned(secret._s.astype(np.int64), level.depth) << place[:, None]
            e = STATIC.ring.signed(STATIC.ring.reduce(noise - turns.view(np.uint64)))
            assert np.abs(e).max() <= 21 and len({row.tobytes() for row in e}) == level.digits
    rows = np.concatenate([keys.public, *(key for each in keys.merging for key in each)])
    assert len({row.tobytes() for row in rows}) == 21


@given(st.lists(st.tuples(
    st.integers(0, 5), st.integers(0, 3), st.lists(st.integers(1, 9), max_size=4)
), max_size=4))  # fmt: skip
def test_what_is_enough_for_all_layers_is_enough_for_each_and_no_more(layers):
    every = [Secrets(n + more, n, tuple(digits)) for more, n, digits in layers]
    both = Secrets.of_all(every)

    assert all(each.within(both) for each in every)
    assert Secrets.of_all([both, *every]) == both and Secrets().within(both)
    for name in ("count", "merging"):
        assert getattr(both, name) in {0, *(getattr(each, name) for each in every)}
    for depth, digits in enumerate(both.digits):
        assert digits in {each.digits[depth] for each in every if len(each.digits) > depth}
        fewer = (*both.digits[:depth], digits - 1, *both.digits[depth + 1 :])
        assert not all(each.within(dataclasses.replace(both, digits=fewer)) for each in every)


def test_a_secret_prepares_a_layer_once():
    job, w, x = small_job(np.random.default_rng(2))
    way = ByRlwe(first_packing(job), "ahead")
    server = way.load(job, w, "layer", VERSION)
    hint = way.hint(job, server, "layer", VERSION)

    def client(wire):
        me = party(wire, 1, [], bytes(16))
        keys = exchange_keys(me, VERSION.seed, way.secrets(job))
        way.prepare(me, job, "layer", hint, keys)
        way.prepare(me, job, "other", hint, keys)
        with pytest.raises(InputError, match="once"):
            way.prepare(me, job, "layer", hint, keys)

    def reader(wire):
        me = party(wire, 0, [], bytes(16))
        keys = exchange_keys(me, VERSION.seed, way.secrets(job))
        for name in ("layer", "other"):
            way.prepare(me, job, name, server, keys)

    run_pair(reader, client)


def test_layers_and_versions_have_secrets_of_their_own():
    job, w, _ = small_job(np.random.default_rng(3))
    way = ByRlwe(first_packing(job), "ahead")
    fresh = [Version.fresh() for _ in range(2)]
    loaded = [
        way.load(job, w, name, version)
        for name, version in (("a", VERSION), ("b", VERSION), ("a", fresh[0]), ("a", fresh[1]))
    ]

    rows = [row.tobytes() for each in loaded for row in each.key.u]
    assert len(set(rows)) == len(rows) >= 4
    again = way.load(job, w, "a", VERSION)
    np.testing.assert_array_equal(again.key.u, loaded[0].key.u)
    assert fresh[0].seed != fresh[1].seed and fresh[0].key != fresh[1].key
    streams = [VERSION.randomness(purpose, "a").take(32).tobytes() for purpose in ("u", "e1")]
    assert streams[0] != streams[1]
    assert "array" not in repr(loaded[0]) and repr(VERSION.key) not in repr(VERSION)


def test_a_hint_is_the_same_packed_and_not():
    job, w, _ = small_job(np.random.default_rng(4))
    way = ByRlwe(first_packing(job), "ahead")
    server = way.load(job, w, "layer", VERSION)
    packed = way.hint(job, server, "layer", VERSION)

    own = way._laid(job)[1]
    again = Hint.unpack(own, packed)

    assert again.high.shape == (way._laid(job)[0].hints, STATIC.degree)
    np.testing.assert_array_equal(again.pack(), packed)


def test_any_weights_of_a_width_keep_to_the_public_bound():
    job = small_job(np.random.default_rng(5))[0]
    w = np.full(SMALL.weight_shape, -(1 << job.w_bits - 1))

    assert (w.astype(int) ** 2).sum((0, 1, 2)).max() == bound(job).squares
    ByRlwe(first_packing(job), "ahead").load(job, w, "layer", VERSION)
    with pytest.raises(InputError, match="larger than the layer's widths"):
        ByRlwe(first_packing(job), "ahead").load(job, 2 * w, "layer", VERSION)


def test_a_layer_that_is_too_wide_says_which_sums_would_do():
    m = SMALL
    job = Job(m, 8, operand(m, 40, "signed"), 40, 1)

    why = ByRlwe(None, "ahead").unfit(job, own=False)

    assert why and "cannot be encrypted: no parameters for sums of 40 bits" in why
    assert "sums of at most" in why and "would do" in why


@pytest.mark.parametrize("change, complaint", [
    ({"sent_bits": -2}, "may fail with"),
    ({"hint_bits": -4}, "may fail with"),
    ({"tile": (2, 2)}, "tiles hold a kernel"),
    ({"tile": (1 << 11, 1 << 11)}, "tiles hold a kernel"),
    ({"filters": 4000}, "fit 2048 slots|filters of one group"),
    ({"merged": 2}, "static-hints with 2"),
    ({"key_bits": 20}, "keys merge hints"),
])  # fmt: skip
def test_a_packing_that_is_not_safe_and_exact_is_refused(change, complaint):
    job = small_job(np.random.default_rng(6))[0]
    packing = first_packing(job)
    changed = {
        name: getattr(packing, name) + value if name.endswith("bits") else value
        for name, value in change.items()
    }

    why = ByRlwe(dataclasses.replace(packing, **changed), "ahead").unfit(job, own=False)

    assert why and re.search(complaint, why)


@pytest.mark.parametrize("change, complaint", [
    ({"merged": 1, "key_bits": 0}, "merged-hints with 1"),
    ({"merged": 3}, "one group"),
    ({"merged": 64}, "slots"),
    ({"merged": 4096}, "slots"),
    ({"filters": 2}, "one group"),
    ({"key_bits": 0}, "keys merge hints"),
    ({"key_bits": 2}, "may fail with"),
    ({"key_bits": 41}, "more than there are"),
])  # fmt: skip
def test_a_merging_that_is_not_safe_and_exact_is_refused(change, complaint):
    job = small_job(np.random.default_rng(6))[0]
    way, packing = merging_way(job), merging_way(job).packing
    assert way.unfit(job, own=False) is None and isinstance(packing, Packing)

    changed = dataclasses.replace(way, packing=dataclasses.replace(packing, **change))
    why = changed.unfit(job, own=False)

    assert why and re.search(complaint, why)


def test_what_cannot_be_merged_says_so():
    one = LinearMap((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 3, 1)
    for job in (random_layer(np.random.default_rng(0), one, full=True)[0],
                Job(SMALL, 4, operand(SMALL, 22, "signed"), 22, 1)):  # fmt: skip
        assert ByRlwe(None, "ahead").unfit(job, own=False) is None
        why = ByRlwe(None, "ahead", MERGED_HINTS).unfit(job, own=False)
        assert why and "too few filters, or sums too wide for keys" in why
