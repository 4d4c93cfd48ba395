"""Both parties of a protocol in one process, with the books checked, and a dealer for tests alone."""

import numpy as np

from pqjax.crypto.crhash import Hash
from pqjax.crypto.prg import Randomness
from pqjax.ot.endpoint import OtReceiver, OtSender, Scheme
from pqjax.ot.softspoken import ExtensionReceiver, ExtensionSender
from pqjax.protocols.party import Party, make_party, run_pair
from pqjax.ring import Ring
from pqjax.wire.messenger import Messenger

INLINE = Scheme(stocked=False)
STOCKED = Scheme(stocked=True, k=4)


def dealt_party(wire, rank, rots, seed=7):
    """A party whose stores a trusted dealer has filled; it never extends anything."""
    rng = np.random.default_rng(seed)
    ends = {}
    for sender, n in enumerate(rots):
        delta = rng.integers(0, 2**64, 2, dtype=np.uint64)
        t = rng.integers(0, 2**64, (n, 2), dtype=np.uint64)
        c = rng.integers(0, 2, n).astype(np.uint8)
        if rank == sender:
            ends["sender"] = OtSender(STOCKED, delta, None, Hash(b"dealt", 2 * sender))
            ends["sender"].stock.fill(t ^ (np.uint64(0) - c.astype(np.uint64))[:, None] & delta)
        else:
            ends["receiver"] = OtReceiver(STOCKED, None, Hash(b"dealt", 2 * sender))
            ends["receiver"].stock.fill(t, c)
    return Party(Messenger(wire, rank), Randomness(), STOCKED, **ends)


def run_protocol(function, args0, args1, scheme, cost):
    """Runs function(party, *args) at both sides; metered bits, clocks and stores must be as priced.

    A stocked scheme is dealt its random OTs, an inline one runs real base OTs.
    """

    def side(rank, args):
        def run(wire):
            if scheme.stocked:
                party = dealt_party(wire, rank, cost.rots)
            else:
                party = make_party(wire, rank, scheme)
            before = party.messenger.clock
            with party.messenger.layer("online", "test") as _:
                result = function(party, *args)
            entry = party.messenger.trace.entries[-1]
            left = (party.sender.stock.left, party.receiver.stock.left)
            return result, (entry.sent_bits, entry.received_bits), left, before, entry.clock_after

        return run

    (y0, sent0, left0, begin0, end0), (y1, sent1, left1, begin1, end1) = run_pair(
        side(0, args0), side(1, args1)
    )
    assert sent0 == cost.sent, "bits metered at rank 0 are not those predicted"
    assert sent1 == cost.sent[::-1], "bits metered at rank 1 are not those predicted"
    assert left0 == left1 == (0, 0), "random OTs are left over"
    assert (end0, end1) == cost.clocks((begin0, begin1)), "flows are not those predicted"
    return y0, y1


def shares(rng, x, bits):
    """Additive shares of integers x in Z_2^bits."""
    ring = Ring(bits)
    mask = ring.reduce(rng.integers(0, 2**64, np.shape(x), dtype=np.uint64))
    return ring.share(ring.reduce(np.asarray(x)), mask)


def every_pair(bits):
    """Every value of Z_2^bits with every way of sharing it: value, x0, x1."""
    ring = Ring(bits)
    x0, x1 = (ring.reduce(g.reshape(-1)) for g in np.mgrid[0 : 1 << bits, 0 : 1 << bits])
    return ring.add(x0, x1), x0, x1


def of_rank(rank0, rank1):
    """A protocol whose halves differ: the right one for each party."""
    return lambda party, *args: (rank0 if party.rank == 0 else rank1)(party, *args)


def extension_pair(k, seed=3):
    rng = np.random.default_rng(seed)
    delta = rng.integers(0, 2, 128).astype(np.uint8)
    leaves = rng.integers(0, 2**64, (128 // k, 1 << k, 2), dtype=np.uint64)
    partial = leaves.copy()
    partial[np.arange(128 // k), delta.reshape(-1, k) @ (1 << np.arange(k))] = 0
    words = np.packbits(delta, bitorder="little").view(np.uint64)
    return ExtensionReceiver(k, leaves), ExtensionSender(k, partial, delta), words
