"""Where OTs come from: what every source says of itself, and the two ends of a direction.

A `Source` is data: what its OTs cost, and how to set them up. That makes this party's two ends, one
for each direction. Whatever the source, one message goes from receiver to sender, the sender ends
up with q = t xor c * delta, and the protocols above cannot tell which it is. `pqjax.ot.SOURCES`
names them all.
"""

import abc
import typing
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8, UInt64

from pqjax.crypto.crhash import Hash
from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.ot.tuning import Tuning
from pqjax.wire.cost import NOTHING, Cost, work
from pqjax.wire.link import Link
from pqjax.wire.messenger import Messenger
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.work import Rates

MOST_PICK_BITS = 4
MOST_STORED = 1 << 25  # OTs, half a gibibyte of rows
Pool = tuple[int, int]  # stored OTs by the rank that is their sender
Choices = UInt8[np.ndarray, " n"]
Raw = UInt8[np.ndarray, " bytes"]
Rows = UInt64[np.ndarray, "n 2"]
Pads = UInt64[np.ndarray, "n blocks 2"]
Words = UInt64[np.ndarray, " n"]
Packed = UInt8[np.ndarray, "*planes bytes"]  # bits, eight to a byte
Triples = UInt8[np.ndarray, "3 n"]  # XOR shares of a, b and a AND b
Offered = tuple[Words, Callable[[Choices], Triples]]  # tables, and what makes triples of shares
Chosen = tuple[Choices, Callable[[Choices], Triples]]  # choices, and what makes triples of shares


class Need(typing.NamedTuple):
    """What a plan draws, by sending rank, in each of so many inferences.

    `ahead` is how many OTs in store are not too many to be made before an inference; `timed` whether it
    counts how long, by the machine's `rates`, they are made.
    """

    drawn: Pool
    ahead: int
    inferences: int = 1
    link: Link | None = None
    rates: Rates = NOMINAL
    timed: bool = False


class Source(abc.ABC):
    """How OTs are made, and exactly what they cost. Frozen, hashable, with a name for documents.

    Costs are of the direction in which rank `sender` sends. Each request is one message.
    """

    name: str
    delta_bits: typing.ClassVar[int] = 128  # of the correlation, that are secret
    # Whether OTs come out of a store: then products of bits do, and the first message of a masked
    # table is its pad, which nobody sends.
    has_store: typing.ClassVar[bool] = False
    assumes: typing.ClassVar[str] = "AES"

    @property
    def made_bits(self) -> float:
        """About how many bits it takes to make a random OT, by which protocols choose their forms."""
        return 0.0

    @abc.abstractmethod
    def set_up(self, messenger: Messenger, randomness: Randomness) -> "tuple[OtSender, OtReceiver]":
        """Makes this party's ends of both directions; both parties at once. Cost: `set_up_cost`."""

    @abc.abstractmethod
    def set_up_cost(self) -> Cost:
        """What `set_up` sends."""

    def request(self, sender: int, n: int) -> Cost:
        """`pick` for n 1-of-2 OTs."""
        return self.pick(sender, n, 1)

    @abc.abstractmethod
    def pick(self, sender: int, n: int, m: int) -> Cost:
        """The receiver's message for n 1-of-2^m OTs, and the stored OTs that it uses up."""

    def extending_work(self, n: int, m: int) -> Cost:
        """Work of both parties for the rows of n 1-of-2^m OTs, where there is no store."""
        return NOTHING

    def pads_work(self, sender: int, n: int, m: int) -> tuple[Cost, Cost]:
        """Work of the receiver, then of the sender, for the pads of n 1-of-2^m OTs."""
        return keys_work(sender, n * m)

    @abc.abstractmethod
    def triple_picks(self, n: int) -> int:
        """1-of-16 OTs of two bits an entry that n bit triples are made of, which go with others.

        None where there is a store: products of bits are drawn from it.
        """

    def fill(self, pool: Pool, wanted: Pool) -> tuple[Cost, Pool]:
        """What it takes to have `wanted` OTs in store for whoever is about to draw them.

        Of the pool, OTs in store that nobody waits for, there are none after the set-up. Returned are
        the cost, and the pool once they are drawn: left + wanted - pool OTs are made.
        """
        return NOTHING, pool

    def share(self, wanted: Pool) -> Cost:
        """What `wanted` OTs add to the cost of making many more: what layers are compared by."""
        return self.fill((0, 0), wanted)[0]

    def stored(self, wanted: Pool, streamed: bool) -> int:
        """How many OTs are held at most if so many are drawn: all made before, or while others are."""
        return 0 if streamed else sum(wanted)

    def chosen(self, need: Need) -> "Source":
        """The source of a plan: this one, but for one that is made to choose from others."""
        return self


def keys_work(sender: int, n: int, blocks: int = 1) -> tuple[Cost, Cost]:
    """Work of the receiver, then of the sender, for keys of n OTs, of so many blocks each."""
    each = n * (1 + blocks)  # `crhash.hash_blocks`
    return one_sided("blocks", 1 - sender, each), one_sided("blocks", sender, 2 * each)


def one_sided(unit: str, rank: int, amount: int) -> Cost:
    """Work of one party alone."""
    return work(unit, amount, 0) if rank == 0 else work(unit, 0, amount)


class OtSender(abc.ABC):
    """The end that knows delta: it offers messages and never learns which was taken."""

    def __init__(self, delta: Words, hash: Hash):
        """Args: delta, two words; this direction's hash."""
        self._delta, self._hash = delta, hash

    @abc.abstractmethod
    def accept(self, raw: Raw, n: int) -> Rows:
        """Rows q from the receiver's message. Cost: `Source.request`."""

    def pads(self, rows: Rows, blocks: int) -> tuple[Pads, Pads]:
        """The keys of messages 0 and 1, `blocks` blocks each."""
        return self._hash.pairs(rows, self._delta, blocks)

    def pick_pads(self, raw: Raw, n: int, m: int, t: int) -> Words:
        """Pads of all 2^m messages of t bits, message v in bits v*t.. of a word.

        Of an OT for every bit of the choice: a message's pad is the XOR of its bits' keys.

        Cost: `Source.pick`. Reference: Naor and Pinkas, STOC 1999.
        """
        zero, one = (p[:, 0, 0].reshape(m, n) for p in self.pads(self.accept(raw, n * m), 1))
        words = np.zeros(n, np.uint64)
        for i, (mask0, mask1) in enumerate(_pick_masks(m, t)):
            words ^= (zero[i] & mask0) ^ (one[i] & mask1)
        return words

    def triples(self, randomness: Randomness, n: int) -> Offered:
        """Begins n bit triples, where there is no store. Cost: `Source.triple_picks`."""
        raise NotImplementedError("its products of bits are drawn from a store")

    def random_bits(self, n: int, width: int) -> tuple[Choices, Choices]:
        """The low `width` bits of both keys of n random OTs, where there is a store."""
        raise NotImplementedError("it has no store of random OTs")

    def order(self, lane: Messenger, tuning: Tuning, n: int) -> None:
        """Has n more random OTs made, where there is a store. Cost: `Source.fill`."""
        assert n == 0

    def wait(self, rounds: int | None = None) -> None:
        """Waits for what was ordered, see `Maker.wait`."""
        return


class OtReceiver(abc.ABC):
    """The end that chooses: it learns the message of its choice and nothing of the others."""

    def __init__(self, hash: Hash):
        """Args: this direction's hash."""
        self._hash = hash

    @abc.abstractmethod
    def offer(self, choices: Choices) -> tuple[Rows, Raw]:
        """Rows t for choices 0 or 1, and the message to the sender. Cost: `Source.request`."""

    def pads(self, rows: Rows, blocks: int) -> Pads:
        """The key of the chosen message, `blocks` blocks."""
        return self._hash.blocks(rows, blocks)

    def offer_pick(self, choices: Choices, m: int, t: int) -> tuple[Words, Raw]:
        """Pads of the chosen t-bit messages, and the message to the sender; see `pick_pads`."""
        rows, raw = self.offer(np.concatenate([(choices >> i) & 1 for i in range(m)]))
        keys = self.pads(rows, 1)[:, 0, 0].reshape(m, -1)
        both = np.bitwise_xor.reduce(keys, axis=0)
        return (both >> (choices.astype(np.uint64) * np.uint64(t))) & np.uint64((1 << t) - 1), raw

    def triples(self, randomness: Randomness, n: int) -> Chosen:
        """Begins n bit triples, where there is no store. Cost: `Source.triple_picks`."""
        raise NotImplementedError("its products of bits are drawn from a store")

    def random_bits(self, n: int, width: int) -> tuple[Choices, Choices]:
        """Choice bits of n random OTs and the low `width` bits of their keys, where there is a store."""
        raise NotImplementedError("it has no store of random OTs")

    def order(self, lane: Messenger, tuning: Tuning, n: int) -> None:
        """Has n more random OTs made, where there is a store. Cost: `Source.fill`."""
        assert n == 0

    def wait(self, rounds: int | None = None) -> None:
        """Waits for what was ordered, see `Maker.wait`."""
        return


class HasOt(typing.Protocol):
    """What functions on OT need of a party."""

    messenger: Messenger
    randomness: Randomness
    source: Source
    sender: OtSender
    receiver: OtReceiver
    tuning: Tuning


def check_pick(m: int, t: int) -> None:
    """Refuses tables that do not fit a 64-bit word."""
    if not 1 <= m <= MOST_PICK_BITS or t < 1 or t << m > 64:
        raise InputError(f"1-of-2^m OT takes m in 1..4 and t * 2^m <= 64 bits, got m={m}, t={t}")


def _pick_masks(m: int, t: int) -> np.ndarray:
    """For bit i and value b: ones in the t-bit slots of all v whose bit i is b, (m, 2) uint64."""
    masks = np.zeros((m, 2), np.uint64)
    for v in range(1 << m):
        slot = np.uint64(((1 << t) - 1) << (v * t))
        for i in range(m):
            masks[i, (v >> i) & 1] |= slot
    return masks
