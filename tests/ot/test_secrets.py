"""Secrets of the OT layer are fresh and even, every pad and every AES block is used once.

Real ends, real set-up. `tests/views.py` takes for granted what is held here: that requests are uniform
bits, pads are fresh, and nothing is handed out twice.
"""

import collections
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import INLINE, KINDS, STOCKED, dealt_party, extension_pair
from views import LIMIT, neighbours, products, signed_mean

from pqjax.crypto import prg
from pqjax.crypto.prg import Randomness
from pqjax.graph.ir import TensorType
from pqjax.linear import ByOt, Job, LinearMap
from pqjax.ot import base, setup
from pqjax.ot.base import base_receive, base_send
from pqjax.ot.correlations import rows_receive, rows_send
from pqjax.ot.inline import InlineReceiver, InlineSender
from pqjax.ot.softspoken import unpack_columns
from pqjax.ot.source import OtReceiver, OtSender
from pqjax.ot.stocked import Stock, Stocked, StockedReceiver, StockedSender
from pqjax.protocols.compare import draw_triples
from pqjax.protocols.forms import Forms
from pqjax.protocols.nonlinear import relu, relu_cost
from pqjax.protocols.party import make_party, run_pair
from pqjax.ring import Ring, digits
from pqjax.wire.messenger import Messenger

BOTH = pytest.mark.parametrize("source", KINDS)
ROWS = 700


class Session:
    """What one party used in a session: named secrets, rows, pads, keys and blocks of its streams."""

    def __init__(self):
        self.secrets = collections.defaultdict(list)
        self.rows, self.pads = [], []
        self.blocks = collections.defaultdict(list)  # by stream: (first counter, blocks)
        self.keys = {}  # by stream, of those that were ever used
        self.sums, self.frames = [], []  # of trees; sent


def _here(sessions):
    """The session of the running party's thread."""
    return sessions[int(threading.current_thread().name[-1])]


def _watch(patch, sessions):
    """Wraps what makes or uses secrets, so that the running party's session notes it."""
    scalar, expand, send = base._scalar, setup.expand, Messenger.send
    start, encrypt = prg.Stream.__init__, prg.Stream.encrypt

    def noted_scalar(randomness):
        made = scalar(randomness)
        _here(sessions).secrets["scalar"].append(made.to_bytes(32, "big"))
        return made

    def noted_expand(roots, *rest):
        _here(sessions).secrets["root"] += [root.tobytes() for root in roots]
        leaves, sums = expand(roots, *rest)
        _here(sessions).sums += [one.tobytes() for one in sums.reshape(-1, 2)]
        return leaves, sums

    def noted_send(self, payload, *rest, **options):
        _here(sessions).frames.append(np.asarray(payload).tobytes())
        return send(self, payload, *rest, **options)

    def noted_start(self, key):
        start(self, key)
        self.test_key = bytes(key)

    def noted_encrypt(self, blocks, out):
        first = int(np.asarray(blocks).reshape(-1, 2)[0, 0]) if len(blocks) else 0
        _here(sessions).blocks[self].append((first, len(blocks)))
        _here(sessions).keys[self] = self.test_key
        encrypt(self, blocks, out)

    patch.setattr(base, "_scalar", noted_scalar)
    patch.setattr(setup, "expand", noted_expand)
    patch.setattr(Messenger, "send", noted_send)
    patch.setattr(prg.Stream, "__init__", noted_start)
    patch.setattr(prg.Stream, "encrypt", noted_encrypt)
    for end, names in (
        (OtSender, ("pads",)),
        (OtReceiver, ("pads",)),
        (InlineSender, ("accept",)),
        (InlineReceiver, ("offer",)),
        (StockedSender, ("accept", "random_bits")),
        (StockedReceiver, ("offer", "random_bits")),
    ):
        for name in names:
            patch.setattr(end, name, _noted(getattr(end, name), name, sessions))


def _noted(method, name, sessions):
    def call(self, *args):
        got = method(self, *args)
        here = _here(sessions)
        if name == "pads":
            both = got if isinstance(got, tuple) else (got,)
            here.pads += [block.tobytes() for pad in both for block in pad.reshape(-1, 2)]
        elif name in ("accept", "offer"):
            here.rows += [row.tobytes() for row in (got if name == "accept" else got[0])]
        return got

    return call


def _use(party):
    """A little of everything that draws OTs."""
    rots = tuple(n + 3000 for n in relu_cost(STOCKED, ROWS, 6, Forms()).rots)
    if isinstance(party.source, Stocked):
        for _ in range(2):
            party.fill(rots)
    x = np.arange(ROWS, dtype=np.uint8) % 64
    for _ in range(2):
        relu(party, x, 6, Forms())
    draw_triples(party, 31)
    job = Job(LinearMap.pointwise((1, 4), 2, 3), 2, TensorType((1, 4, 2), 3, 0), 6)
    method = ByOt("full-choose-x", "patches")
    for _ in range(2):
        if party.rank == 0:
            method.serve(party, job, method.encode(job, np.ones((2, 3), int)))
        else:
            method.ask(party, job, np.full((1, 4, 2), 5, np.uint8))


def _session(source, patch):
    sessions = (Session(), Session())
    _watch(patch, sessions)

    def side(rank):
        def run(wire):
            party = make_party(wire, rank, source)
            here = sessions[rank]
            here.secrets["delta"].append(party.sender._delta.tobytes())
            if not isinstance(source, Stocked):
                assert isinstance(party.sender, InlineSender)
                here.secrets["kkot"].append(np.packbits(party.sender._wide._secret).tobytes())
            _use(party)
            if isinstance(source, Stocked):
                assert isinstance(party.receiver, StockedReceiver)
                here.secrets["stock choices"].append(
                    np.packbits(party.receiver.stock.draw(2000)[1]).tobytes()
                )
            return party

        return run

    run_pair(side(0), side(1))
    return sessions


@pytest.fixture(scope="module", params=KINDS)
def sessions(request):
    """Two sessions, both parties of each."""
    made = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            made.append(_session(KINDS[request.param], patch))
    return made


def test_every_secret_is_new_in_every_session_and_at_every_party(sessions):
    kinds = [set(party.secrets) for pair in sessions for party in pair]
    assert all(kind == kinds[0] and kind >= {"scalar", "delta"} for kind in kinds)
    for kind in kinds[0]:
        found = [s for pair in sessions for party in pair for s in party.secrets[kind]]

        assert len(set(found)) == len(found), f"a {kind} occurs twice"


def test_the_base_ots_use_a_scalar_for_every_ot(sessions):
    for pair in sessions:
        for party in pair:
            assert len(party.secrets["scalar"]) == 1 + 128


def test_every_secret_is_balanced(sessions):
    for kind in sessions[0][0].secrets:
        text = b"".join(s for pair in sessions for party in pair for s in party.secrets[kind])
        bits = np.unpackbits(np.frombuffer(text, np.uint8)).astype(float) * 2 - 1

        assert abs(bits.mean()) * np.sqrt(bits.size) < LIMIT, kind


def test_secrets_of_a_party_are_made_of_os_entropy():
    keys = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prg.Stream, "__init__", lambda self, key: keys.append(bytes(key)))
        for _ in range(64):
            Randomness()

    bits = np.unpackbits(np.frombuffer(b"".join(keys), np.uint8)).astype(float) * 2 - 1
    assert len(set(keys)) == 64 and abs(bits.mean()) * np.sqrt(bits.size) < LIMIT


def test_no_row_is_used_twice(sessions):
    for pair in sessions:
        for party in pair:
            assert len(party.rows) > 4 * ROWS and len(set(party.rows)) == len(party.rows)


def test_no_pad_is_used_twice(sessions):
    for pair in sessions:
        for party in pair:
            assert len(party.pads) > 4 * ROWS and len(set(party.pads)) == len(party.pads)


def test_no_aes_block_is_used_twice(sessions):
    for pair in sessions:
        for party in pair:
            keys = list(party.keys.values())
            assert len(set(keys)) == len(keys), "two streams have the same key"
            for ranges in party.blocks.values():
                ordered = sorted(r for r in ranges if r[1])
                for (first, n), (following, _) in zip(ordered, ordered[1:], strict=False):
                    assert first + n <= following, "a stream's block is used twice"


def test_no_secret_and_no_key_is_sent_in_the_clear(sessions):
    for pair in sessions:
        for party in pair:
            sent = b"".join(party.frames)
            kinds = {**party.secrets, "sum of a tree": party.sums, "key": party.keys.values()}
            for kind, found in kinds.items():
                assert not [secret for secret in found if secret in sent], f"a {kind} was sent"


def test_streams_of_two_sessions_share_no_key(sessions):
    one, other = ({key for party in pair for key in party.keys.values()} for pair in sessions)

    assert not one & other


def unevenness(columns):
    """How far bits, by column and OT, are from uniform: alone, in pairs, against the next OT's."""
    means = (signed_mean(columns), products(columns), neighbours(columns))
    return max(float(np.abs(m).max()) for m in means) * np.sqrt(columns.shape[1])


def bit_columns(raw, count, n):
    """A request's columns, as bits."""
    packed = unpack_columns(raw, count, n, -(-n // 8))
    return np.unpackbits(packed, axis=1, count=n, bitorder="little")


def dealt_pair(source, rots=(0, 0)):
    """Two parties over no wire: rank 0 sends, rank 1 receives."""
    return (dealt_party(None, rank, rots, source=source) for rank in (0, 1))


M = 4096


@pytest.mark.parametrize("choice", [0, 1])
def test_an_inline_request_hides_its_choices_from_whoever_knows_half_of_the_columns(choice):
    sends, receives = dealt_pair(INLINE)
    choices = np.full(M, choice, np.uint8)
    requests, known = [], []

    for _ in range(2):
        t, raw = receives.receiver.offer(choices)
        q = sends.sender.accept(raw, M)
        requests.append(bit_columns(raw, 128, M))
        known.append(np.unpackbits(q.view(np.uint8), axis=1, bitorder="little").T)
        np.testing.assert_array_equal(q ^ t, choices[:, None] * sends.sender._delta)

    # q is u times delta xor the stream the sender knows: take the request out where it went in.
    delta = np.unpackbits(sends.sender._delta.view(np.uint8), bitorder="little")
    streams = [q ^ (u & delta[:, None]) for q, u in zip(known, requests, strict=True)]
    assert unevenness(np.concatenate([*requests, *streams])) < LIMIT


@pytest.mark.parametrize("choice", [0, 9])
def test_a_wide_request_hides_its_choices_from_whoever_knows_half_of_the_columns(choice):
    sends, receives = dealt_pair(INLINE)
    assert isinstance(sends.sender, InlineSender)
    wide = sends.sender._wide
    requests, known = [], []

    for _ in range(2):
        raw = receives.receiver.offer_pick(np.full(M, choice, np.uint8), 4, 2)[1]
        q = wide.extend(raw, M)
        requests.append(bit_columns(raw, 256, M))
        known.append(np.unpackbits(q.view(np.uint8), axis=1, bitorder="little").T)

    secret = wide._secret.astype(np.uint8)
    streams = [q ^ (u & secret[:, None]) for q, u in zip(known, requests, strict=True)]
    assert unevenness(np.concatenate([*requests, *streams])) < LIMIT


@pytest.mark.parametrize("choice", [0, 1])
def test_a_stocked_request_hides_its_choices(choice):
    sends, receives = dealt_pair(STOCKED, (2 * M, 0))

    raws = [receives.receiver.offer(np.full(M, choice, np.uint8))[1] for _ in range(2)]
    picked = dealt_party(None, 1, (3 * M, 0)).receiver.offer_pick(
        np.full(M, 5 * choice, np.uint8), 3, 1
    )

    columns = [np.unpackbits(raw, bitorder="little") for raw in raws]
    columns += list(np.unpackbits(picked[1], bitorder="little").reshape(3, M))
    assert unevenness(np.stack(columns)) < LIMIT


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_corrections_and_stored_choices_are_uniform(k):
    receiver, sender, _ = extension_pair(k)
    columns = []

    for _ in range(2):
        t, choices, raw = receiver.extend_random(M)
        q = sender.extend_random(raw, M)
        sent = bit_columns(raw, 128 // k - 1, M)
        columns += [choices[None], sent]
        assert len(np.unique(np.concatenate([t, q]), axis=0)) > M

    assert unevenness(np.concatenate(columns)) < LIMIT


@BOTH
@pytest.mark.parametrize("blocks", [1, 3])
def test_pads_of_equal_rows_differ_in_every_row_block_and_call(source, blocks):
    sends, receives = dealt_pair(KINDS[source])
    rows = np.zeros((50, 2), np.uint64)

    for end in (sends.sender, receives.receiver):
        seen = [end.pads(rows, b) for b in (blocks, 1, blocks, 2)]

        made = [p for pads in seen for p in (pads if isinstance(pads, tuple) else (pads,))]
        blocks_of = np.concatenate([p.reshape(-1, 2) for p in made])
        assert len(np.unique(blocks_of, axis=0)) == len(blocks_of)


def test_pads_of_equal_wide_rows_differ_in_every_row_entry_and_call(monkeypatch):
    sends, _ = dealt_pair(INLINE)
    assert isinstance(sends.sender, InlineSender)
    wide = sends.sender._wide
    monkeypatch.setattr(wide, "extend", lambda raw, n: np.zeros((n, 4), np.uint64))
    monkeypatch.setattr(wide, "offsets", lambda m: np.zeros((1 << m, 4), np.uint64))

    unread = np.zeros(0, np.uint8)
    words = np.concatenate([sends.sender.pick_pads(unread, 5, 2, 16) for _ in range(3)])

    entries = words.view(np.uint16)
    assert len(np.unique(entries)) == entries.size  # 60 values of 16 bits, from dealt rows


@BOTH
@pytest.mark.parametrize("m,t", [(1, 4), (2, 4), (4, 2)])
def test_pads_that_were_not_picked_are_uniform_beside_the_picked_one(source, m, t):
    sends, receives = dealt_pair(KINDS[source], (m * M, 0))
    choices = np.full(M, 1, np.uint8)

    got, raw = receives.receiver.offer_pick(choices, m, t)
    words = sends.sender.pick_pads(raw, M, m, t)

    entry = Ring(t << m)
    columns = digits(words.astype(entry.dtype), entry.bits, 1)
    np.testing.assert_array_equal((words >> np.uint64(t)) & np.uint64((1 << t) - 1), got)
    if source == "inline" or m == 1:
        assert unevenness(columns) < LIMIT
    else:  # a stored pad is the XOR of one key a bit, the same four keys for all of its entries
        assert unevenness(columns[: 2 * t]) < LIMIT


@pytest.mark.parametrize("source", KINDS)
def test_both_messages_pads_are_unrelated(source):
    sends, receives = dealt_pair(KINDS[source], (M, 0))
    rows, raw = receives.receiver.offer(np.zeros(M, np.uint8))

    zero, one = sends.sender.pads(sends.sender.accept(raw, M), 1)

    bits = np.unpackbits(np.concatenate([zero, one], axis=1).view(np.uint8).reshape(M, -1), axis=1)
    np.testing.assert_array_equal(zero, receives.receiver.pads(rows, 1))
    assert unevenness(bits.T) < LIMIT


def test_a_base_ot_point_says_nothing_of_its_choice():
    seed = bytes(range(16))
    points = []
    for choices in (np.zeros(6, np.uint8), np.ones(6, np.uint8)):
        said = []

        def sender(wire, said=said):
            messenger = Messenger(wire, 0)
            a = base.GENERATOR * 5
            messenger.send(np.frombuffer(base._encode(a), np.uint8), 512)
            said.append(messenger.receive(6 * 512).tobytes())

        run_pair(
            sender, lambda wire, c=choices: base_receive(Messenger(wire, 1), Randomness(seed), c)
        )
        points.append([base._decode(said[0][64 * i : 64 * i + 64], "test") for i in range(6)])

    # Under equal scalars choice 1 is A more: either point is as good as the other, all differ.
    for zero, one in zip(*points, strict=True):
        assert zero + base.GENERATOR * 5 == one
    assert len({base._encode(p) for both in points for p in both}) == 12


def test_base_ot_senders_have_points_of_their_own():
    pairs = []
    for _ in range(2):
        keys, _ = run_pair(
            lambda wire: base_send(Messenger(wire, 0), Randomness(), 3),
            lambda wire: base_receive(Messenger(wire, 1), Randomness(), np.zeros(3, np.uint8)),
        )
        pairs += [key for pair in (keys[0] if isinstance(keys, tuple) else keys) for key in pair]

    assert len(set(pairs)) == 12


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=8), st.lists(st.integers(0, 12), max_size=12))
def test_a_stock_hands_out_every_row_once_however_it_is_filled_and_drawn(fills, draws):
    stock, rows = Stock(), np.arange(2 * sum(fills), dtype=np.uint64).reshape(-1, 2)
    bits = (rows[:, 0] % 3 == 0).astype(np.uint8)
    at = 0
    for n in fills:
        stock.put([(rows[at : at + n], bits[at : at + n])])
        at += n

    got, got_bits = [rows[:0]], [bits[:0]]
    for n in draws:
        if n <= stock.left:
            part, part_bits = stock.draw(n)
            got.append(part)
            got_bits.append(part_bits)

    drawn = np.concatenate(got)
    np.testing.assert_array_equal(drawn, rows[: len(drawn)])
    np.testing.assert_array_equal(np.concatenate(got_bits), bits[: len(drawn)])
    assert stock.left == len(rows) - len(drawn)


@BOTH
def test_rows_that_serve_many_messages_give_each_its_own_pads(source):
    chosen = KINDS[source]
    choices = np.arange(40, dtype=np.uint8) % 2

    def side(rank):
        def run(wire):
            party = dealt_party(wire, rank, (40, 0), source=chosen)
            if rank == 0:
                rows = rows_send(party, 40)
                return [party.sender.pads(rows, 2) for _ in range(3)]
            rows = rows_receive(party, choices)
            return [party.receiver.pads(rows, 2) for _ in range(3)]

        return run

    sent, got = run_pair(side(0), side(1))

    for (zero, one), key in zip(sent, got, strict=True):
        np.testing.assert_array_equal(key, np.where(choices[:, None, None] != 0, one, zero))
    every = np.concatenate([p.reshape(-1, 2) for pair in sent for p in pair])
    assert len(np.unique(every, axis=0)) == len(every)
