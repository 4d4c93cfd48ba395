"""The two ends of one direction of OT: where correlated rows come from.

Two schemes stand behind one interface. `Inline` extends on the spot for the bits at hand: IKNP rows
for 1-of-2 and KKOT rows for 1-of-2^m, as the papers count them. `Stocked` draws rows that a
SoftSpoken extension put in store before the input was known, and the receiver only sends the
difference between its bits and the stored ones. Either way one message goes from receiver to
sender, the sender ends up with q = t xor c * delta, and the protocols above cannot tell which.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np

from pqjax.crypto.crhash import Hash, offset_rows
from pqjax.errors import InputError, OutOfCorrelations
from pqjax.ot.kkot import WideReceiver, WideSender
from pqjax.ot.softspoken import ExtensionReceiver, ExtensionSender, check_parameter
from pqjax.wire.cost import Cost, draw, message

MOST_PICK_BITS = 4
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How OTs are made: extended inline (IKNP and KKOT) or drawn from a SoftSpoken(k) store."""

    stocked: bool
    k: int = 1

    def __post_init__(self) -> None:
        check_parameter(self.k)
        if not self.stocked and self.k != 1:
            raise InputError(f"inline extension is IKNP, k = 1; got k = {self.k}")

    def request_bits(self, n: int) -> int:
        """Bits of the receiver's message for n 1-of-2 OTs."""
        return n if self.stocked else 128 * n

    def request_pick_bits(self, n: int, m: int) -> int:
        """Bits of the receiver's message for n 1-of-2^m OTs."""
        return self.request_bits(n * m) if self.stocked or m == 1 else 256 * n

    def request(self, sender: int, n: int) -> Cost:
        """The receiver's message for n 1-of-2 OTs, and the random OTs it draws."""
        stored = draw(sender, n) if self.stocked else Cost()
        return message(1 - sender, self.request_bits(n)) + stored

    def request_pick(self, sender: int, n: int, m: int) -> Cost:
        """The receiver's message for n 1-of-2^m OTs."""
        stored = draw(sender, n * m) if self.stocked else Cost()
        return message(1 - sender, self.request_pick_bits(n, m)) + stored

    def stocking(self, sender: int, n: int) -> Cost:
        """Filling a store with n random OTs."""
        return message(1 - sender, (128 // self.k - 1) * n) if n else Cost()


class Stock:
    """Rows that are used once, in order.

    Sender and receiver of a direction fill and draw in step; nothing is ever put back.
    """

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._bits: list[np.ndarray] = []
        self.left = 0

    def fill(self, rows: np.ndarray, bits: np.ndarray | None = None) -> None:
        """Adds rows (n, 2) uint64 and, at the receiver, their choice bits (n,) uint8."""
        self._rows.append(rows)
        self._bits.append(np.zeros(len(rows), np.uint8) if bits is None else bits)
        self.left += len(rows)

    def clear(self) -> None:
        """Throws away what is left; both ends of a direction must do so together."""
        self._rows.clear()
        self._bits.clear()
        self.left = 0

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Takes the next n rows and bits out of the store, for good; not to be written to."""
        if n > self.left:
            raise OutOfCorrelations(
                f"{n} random OTs are needed and {self.left} are left: the plan prepared too few"
            )
        self.left -= n
        if self._rows and n < len(self._rows[0]):
            rows, self._rows[0] = np.split(self._rows[0], [n])
            bits, self._bits[0] = np.split(self._bits[0], [n])
            return rows, bits
        rows, bits = np.empty((n, 2), np.uint64), np.empty(n, np.uint8)
        at = 0
        while at < n:
            head, head_bits = self._rows[0], self._bits[0]
            m = min(n - at, len(head))
            rows[at : at + m], bits[at : at + m] = head[:m], head_bits[:m]
            if m == len(head):
                self._rows.pop(0)
                self._bits.pop(0)
            else:
                self._rows[0], self._bits[0] = head[m:], head_bits[m:]
            at += m
        return rows, bits


def _present(end: _T | None) -> _T:
    assert end is not None, "this end was made for dealt rows only"
    return end


def _pick_masks(m: int, t: int) -> np.ndarray:
    """For bit i and value b: ones in the t-bit slots of all v whose bit i is b, (m, 2) uint64."""
    masks = np.zeros((m, 2), np.uint64)
    for v in range(1 << m):
        slot = np.uint64(((1 << t) - 1) << (v * t))
        for i in range(m):
            masks[i, (v >> i) & 1] |= slot
    return masks


def check_pick(m: int, t: int) -> None:
    """Refuses tables that do not fit a 64-bit word."""
    if not 1 <= m <= MOST_PICK_BITS or t < 1 or t << m > 64:
        raise InputError(f"1-of-2^m OT takes m in 1..4 and t * 2^m <= 64 bits, got m={m}, t={t}")


class OtSender:
    """The end that knows delta: it offers messages and never learns which was taken."""

    def __init__(
        self,
        scheme: Scheme,
        delta: np.ndarray,
        extension: ExtensionSender | None,
        hash: Hash,
    ):
        """Args: scheme; delta (2,) uint64; extension (None for dealt rows); this direction's hash."""
        self.scheme = scheme
        self._delta = delta
        self._extension = extension
        self._wide: WideSender | None = None
        self._hash = hash
        self.stock = Stock()

    def widen(self, wide: WideSender) -> None:
        """Adds the 1-of-2^m extension, whose keys this direction's IKNP rows have made."""
        self._wide = wide

    def request_bits(self, n: int) -> int:
        """Bits of the receiver's message for n OTs."""
        return self.scheme.request_bits(n)

    def accept(self, raw: np.ndarray, n: int) -> np.ndarray:
        """Rows q (n, 2) from the receiver's message."""
        if not self.scheme.stocked:
            return _present(self._extension).extend(raw, n)
        rows, _ = self.stock.draw(n)
        flips = np.unpackbits(raw, count=n, bitorder="little")
        return offset_rows(rows, self._delta, flips)

    def pads(self, rows: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray]:
        """The keys of messages 0 and 1, each (n, blocks, 2) uint64."""
        return self._hash.pairs(rows, self._delta, blocks)

    def request_pick_bits(self, n: int, m: int) -> int:
        """Bits of the receiver's message for n 1-of-2^m OTs."""
        return self.scheme.request_pick_bits(n, m)

    def pick_pads(self, raw: np.ndarray, n: int, m: int, t: int) -> np.ndarray:
        """Pads of all 2^m messages of t bits, message v in bits v*t.. of a word: (n,) uint64."""
        if self.scheme.stocked or m == 1:
            rows = self.accept(raw, n * m)
            zero, one = (p[:, 0, 0].reshape(m, n) for p in self.pads(rows, 1))
            words = np.zeros(n, np.uint64)
            for i, (mask0, mask1) in enumerate(_pick_masks(m, t)):
                words ^= (zero[i] & mask0) ^ (one[i] & mask1)
            return words
        wide = _present(self._wide)
        return self._hash.offsets(wide.extend(raw, n), wide.offsets(m), t)

    def stock_from(self, raw: np.ndarray, n: int) -> None:
        """Puts n random OTs in store from the receiver's corrections."""
        self.stock.fill(_present(self._extension).extend_random(raw, n))

    def random_keys(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """N stored random OTs as they are: the two 64-bit keys, each (n,) uint64."""
        zero, one = self.pads(self.stock.draw(n)[0], 1)
        return zero[:, 0, 0], one[:, 0, 0]


class OtReceiver:
    """The end that chooses: it learns the message of its choice and nothing of the others."""

    def __init__(self, scheme: Scheme, extension: ExtensionReceiver | None, hash: Hash):
        self.scheme = scheme
        self._extension = extension
        self._wide: WideReceiver | None = None
        self._hash = hash
        self.stock = Stock()

    def widen(self, wide: WideReceiver) -> None:
        """Adds the 1-of-2^m extension."""
        self._wide = wide

    def request_bits(self, n: int) -> int:
        """Bits of the message to the sender for n OTs."""
        return self.scheme.request_bits(n)

    def request_pick_bits(self, n: int, m: int) -> int:
        """Bits of the message to the sender for n 1-of-2^m OTs."""
        return self.scheme.request_pick_bits(n, m)

    def offer(self, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows t (n, 2) for choices (n,) uint8 and the message to the sender."""
        if not self.scheme.stocked:
            return _present(self._extension).extend(choices)
        rows, bits = self.stock.draw(choices.size)
        return rows, np.packbits(choices ^ bits, bitorder="little")

    def pads(self, rows: np.ndarray, blocks: int) -> np.ndarray:
        """The key of the chosen message, (n, blocks, 2) uint64."""
        return self._hash.blocks(rows, blocks)

    def offer_pick(self, choices: np.ndarray, m: int, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Pads of the chosen t-bit messages, (n,) uint64, and the message to the sender."""
        n = choices.size
        ones = np.uint64((1 << t) - 1)
        if self.scheme.stocked or m == 1:
            planes = np.concatenate([(choices >> i) & 1 for i in range(m)])
            rows, raw = self.offer(planes)
            keys = self.pads(rows, 1)[:, 0, 0].reshape(m, n)
            both = np.bitwise_xor.reduce(keys, axis=0)
            return (both >> (choices.astype(np.uint64) * np.uint64(t))) & ones, raw
        rows, raw = _present(self._wide).extend(choices, m)
        return self._hash.chosen(rows, choices, 1 << m) & ones, raw

    def stock_corrections(self, n: int) -> np.ndarray:
        """Puts n random OTs in store; the corrections to send."""
        rows, bits, raw = _present(self._extension).extend_random(n)
        self.stock.fill(rows, bits)
        return raw

    def random_keys(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """N stored random OTs as they are: the choice bits (n,) and their 64-bit keys (n,)."""
        rows, bits = self.stock.draw(n)
        return bits, self.pads(rows, 1)[:, 0, 0]
