from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import INLINE, STOCKED, extension_pair, of_rank, run_protocol

from pqjax.crypto.crhash import Hash
from pqjax.crypto.prg import Randomness
from pqjax.errors import Drift, InputError, OutOfCorrelations
from pqjax.ot.base import base_cost, base_receive, base_send
from pqjax.ot.correlations import (
    Picks,
    Tables,
    chosen_both,
    chosen_both_cost,
    cot_both,
    cot_both_cost,
    cot_cost,
    cot_receive,
    cot_send,
    pick_cost,
    pick_receive,
    pick_send,
)
from pqjax.ot.kkot import WideReceiver, WideSender, codewords
from pqjax.ot.pprf import expand, puncture
from pqjax.ot.stocked import SoftSpoken, Stock, Stocked, StockedReceiver, StockedSender
from pqjax.ot.triples import draw_products, products_cost, unpack_planes
from pqjax.protocols.compare import draw_triples, triples_cost
from pqjax.protocols.party import make_party, run_pair
from pqjax.ring import Ring
from pqjax.wire.messenger import Messenger

BOTH = pytest.mark.parametrize("source", [INLINE, STOCKED], ids=["inline", "stocked"])


def test_base_ots_give_the_receiver_one_of_two_keys():
    choices = np.array([0, 1, 1, 0, 1], np.uint8)

    (pairs, said), (got, heard) = run_pair(
        lambda wire: base_send(Messenger(wire, 0), Randomness(), 5),
        lambda wire: base_receive(Messenger(wire, 1), Randomness(), choices),
    )

    assert said == heard
    assert got == [pair[c] for pair, c in zip(pairs, choices, strict=True)]
    assert len({key for pair in pairs for key in pair}) == 10
    assert base_cost(0, 5).sent == (512, 5 * 512)


def test_base_ot_refuses_a_point_off_the_curve():
    def cheat(wire):
        messenger = Messenger(wire, 1)
        messenger.receive(512)
        messenger.send(np.ones(64 * 2, np.uint8), 512 * 2)

    with pytest.raises(Drift, match="P-256"):
        run_pair(lambda wire: base_send(Messenger(wire, 0), Randomness(), 2), cheat)


@pytest.mark.parametrize("cheater", ["sender", "receiver"])
def test_base_ot_refuses_the_identity(cheater):
    def sender(wire):
        Messenger(wire, 0).send(np.zeros(64, np.uint8), 512)

    def receiver(wire):
        messenger = Messenger(wire, 1)
        messenger.receive(512)
        messenger.send(np.zeros(64 * 2, np.uint8), 512 * 2)

    honest = (
        lambda wire: base_send(Messenger(wire, 0), Randomness(), 2),
        lambda wire: base_receive(Messenger(wire, 1), Randomness(), np.zeros(2, np.uint8)),
    )
    sides = (sender, honest[1]) if cheater == "sender" else (honest[0], receiver)

    with pytest.raises(Drift, match="identity"):
        run_pair(*sides)


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_punctured_tree_has_all_leaves_but_one(k):
    rng = np.random.default_rng(k)
    roots = rng.integers(0, 2**64, (5, 2), dtype=np.uint64)
    path = rng.integers(0, 2, (5, k))

    leaves, sums = expand(roots, k, Hash(b"", 1))
    siblings = sums[np.arange(5)[:, None], np.arange(k), 1 - path]
    known = puncture(path, siblings, Hash(b"", 1))

    missing = path @ (1 << np.arange(k)[::-1])
    for tree in range(5):
        same = (known[tree] == leaves[tree]).all(1)
        assert same.sum() == (1 << k) - 1 and not same[missing[tree]]


@pytest.mark.parametrize("k", [1, 2, 4, 8])
@pytest.mark.parametrize("n", [1, 7, 8, 127, 128, 129, 1000])
def test_extended_rows_are_correlated(k, n):
    receiver, sender, delta = extension_pair(k)
    choices = np.random.default_rng(n).integers(0, 2, n).astype(np.uint8)

    t, raw = receiver.extend(choices)
    q = sender.extend(raw, n)
    t2, drawn, raw2 = receiver.extend_random(n)
    q2 = sender.extend_random(raw2, n)

    assert raw.size == -(-128 // k * n // 8) and raw2.size == -(-(128 // k - 1) * n // 8)
    np.testing.assert_array_equal(q ^ t, choices[:, None] * delta)
    np.testing.assert_array_equal(q2 ^ t2, drawn[:, None] * delta)
    assert not (t == t2).all()


@pytest.mark.parametrize("n,m", [(1, 4), (9, 2), (300, 4), (129, 8)])
def test_wide_rows_differ_by_codewords(n, m):
    rng = np.random.default_rng(n)
    keys = [(rng.bytes(16), rng.bytes(16)) for _ in range(256)]
    secret = rng.integers(0, 2, 256).astype(np.uint8)
    receiver = WideReceiver(keys)
    sender = WideSender([pair[s] for pair, s in zip(keys, secret, strict=True)], secret)
    choices = rng.integers(0, 1 << m, n).astype(np.uint8)

    t, raw = receiver.extend(choices, m)
    q = sender.extend(raw, n)

    np.testing.assert_array_equal(q ^ t, sender.offsets(m)[choices])
    distances = (codewords(m)[:, None] != codewords(m)[None]).sum(2)
    assert set(np.unique(distances)) <= {0, 128} and raw.size == 32 * n


@BOTH
@pytest.mark.parametrize("bits", [1, 7, 8, 13, 16, 31, 37, 64])
@pytest.mark.parametrize("width", [1, 5])
def test_correlated_ot_shares_the_product(source, bits, width):
    rng = np.random.default_rng(bits)
    ring, n = Ring(bits), 77
    x = ring.reduce(rng.integers(0, 2**64, (n, width), dtype=np.uint64))
    c = rng.integers(0, 2, n).astype(np.uint8)

    y = run_protocol(
        of_rank(lambda p, x: cot_send(p, x, ring), lambda p, c: cot_receive(p, c, ring, width)),
        (x,), (c,), source, cot_cost(source, 0, n, ring, width),
    )  # fmt: skip

    np.testing.assert_array_equal(ring.add(*y), ring.mul(x, c[:, None].astype(ring.dtype)))


@BOTH
@settings(max_examples=15, deadline=None)
@given(bits=st.integers(1, 64), n=st.integers(0, 40), seed=st.integers(0, 99))
def test_both_directions_at_once(source, bits, n, seed):
    rng = np.random.default_rng(seed)
    ring = Ring(bits)
    x = [ring.reduce(rng.integers(0, 2**64, n, dtype=np.uint64)) for _ in range(4)]
    c = [rng.integers(0, 2, n).astype(np.uint8) for _ in range(2)]

    y = run_protocol(
        lambda p, x, c: cot_both(p, x, c, ring), (x[0], c[0]), (x[1], c[1]), source,
        cot_both_cost(source, n, ring),
    )  # fmt: skip
    got = run_protocol(
        lambda p, a, b, c: chosen_both(p, a, b, c, ring), (x[0], x[1], c[0]), (x[2], x[3], c[1]),
        source, chosen_both_cost(source, n, ring),
    )  # fmt: skip

    wanted = ring.add(
        ring.mul(x[0], c[1].astype(ring.dtype)), ring.mul(x[1], c[0].astype(ring.dtype))
    )
    np.testing.assert_array_equal(ring.add(*y), wanted)
    np.testing.assert_array_equal(got[0], np.where(c[0], x[3], x[2]))
    np.testing.assert_array_equal(got[1], np.where(c[1], x[1], x[0]))


@BOTH
@pytest.mark.parametrize("m,t", [(1, 1), (1, 8), (2, 1), (2, 3), (3, 2), (4, 1), (4, 2), (4, 4)])
def test_pick_gives_one_entry_of_every_table(source, m, t):
    rng = np.random.default_rng(m * 10 + t)
    top = np.uint64((1 << (t << m)) - 1)
    tables = rng.integers(0, 2**64, 500, dtype=np.uint64) & top
    choices = rng.integers(0, 1 << m, 500).astype(np.uint8)

    ((share,), (got,)) = run_protocol(
        of_rank(
            lambda p, w: pick_send(p, Tables(w, m, t)), lambda p, c: pick_receive(p, Picks(c, m, t))
        ),
        (tables,), (choices,), source, pick_cost(source, 0, (500, m, t)),
    )  # fmt: skip

    entry = tables >> (choices.astype(np.uint64) * np.uint64(t))
    np.testing.assert_array_equal(got ^ share, entry & np.uint64((1 << t) - 1))


@BOTH
def test_batches_of_tables_of_several_kinds_share_their_flows(source):
    rng, kinds = np.random.default_rng(3), [(1, 1), (2, 3), (4, 2)]
    tables = [rng.integers(0, 1 << (t << m), 70 + m, dtype=np.uint64) for m, t in kinds]
    choices = [rng.integers(0, 1 << m, 70 + m).astype(np.uint8) for m, _ in kinds]
    cost = pick_cost(source, 0, *((70 + m, m, t) for m, t in kinds))

    shares = run_protocol(
        of_rank(
            lambda p: pick_send(p, *(Tables(w, *k) for w, k in zip(tables, kinds, strict=True))),
            lambda p: pick_receive(p, *(Picks(c, *k) for c, k in zip(choices, kinds, strict=True))),
        ),
        (), (), source, cost,
    )  # fmt: skip

    assert cost.flows == 2
    for (_, t), words, chosen, *both in zip(kinds, tables, choices, *shares, strict=True):
        entry = words >> (chosen.astype(np.uint64) * np.uint64(t)) & np.uint64((1 << t) - 1)
        np.testing.assert_array_equal(both[0] ^ both[1], entry)


@pytest.mark.parametrize("n", [1, 8, 501])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_products_out_of_the_store_multiply(n, width):
    y0, y1 = run_protocol(
        lambda p: draw_products(p, 5, n, width), (), (), STOCKED, products_cost(5 * n)
    )

    a, b, c = (unpack_planes(x ^ y, n) for x, y in zip(y0, y1, strict=True))
    assert a.shape == (5, n) and b.shape == c.shape == (width, 5, n)
    np.testing.assert_array_equal(a & b, c)
    if n > 100:
        assert 0.4 < a.mean() < 0.6 and (abs(b.mean((1, 2)) - 0.5) < 0.1).all()


@BOTH
@pytest.mark.parametrize("n", [1, 2, 501])
def test_triples_multiply(source, n):
    y0, y1 = run_protocol(lambda p: draw_triples(p, n), (), (), source, triples_cost(source, n))

    a, b, c = y0 ^ y1
    np.testing.assert_array_equal(a & b, c)
    if n > 100:
        assert 0.35 < a.mean() < 0.65 and 0.35 < b.mean() < 0.65


@pytest.mark.parametrize("source", [INLINE, *(SoftSpoken(k) for k in (1, 2, 4, 8))])
def test_set_up_and_stocking_cost_what_they_say(source):
    rots = (300, 70_000) if isinstance(source, Stocked) else (0, 0)

    def side(rank):
        def run(wire):
            party = make_party(wire, rank, source)
            setup = party.messenger.trace.entries[-1]
            with party.messenger.layer("offline", "x"):
                party.fill(rots)
            return setup, party.messenger.trace.entries[-1], party

        return run

    (setup0, stock0, party0), (_, _, party1) = run_pair(side(0), side(1))

    filled, left = source.fill((0, 0), rots)
    assert (setup0.sent_bits, setup0.received_bits) == source.set_up_cost().sent
    clocks = (party0.messenger.clock, party1.messenger.clock)
    assert clocks == (source.set_up_cost() + filled).clocks()
    assert (stock0.sent_bits, stock0.received_bits) == filled.sent
    assert left == party0.pool == party1.pool == (0, 0)
    if isinstance(source, Stocked):
        for n, sends, takes in ((300, party0, party1), (70_000, party1, party0)):
            sender, receiver = sends.sender, takes.receiver
            assert isinstance(sender, StockedSender) and isinstance(receiver, StockedReceiver)
            zero, one = sender.random_bits(n, 8)
            bit, key = receiver.random_bits(n, 8)
            np.testing.assert_array_equal(key, np.where(bit, one, zero))
            assert (zero != one).mean() > 0.9


def test_stock_hands_everything_out_once_and_then_says_so():
    stock = Stock()
    rows = np.arange(20, dtype=np.uint64).reshape(10, 2)
    bits = np.zeros(10, np.uint8)
    stock.put([(rows[:4], bits[:4])])
    stock.put([(rows[4:], bits[4:])])

    first, second = stock.draw(6)[0], stock.draw(4)[0]

    np.testing.assert_array_equal(np.concatenate([first, second]), rows)
    with pytest.raises(OutOfCorrelations, match="1 random OTs are needed and 0 are left"):
        stock.draw(1)


def test_unusable_parameters_are_refused():
    with pytest.raises(InputError, match="k must be one of"):
        SoftSpoken(3)
    nobody: Any = None
    for m, t in ((0, 1), (5, 1), (4, 5)):
        with pytest.raises(InputError, match="1-of-2"):
            pick_send(nobody, Tables(np.zeros(1, np.uint64), m, t))


@BOTH
def test_every_direction_of_every_session_has_a_hash_of_its_own(source):
    seen, domains = set(), set()
    for _ in range(2):
        parties = run_pair(lambda w: make_party(w, 0, source), lambda w: make_party(w, 1, source))
        for end, other in (parties, parties[::-1]):
            _, tweaks = next(end.sender._hash.take(1, 1))
            _, same = next(other.receiver._hash.take(1, 1))
            blocks = [bytes(16), bytes(16)]
            seen.add(
                tuple(t.cipher.encrypt(b) for t, b in zip((tweaks, same), blocks, strict=True))
            )
            domains.add((tweaks.domain, same.domain))

    assert len(seen) == 4 and all(one == two for one, two in seen)
    assert len(domains) == 2 and all(one == two for one, two in domains)
