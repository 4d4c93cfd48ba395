"""Both parties of a protocol in one process, with the books checked, and a dealer for tests alone."""

import contextlib
import copy
import functools
import hashlib
import threading
import typing
from collections import Counter

import numpy as np

from pqjax.crypto.crhash import Hash, Tweaks
from pqjax.crypto.prg import Randomness
from pqjax.ot.inline import Inline, InlineReceiver, InlineSender
from pqjax.ot.kkot import WideReceiver, WideSender
from pqjax.ot.softspoken import ExtensionReceiver, ExtensionSender
from pqjax.ot.stocked import SoftSpoken, Stocked, StockedReceiver, StockedSender
from pqjax.ot.tuning import Tuning
from pqjax.protocols.party import Party, run_pair
from pqjax.ring import Ring
from pqjax.wire.channel import as_bytes
from pqjax.wire.messenger import Messenger

INLINE = Inline()
STOCKED = SoftSpoken(4)
TUNING = Tuning()
KINDS = {"inline": INLINE, "stocked": STOCKED}
WORD = Ring(64)


def _hash(seed):
    """The hash of a dealt direction, one for each end."""
    return Hash(b"dealt", 2 * (seed % 2))


def _dealer(seed):
    """The dealer's randomness: AES, so that recorded digests outlive numpy's generators."""
    return Randomness(seed.to_bytes(16, "little"))


def extension_pair(k, seed=3):
    """Both ends of an extension, dealt, and delta as two words."""
    dealer = _dealer(seed)
    delta = dealer.bits(128)
    leaves = dealer.elements(256 // k << k, WORD).reshape(128 // k, 1 << k, 2)
    partial = leaves.copy()
    partial[np.arange(128 // k), delta.reshape(-1, k) @ (1 << np.arange(k))] = 0
    words = np.packbits(delta, bitorder="little").view(np.uint64)
    return ExtensionReceiver(k, leaves), ExtensionSender(k, partial, delta), words


def _dealt_stock(n, seed):
    """Both ends of a direction with n random OTs in store; neither can extend anything."""
    dealer = _dealer(seed)
    delta, t = dealer.elements(2, WORD), dealer.elements(2 * n, WORD).reshape(n, 2)
    c = dealer.bits(n)
    sender, receiver = StockedSender(delta, _hash(seed)), StockedReceiver(_hash(seed))
    q = t ^ (np.uint64(0) - c.astype(np.uint64))[:, None] & delta
    sender.stock.put([(q, np.zeros(n, np.uint8))])
    receiver.stock.put([(t, c)])
    return sender, receiver


@functools.cache
def _dealt_ends(seed):
    """Delta, and what both ends of a direction extend with, never drawn from: `_own` copies it.

    It is hundreds of ciphers, whose making takes longer than most protocols.
    """
    extends, follows, delta = extension_pair(1, seed)
    dealer = _dealer(seed + (1 << 64))
    keys = [(dealer.block(), dealer.block()) for _ in range(256)]
    secret = dealer.bits(256)
    wide = WideSender([pair[s] for pair, s in zip(keys, secret, strict=True)], secret)
    return delta, (follows, wide), (extends, WideReceiver(keys))


def _own(end) -> typing.Any:
    """Another end at the same place of the same streams: the ciphers themselves have no state."""
    made = copy.copy(end)
    vars(made).update({name: copy.copy(value) for name, value in vars(end).items()})
    return made


def _dealt_extension(seed):
    """Both ends of a direction that extends on the spot, from dealt keys instead of base OTs."""
    delta, *ends = _dealt_ends(seed)
    sender, receiver = ([_own(part) for part in end] for end in ends)
    return InlineSender(delta, _hash(seed), *sender), InlineReceiver(_hash(seed), *receiver)


def dealt_party(wire, rank, rots=(0, 0), seed=7, source=STOCKED, randomness=None, tuning=TUNING):
    """A party whose OTs a trusted dealer has made: from a store of `rots`, or to extend inline."""
    mine = {}
    for direction in (0, 1):
        made = (
            _dealt_stock(rots[direction], 2 * seed + direction)
            if isinstance(source, Stocked)
            else _dealt_extension(2 * seed + direction)
        )
        role = 0 if rank == direction else 1
        mine[("sender", "receiver")[role]] = made[role]
    return Party(Messenger(wire, rank), randomness or Randomness(), source, **mine, tuning=tuning)


def stored(party):
    """Random OTs in this party's store where it is sender, and where it is receiver."""
    ends = (party.sender, party.receiver)
    return tuple(e.left if isinstance(party.source, Stocked) else 0 for e in ends)


def left_over(plan, party):
    """What a plan says that `stored` is after its first inference."""
    _, pool = plan.preset.source.fill((0, 0), plan.rots)
    return pool[party.rank], pool[1 - party.rank]


class Digested:
    """A wire that keeps a digest of the frames sent through it, lengths and order included."""

    def __init__(self, wire):
        self._wire, self._sent = wire, hashlib.sha256()

    def __getattr__(self, name):
        return getattr(self._wire, name)

    def send(self, payload, clock, where, lane=0):
        raw = as_bytes(payload)
        self._sent.update(len(raw).to_bytes(8, "little"))
        self._sent.update(raw)
        self._wire.send(payload, clock, where, lane)

    @property
    def digest(self):
        return self._sent.hexdigest()[:16]


class Run(typing.NamedTuple):
    """What a protocol run left: both outputs, and digests of what rank 0 and rank 1 sent."""

    outputs: tuple
    digests: tuple[str, str]


def digested_pair(side):
    """Both results of side(wire, rank), and digests of what each sent."""
    wires = {}

    def run(rank):
        def wired(wire):
            wires[rank] = Digested(wire)
            return side(wires[rank], rank)

        return wired

    results = run_pair(run(0), run(1))
    return results, (wires[0].digest, wires[1].digest)


@contextlib.contextmanager
def counted_blocks():
    """AES blocks of the hash that each thread needs meanwhile."""
    counts, permute = Counter(), Tweaks.permute

    def counting(self, x, out):
        counts[threading.current_thread().name] += x.nbytes // 16
        permute(self, x, out)

    Tweaks.permute = counting
    try:
        yield counts
    finally:
        Tweaks.permute = permute


def run_dealt(function, args0, args1, source, cost, seed=None, tuning=TUNING):
    """Runs function(party, *args) at both sides; metered bits, clocks, stores and AES must be as priced.

    OTs are dealt. With a seed all randomness is fixed, and so is every byte on the wire.
    """

    def side(wire, rank):
        fixed = None if seed is None else Randomness(bytes([seed, rank] * 8))
        party = dealt_party(wire, rank, cost.rots, 7, source, fixed, tuning)
        with party.messenger.layer("online", "test"):
            result = function(party, *(args0, args1)[rank])
        entry = party.messenger.trace.entries[-1]
        return result, entry, stored(party), hashed[threading.current_thread().name]

    with counted_blocks() as hashed:
        ends, digests = digested_pair(side)
    (y0, end0, left0, blocks0), (y1, end1, left1, blocks1) = ends
    sent0, sent1 = ((end.sent_bits, end.received_bits) for end in (end0, end1))
    assert sent0 == cost.sent, "bits metered at rank 0 are not those predicted"
    assert sent1 == cost.sent[::-1], "bits metered at rank 1 are not those predicted"
    assert left0 == left1 == (0, 0), "random OTs are left over"
    clocks = (end0.clock_after, end1.clock_after)
    assert clocks == cost.clocks(), "flows are not those predicted"
    if tuning is TUNING:  # else it may cut vectors, which are priced as whole
        assert (blocks0, blocks1) == cost.work.get("blocks", (0, 0)), (
            "AES blocks are not as predicted"
        )
    return Run((y0, y1), digests)


def run_protocol(function, args0, args1, source, cost, tuning=TUNING):
    """Both outputs of `run_dealt`, with fresh randomness."""
    return run_dealt(function, args0, args1, source, cost, tuning=tuning).outputs


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
