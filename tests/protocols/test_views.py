"""What a party sees does not depend on the other's secret; and the checker notices when it does.

Every protocol runs many times at once on a tiny ring, one element a row. A received message, seen as
bits per row, must have the same distribution for two secrets: the share of ones of every bit and of
every pair of neighbouring bits. The negative controls take a mask away or use a pad twice.
"""

import numpy as np
import pytest
from pairs import INLINE, STOCKED, dealt_party, shares

from pqjax.crypto.prg import Randomness
from pqjax.ot.correlations import (
    chosen_receive,
    chosen_send,
    cot_receive,
    cot_send,
    pick_receive,
    pick_send,
)
from pqjax.ot.endpoint import OtSender
from pqjax.protocols.compare import less_than
from pqjax.protocols.nonlinear import relu
from pqjax.protocols.party import make_party, run_pair
from pqjax.protocols.resize import Forms, extend, select, truncate_reduce
from pqjax.ring import Ring

N = 8192  # a share of ones then has a standard deviation of 0.0055
LIMIT = 0.04  # seven standard deviations
LIMIT_PER_BIT = 0.06  # of a difference: standard deviation 0.0078, many statistics
ROTS = (40 * N, 4 * N)


class Recorder:
    """A wire that remembers all it received."""

    def __init__(self, wire):
        self._wire, self.log = wire, []

    def __getattr__(self, name):
        return getattr(self._wire, name)

    def expect(self, nbytes, where):
        ticket, log = self._wire.expect(nbytes, where), self.log

        class Recorded:
            def wait(self):
                payload, clock = ticket.wait()
                log.append((where, np.array(payload)))
                return payload, clock

        return Recorded()


def views(function, args0, args1, scheme):
    """Everything that each party received while the protocol ran."""
    recorders = {}
    seed = int.from_bytes(Randomness().take(4).tobytes(), "big")  # the dealer's, new every time

    def side(rank, args):
        def run(wire):
            wire = recorders[rank] = Recorder(wire)
            if scheme.stocked:
                party = dealt_party(wire, rank, ROTS, seed)
            else:
                party = make_party(wire, rank, scheme)
            wire.log.clear()
            return function(party, *args)

        return run

    run_pair(side(0, args0), side(1, args1))
    return [recorders[rank].log for rank in (0, 1)]


def distance(one, other):
    """The largest difference in any bit's, or neighbouring bits', share of ones."""
    assert [(w, p.size) for w, p in one] == [(w, p.size) for w, p in other], "sizes or order differ"
    worst = 0.0
    for (_, a), (_, b) in zip(one, other, strict=True):
        rows = [np.unpackbits(p, bitorder="little") for p in (a, b)]
        # Messages hold N equal rows, whichever way they are packed; compare sections of N bits.
        sections = [r[: r.size // N * N].reshape(-1, N) for r in rows]
        for x, y in zip(*sections, strict=True):
            worst = max(worst, abs(x.mean() - y.mean()))
        for x, y in zip(sections[0][1:] ^ sections[0][:-1], sections[1][1:] ^ sections[1][:-1],
                        strict=True):  # fmt: skip
            worst = max(worst, abs(x.mean() - y.mean()))
    return worst


def compare(function, secrets, scheme, who):
    """Distance of rank `who`'s views for two values of the other party's secret."""
    first, second = (views(function, *args, scheme)[who] for args in secrets)
    return distance(first, second)


def shared(x):
    """Shares of a constant 4-bit secret, both fresh: what any protocol is given."""
    x0, x1 = shares(np.random.default_rng(), np.full(N, x), 4)
    return (x0,), (x1,)


SHARED = {
    "relu": lambda p, x: relu(p, x, 4, Forms()),
    "relu, chosen": lambda p, x: relu(p, x, 4, Forms("choice", True)),
    "extend": lambda p, x: extend(p, x, 4, 7),
    "truncate": lambda p, x: truncate_reduce(p, x, 4, 2),
    "mux": lambda p, x: select(p, x, (x & 1).astype(np.uint8), Ring(4)),
}
BOTH = pytest.mark.parametrize("scheme", [INLINE, STOCKED], ids=["inline", "stocked"])


@BOTH
@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("who", [0, 1])
def test_views_of_protocols_on_shares_do_not_depend_on_the_value(scheme, name, who):
    assert compare(SHARED[name], (shared(3), shared(-8)), scheme, who) < LIMIT


def constant(v, bits=4):
    return (np.full(N, v, Ring(bits).dtype),)


def halves(send, receive):
    return lambda p, *args: (send if p.rank == 0 else receive)(p, *args)


RING = Ring(4)
OTS = {
    "cot": halves(lambda p, x: cot_send(p, x, RING), lambda p, c: cot_receive(p, c, RING)),
    "chosen": halves(
        lambda p, x: chosen_send(p, x, RING.add(x, x), RING),
        lambda p, c: chosen_receive(p, c, RING),
    ),
    "pick": halves(
        lambda p, x: pick_send(p, x.astype(np.uint64) * np.uint64(0x1111), 4, 1),
        lambda p, c: pick_receive(p, c, 4, 1),
    ),
}


@BOTH
@pytest.mark.parametrize("name", ["cot", "chosen"])
def test_the_sender_does_not_see_the_choice(scheme, name):
    secrets = [(constant(5), constant(c, 1)) for c in (0, 1)]

    assert compare(OTS[name], secrets, scheme, 0) < LIMIT


@BOTH
@pytest.mark.parametrize("name", ["cot", "pick"])
def test_the_receiver_does_not_see_what_it_did_not_choose(scheme, name):
    choice = constant(0, 1)
    # Entry 0 of both tables is 0, the rest differs; of a correlation the receiver sees only its key.
    secrets = [(constant(x), choice) for x in (0, 14)]

    assert compare(OTS[name], secrets, scheme, 1) < LIMIT


@BOTH
def test_comparison_hides_both_operands(scheme):
    def run(p, x):
        return less_than(p, x, 4)

    assert compare(run, [(constant(a), constant(7)) for a in (0, 15)], scheme, 1) < LIMIT
    assert compare(run, [(constant(7), constant(b)) for b in (0, 15)], scheme, 0) < LIMIT


def test_output_shares_are_uniform():
    for x in (0, 3, -8):
        args = shared(x)
        for scheme in (INLINE, STOCKED):

            def side(rank, scheme=scheme, args=args):
                def run(wire):
                    made = dealt_party(wire, rank, ROTS) if scheme.stocked else make_party(
                        wire, rank, scheme
                    )  # fmt: skip
                    return relu(made, args[rank][0], 4, Forms())

                return run

            for share in run_pair(side(0), side(1)):
                counts = np.bincount(share, minlength=16)
                assert abs(counts / N - 1 / 16).max() < 0.02  # seven standard deviations


def test_the_checker_notices_a_missing_mask(monkeypatch):
    monkeypatch.setattr(Randomness, "bits", lambda self, n: np.zeros(n, np.uint8))
    monkeypatch.setattr(
        OtSender,
        "pads",
        lambda self, rows, blocks: (np.zeros((len(rows), blocks, 2), np.uint64),) * 2,
    )

    secrets = [(constant(x), constant(0, 1)) for x in (0, 14)]

    assert compare(OTS["cot"], secrets, STOCKED, 1) > 0.5


def test_the_checker_notices_choices_sent_in_the_clear(monkeypatch):
    from pqjax.ot.endpoint import Stock

    draw = Stock.draw

    def unmasked(self, n):
        rows, bits = draw(self, n)
        return rows, np.zeros_like(bits)

    monkeypatch.setattr(Stock, "draw", unmasked)

    secrets = [(constant(5), constant(c, 1)) for c in (0, 1)]

    assert compare(OTS["cot"], secrets, STOCKED, 0) > 0.5


def statistics(payload):
    """Shares of ones by place in the message, alone and XORed with the next place's.

    Packing is planar, so a column here may mix some bits of an element; no bit is left out.
    """
    bits = np.unpackbits(payload, bitorder="little")
    bits = bits[: bits.size // N * N]
    found = []
    for rows in (bits.reshape(N, -1), bits.reshape(-1, N).T):
        found += [rows.mean(0), (rows[1:] ^ rows[:-1]).mean(0)]
    return np.concatenate(found)


def distance_per_bit(function, secrets, scheme, who):
    """The largest difference of any statistic of rank `who`'s views of two secrets."""
    one, other = (views(function, *args, scheme)[who] for args in secrets)
    assert [(w, p.size) for w, p in one] == [(w, p.size) for w, p in other], "sizes or order differ"
    return max(
        np.abs(statistics(a) - statistics(b)).max(initial=0.0)
        for (_, a), (_, b) in zip(one, other, strict=True)
    )


def alternating():
    return (np.tile(np.array([0, 14], np.uint8), N // 2),)


@BOTH
@pytest.mark.parametrize("name", SHARED)
def test_no_bit_of_a_view_depends_on_the_shared_value(scheme, name):
    for who in (0, 1):
        assert distance_per_bit(SHARED[name], (shared(5), shared(-6)), scheme, who) < LIMIT_PER_BIT


@BOTH
def test_no_bit_of_a_view_depends_on_what_changes_from_row_to_row(scheme):
    secrets = [(x, constant(0, 1)) for x in (alternating(), constant(0))]

    assert distance_per_bit(OTS["cot"], secrets, scheme, 1) < LIMIT_PER_BIT


def test_the_checker_notices_a_pad_reused_in_every_row(monkeypatch):
    pads = OtSender.pads

    def reused(self, rows, blocks):
        return tuple(np.repeat(p[:1], len(rows), axis=0) for p in pads(self, rows, blocks))

    monkeypatch.setattr(OtSender, "pads", reused)
    secrets = [(x, constant(0, 1)) for x in (alternating(), constant(0))]

    # Every other row has the bit set, so its share of ones moves by one half.
    assert distance_per_bit(OTS["cot"], secrets, STOCKED, 1) > 0.4


def test_the_checker_notices_relu_without_masks(monkeypatch):
    def none(self, rows, blocks):
        return (np.zeros((len(rows), blocks, 2), np.uint64),) * 2

    monkeypatch.setattr(OtSender, "pads", none)

    def run(p, x):
        return relu(p, x, 4, Forms())

    # The other party's share itself is the secret: it is in the clear without pads.
    secrets = [(constant(x), constant(0)) for x in (5, 10)]

    assert distance_per_bit(run, secrets, STOCKED, 1) > 0.3
