"""OTs drawn from a store that was filled before the input was known, here by SoftSpoken.

What the receiver sends is the difference between its bits and the stored ones: a bit an OT. A 1-of-2^m
OT takes m of them, a product of random shared bits one each way and no message. `Stocked` and its ends
are any such source but for how it fills the store.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial

import numpy as np

from pqjax.crypto.crhash import Hash, offset_rows
from pqjax.crypto.prg import Randomness
from pqjax.ot.making import Hear, Maker, Round
from pqjax.ot.setup import extend_both, extend_both_cost, row_hash
from pqjax.ot.softspoken import WIDTH, ExtensionReceiver, ExtensionSender, check_parameter
from pqjax.ot.source import (
    Choices,
    OtReceiver,
    OtSender,
    Pads,
    Pool,
    Raw,
    Rows,
    Source,
    Words,
    one_sided,
)
from pqjax.ot.stock import Part, Stock
from pqjax.ot.tuning import Tuning
from pqjax.wire.cost import Cost, beside, draw, message
from pqjax.wire.messenger import Messenger, Pending

_RUN = 1 << 14  # rows whose keys stay in the cache
_ROUND = 1 << 22  # OTs


@dataclasses.dataclass(frozen=True, repr=False)  # secrets
class Kept:
    """An end that was set aside, as arrays: delta is the sender's, the bits are the receiver's.

    Attributes:
      transcript: what its hashes follow from, public.
      rows: its OTs', to be used once.
    """

    transcript: bytes
    rows: Rows
    delta: Words | None = None
    bits: Choices | None = None


class Stocked(Source):
    """Any source whose OTs come from a store."""

    has_store = True

    def pick(self, sender: int, n: int, m: int) -> Cost:
        """The differences of all choices' bits from the stored ones."""
        return message(1 - sender, n * m) + draw(sender, n * m)

    def triple_picks(self, n: int) -> int:
        """None: products are drawn, without a message."""
        return 0


class _FromStore:
    """What both ends have: a store, and who fills it."""

    stock: Stock
    maker: Maker

    @property
    def left(self) -> int:
        """OTs in store, those included that are kept to make others of."""
        return self.stock.left

    def wait(self, rounds: int | None = None) -> None:
        """Waits for all that was ordered, or some of it."""
        self.maker.wait(rounds)


class StockedSender(_FromStore, OtSender):
    """Draws rows q from its store."""

    def __init__(self, delta: Words, hash: Hash):
        super().__init__(delta, hash)
        self.stock = Stock()
        self.maker = Maker(self.stock)

    def accept(self, raw: Raw, n: int) -> Rows:
        """Of stored OTs. Cost: `Stocked.pick`. Reference: Beaver, CRYPTO 1995."""
        rows, _ = self.maker.draw(n)
        return offset_rows(rows, self._delta, np.unpackbits(raw, count=n, bitorder="little"))

    def set_aside(self, n: int, name: bytes) -> "StockedSender":
        """The next n OTs, drawn for good, as an end that has no others, with hashes of that name."""
        made = StockedSender(self._delta, self._hash.apart(name))
        made.stock.put([self.maker.draw(n)])
        return made

    def kept(self) -> Kept:
        """All of an end that was set aside."""
        rows, _ = self.maker.draw(self.left)
        return Kept(self._hash.transcript, rows, delta=self._delta)

    @classmethod
    def of(cls, kept: Kept, sender: int) -> "StockedSender":
        """An end of what was kept, in the direction in which that rank sends."""
        assert kept.delta is not None
        made = StockedSender(kept.delta, row_hash(kept.transcript, sender))
        made.stock.put([(kept.rows, np.zeros(len(kept.rows), np.uint8))])
        return made

    def random_bits(self, n: int, width: int) -> tuple[Choices, Choices]:
        """Of stored OTs as they are."""
        rows, _ = self.maker.draw(n)
        zero, one = np.empty(n, np.uint8), np.empty(n, np.uint8)
        for span in _spans(n):
            both = self.pads(rows[span], 1)
            for out, pads in zip((zero, one), both, strict=True):
                _keep(pads, width, out[span])
        return zero, one


class StockedReceiver(_FromStore, OtReceiver):
    """Draws rows t and their choices from its store."""

    def __init__(self, hash: Hash):
        super().__init__(hash)
        self.stock = Stock()
        self.maker = Maker(self.stock)

    def offer(self, choices: Choices) -> tuple[Rows, Raw]:
        """Of stored OTs. Cost: `Stocked.pick`."""
        rows, bits = self.maker.draw(choices.size)
        return rows, np.packbits(choices ^ bits, bitorder="little")

    def set_aside(self, n: int, name: bytes) -> "StockedReceiver":
        """The next n OTs, see `StockedSender.set_aside`."""
        made = StockedReceiver(self._hash.apart(name))
        made.stock.put([self.maker.draw(n)])
        return made

    def kept(self) -> Kept:
        """All of an end that was set aside."""
        rows, bits = self.maker.draw(self.left)
        return Kept(self._hash.transcript, rows, bits=bits)

    @classmethod
    def of(cls, kept: Kept, sender: int) -> "StockedReceiver":
        """An end of what was kept, in the direction in which that rank sends."""
        assert kept.bits is not None
        made = StockedReceiver(row_hash(kept.transcript, sender))
        made.stock.put([(kept.rows, kept.bits)])
        return made

    def random_bits(self, n: int, width: int) -> tuple[Choices, Choices]:
        """Of stored OTs as they are."""
        rows, bits = self.maker.draw(n)
        keys = np.empty(n, np.uint8)
        for span in _spans(n):
            _keep(self.pads(rows[span], 1), width, keys[span])
        return bits, keys


def _spans(n: int) -> list[slice]:
    """Rows a run at a time."""
    return [slice(at, min(at + _RUN, n)) for at in range(0, n, _RUN)]


def _keep(pads: Pads, width: int, out: Choices) -> None:
    """The low bits of pads (n, 1, 2)."""
    np.bitwise_and(pads[:, 0, 0], np.uint64((1 << width) - 1), out=out, casting="unsafe")


@dataclasses.dataclass(frozen=True)
class SoftSpoken(Stocked):
    """A store filled by SoftSpoken with parameter k: 128/k - 1 bits an OT, and 2^k / k AES blocks.

    Reference: SoftSpokenOT, eprint 2022/192.
    """

    k: int

    def __post_init__(self) -> None:
        check_parameter(self.k)

    @property
    def made_bits(self) -> float:
        """Those of its corrections."""
        return float(_columns(self.k))

    @property
    def name(self) -> str:
        """Such as softspoken4."""
        return f"softspoken{self.k}"

    def stored(self, wanted: Pool, streamed: bool) -> int:
        """All, or two rounds a direction."""
        return sum(min(n, 2 * _ROUND) if streamed else n for n in wanted)

    def set_up(self, messenger: Messenger, randomness: Randomness) -> tuple[OtSender, OtReceiver]:
        """Base OTs and trees. Cost: `set_up_cost`."""
        (delta, hashes, sends), (others, receives) = extend_both(messenger, randomness, self.k)
        return SoftSpokenSender(delta, hashes.rows, sends), SoftSpokenReceiver(
            others.rows, receives
        )

    def set_up_cost(self) -> Cost:
        """Base OTs and, for k > 1, tree corrections."""
        return extend_both_cost(self.k)

    def fill(self, pool: Pool, wanted: Pool) -> tuple[Cost, Pool]:
        """Corrections from each direction's receiver for what the pool lacks, and no more."""
        left = (max(0, pool[0] - wanted[0]), max(0, pool[1] - wanted[1]))
        made = [more + n - spare for more, n, spare in zip(left, wanted, pool, strict=True)]
        return beside(self._made(s, n) for s, n in enumerate(made) if n), left

    def _made(self, sender: int, n: int) -> Cost:
        """N more in one direction: both have columns, which the receiver's corrections go between."""
        streams = (n << self.k) // self.k
        mine, theirs = (
            one_sided("streams", rank, streams) + one_sided("rows", rank, n)
            for rank in (sender, 1 - sender)
        )
        cost = theirs + message(1 - sender, _columns(self.k) * n) + mine
        return cost.piped(sum(map(len, _rounds(Tuning(), self.k, n))))


def _columns(k: int) -> int:
    """Bits of correction for an OT of a random choice."""
    return WIDTH // k - 1


def _rounds(tuning: Tuning, k: int, n: int) -> list[list[int]]:
    """Random OTs of every round and message: long columns spare AES calls, 2^k stay in the cache."""
    most = tuning.chunk_ots * (4 if k <= 4 else 1)
    sizes = [min(most, n - at) for at in range(0, n, most)]
    each = max(1, _ROUND // most)
    return [sizes[at : at + each] for at in range(0, len(sizes), each)]


class SoftSpokenSender(StockedSender):
    """Fills its store from the receiver's corrections."""

    def __init__(self, delta: Words, hash: Hash, extension: ExtensionSender):
        super().__init__(delta, hash)
        self._extension = extension

    def order(self, lane: Messenger, tuning: Tuning, n: int) -> None:
        """One message a batch from receiver to sender. Cost: `SoftSpoken.fill`."""
        k = self._extension.k
        self.maker.order(
            Round(
                sum(sizes),
                partial(self._made, sizes, [lane.expect(_columns(k) * m) for m in sizes]),
            )
            for sizes in _rounds(tuning, k, n)
        )

    def _made(self, sizes: list[int], messages: list[Pending], hear: Hear) -> Iterator[Part]:
        for n, corrections in zip(sizes, messages, strict=True):
            yield self._extension.extend_random(hear(corrections), n), np.zeros(n, np.uint8)


class SoftSpokenReceiver(StockedReceiver):
    """Fills its store and sends corrections."""

    def __init__(self, hash: Hash, extension: ExtensionReceiver):
        super().__init__(hash)
        self._extension = extension

    def order(self, lane: Messenger, tuning: Tuning, n: int) -> None:
        """One message a batch from receiver to sender. Cost: `SoftSpoken.fill`."""
        self.maker.order(
            Round(sum(sizes), partial(self._made, sizes, lane))
            for sizes in _rounds(tuning, self._extension.k, n)
        )

    def _made(self, sizes: list[int], lane: Messenger, hear: Hear) -> Iterator[Part]:
        for n in sizes:
            rows, bits, raw = self._extension.extend_random(n)
            lane.send(raw, _columns(self._extension.k) * n)
            yield rows, bits
