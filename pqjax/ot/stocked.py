"""OTs drawn from a store that was filled before the input was known, here by SoftSpoken.

What the receiver sends is the difference between its bits and the stored ones: a bit an OT. A 1-of-2^m
OT takes m of them, a product of random shared bits one each way and no message. `Stocked` and its ends
are any such source but for how it fills the store.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from pqjax.crypto.crhash import Hash, offset_rows
from pqjax.crypto.prg import Randomness
from pqjax.errors import OutOfCorrelations
from pqjax.ot.setup import extend_both, extend_both_cost
from pqjax.ot.softspoken import WIDTH, ExtensionReceiver, ExtensionSender, check_parameter
from pqjax.ot.source import (
    Choices,
    HasOt,
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
from pqjax.ot.tuning import Tuning
from pqjax.wire.cost import Cost, draw, message, total
from pqjax.wire.messenger import Messenger

_RUN = 1 << 14  # rows whose keys stay in the cache
_SLAB = 1 << 20  # rows, 16 MiB
_Part = tuple[Rows, Choices]


class Stock:
    """Rows that are used once, in order.

    Sender and receiver of a direction fill and draw in step; nothing is ever put back. Rows lie in
    slabs, each let go once all of it is drawn: arrays of each batch would outlive the memory around
    them, and break it up.
    """

    def __init__(self) -> None:
        self._parts: deque[_Part] = deque()
        self.left = 0

    def fill(self, rows: Rows, bits: Choices | None = None) -> None:
        """Adds rows and, at the receiver, their choice bits."""
        self.fill_each([(rows, np.zeros(len(rows), np.uint8) if bits is None else bits)])

    def fill_each(self, batches: Iterable[_Part]) -> None:
        """Adds batches of rows and bits as they are made: all, or none where that fails."""
        slabs, waiting, n = [], [], 0
        for batch in batches:
            waiting.append(batch)
            n += len(batch[0])
            if n >= _SLAB:
                slabs.append(_joined(waiting))
                waiting, n = [], 0
        self._parts += [*slabs, _joined(waiting)]
        self.left += sum(len(rows) for rows, _ in slabs) + n

    def draw(self, n: int) -> _Part:
        """Takes the next n rows and bits out of the store, for good; not to be written to."""
        if n > self.left:
            raise OutOfCorrelations(
                f"{n} random OTs are needed and {self.left} are left: the plan prepared too few"
            )
        self.left -= n
        taken: list[_Part] = []
        while n:
            rows, bits = self._parts.popleft()
            if n < len(rows):
                self._parts.appendleft((rows[n:], bits[n:]))
            taken.append((rows[:n], bits[:n]))
            n -= len(taken[-1][0])
        return _joined(taken)


def _joined(parts: list[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    nothing = np.zeros((0, 2), np.uint64), np.zeros(0, np.uint8)
    rows, bits = zip(nothing, *parts, strict=True)
    return np.concatenate(rows), np.concatenate(bits)


class Stocked(Source):
    """Any source whose OTs come from a store."""

    has_store = True

    def pick(self, sender: int, n: int, m: int) -> Cost:
        """The differences of all choices' bits from the stored ones."""
        return message(1 - sender, n * m) + draw(sender, n * m)

    def triple_picks(self, n: int) -> int:
        """None: products are drawn, without a message."""
        return 0


class StockedSender(OtSender):
    """Draws rows q from its store."""

    def __init__(self, delta: Words, hash: Hash):
        super().__init__(delta, hash)
        self.stock = Stock()

    def accept(self, raw: Raw, n: int) -> Rows:
        """Of stored OTs. Cost: `Stocked.pick`. Reference: Beaver, CRYPTO 1995."""
        rows, _ = self.stock.draw(n)
        return offset_rows(rows, self._delta, np.unpackbits(raw, count=n, bitorder="little"))

    def random_bits(self, n: int, width: int) -> tuple[Choices, Choices]:
        """Of stored OTs as they are."""
        rows, _ = self.stock.draw(n)
        zero, one = np.empty(n, np.uint8), np.empty(n, np.uint8)
        for span in _spans(n):
            both = self.pads(rows[span], 1)
            for out, pads in zip((zero, one), both, strict=True):
                _keep(pads, width, out[span])
        return zero, one


class StockedReceiver(OtReceiver):
    """Draws rows t and their choices from its store."""

    def __init__(self, hash: Hash):
        super().__init__(hash)
        self.stock = Stock()

    def offer(self, choices: Choices) -> tuple[Rows, Raw]:
        """Of stored OTs. Cost: `Stocked.pick`."""
        rows, bits = self.stock.draw(choices.size)
        return rows, np.packbits(choices ^ bits, bitorder="little")

    def random_bits(self, n: int, width: int) -> tuple[Choices, Choices]:
        """Of stored OTs as they are."""
        rows, bits = self.stock.draw(n)
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

    def set_up(self, messenger: Messenger, randomness: Randomness) -> tuple[OtSender, OtReceiver]:
        """Base OTs and trees. Cost: `set_up_cost`."""
        sends, receives = extend_both(messenger, randomness, self.k)
        return SoftSpokenSender(*sends), SoftSpokenReceiver(*receives)

    def set_up_cost(self) -> Cost:
        """Base OTs and, for k > 1, tree corrections."""
        return extend_both_cost(self.k)

    def fill(self, pool: Pool, wanted: Pool) -> tuple[Cost, Pool]:
        """Corrections from each direction's receiver for what the pool lacks, and no more."""
        left = (max(0, pool[0] - wanted[0]), max(0, pool[1] - wanted[1]))
        made = [more + n - spare for more, n, spare in zip(left, wanted, pool, strict=True)]
        return total(self._made(s, n) for s, n in enumerate(made) if n), left

    def _made(self, sender: int, n: int) -> Cost:
        """N more in one direction: both have columns, which the receiver's corrections go between."""
        blocks, rows = one_sided("streams", 1 - sender, (n << self.k) // self.k), n
        cost = (
            blocks + one_sided("rows", 1 - sender, rows) + message(1 - sender, _columns(self.k) * n)
        )
        cost += one_sided("streams", sender, (n << self.k) // self.k) + one_sided(
            "rows", sender, rows
        )
        return cost.piped(len(_batches(Tuning(), self.k, n)))


def _columns(k: int) -> int:
    """Bits of correction for an OT of a random choice."""
    return WIDTH // k - 1


def _batches(tuning: Tuning, k: int, n: int) -> list[int]:
    """Random OTs of every message: long columns spare AES calls, 2^k of them stay in the cache."""
    most = tuning.chunk_ots * (4 if k <= 4 else 1)
    return [min(most, n - at) for at in range(0, n, most)]


class SoftSpokenSender(StockedSender):
    """Fills its store from the receiver's corrections."""

    def __init__(self, delta: Words, hash: Hash, extension: ExtensionSender):
        super().__init__(delta, hash)
        self._extension = extension

    def fill(self, party: HasOt, n: int) -> None:
        """One message a batch from receiver to sender. Cost: `SoftSpoken.fill`."""
        k = self._extension.k
        sizes = _batches(party.tuning, k, n)
        raws = party.messenger.receive_each([_columns(k) * size for size in sizes])
        rows = map(self._extension.extend_random, raws, sizes)
        self.stock.fill_each((each, np.zeros(len(each), np.uint8)) for each in rows)


class SoftSpokenReceiver(StockedReceiver):
    """Fills its store and sends corrections."""

    def __init__(self, hash: Hash, extension: ExtensionReceiver):
        super().__init__(hash)
        self._extension = extension

    def fill(self, party: HasOt, n: int) -> None:
        """One message a batch from receiver to sender. Cost: `SoftSpoken.fill`."""
        self.stock.fill_each(self._made(party, n))

    def _made(self, party: HasOt, n: int) -> Iterator[tuple[Rows, Choices]]:
        k = self._extension.k
        for size in _batches(party.tuning, k, n):
            rows, bits, raw = self._extension.extend_random(size)
            party.messenger.send(raw, _columns(k) * size)
            yield rows, bits
