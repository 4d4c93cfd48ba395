"""OTs extended on the spot for the bits at hand, as the papers count them: IKNP and KKOT.

IKNP makes the rows of 1-of-2 OTs (128 bits each), KKOT those of 1-of-2^m (256), whose keys come from one
IKNP batch of the other direction. Bit triples are 1-of-16 OTs. Nothing is in store.
"""

import dataclasses
import typing

import numpy as np

from pqjax.crypto.crhash import Hash
from pqjax.crypto.prg import Randomness
from pqjax.ot.kkot import WIDTH as WIDE
from pqjax.ot.kkot import WideReceiver, WideSender
from pqjax.ot.setup import each_way, extend_both, extend_both_cost
from pqjax.ot.softspoken import WIDTH, ExtensionReceiver, ExtensionSender
from pqjax.ot.source import (
    Choices,
    Chosen,
    Offered,
    OtReceiver,
    OtSender,
    Raw,
    Rows,
    Source,
    Words,
    one_sided,
)
from pqjax.ot.triples import chosen_triples, offered_triples, triple_picks
from pqjax.wire.cost import Cost, message, work
from pqjax.wire.messenger import Messenger


@dataclasses.dataclass(frozen=True)
class Inline(Source):
    """IKNP and KKOT where OTs are needed. References: eprint 2022/192 with k = 1, eprint 2013/491."""

    name: typing.ClassVar[str] = "iknp+kkot"

    def set_up(self, messenger: Messenger, randomness: Randomness) -> tuple[OtSender, OtReceiver]:
        """Base OTs, then KKOT's keys. Cost: `set_up_cost`."""
        (delta, own, follows), (others, extends) = extend_both(messenger, randomness, 1)

        def widen_sender() -> WideSender:
            secret = randomness.bits(WIDE)
            rows, raw = extends.extend(secret)
            messenger.send(raw, WIDTH * WIDE)
            return WideSender([key.tobytes() for key in others.rows.blocks(rows)], secret)

        def widen_receiver() -> WideReceiver:
            rows = follows.extend(messenger.receive(WIDTH * WIDE), WIDE)
            zero, one = ([key.tobytes() for key in keys] for keys in own.rows.pairs(rows, delta, 1))
            return WideReceiver(list(zip(zero, one, strict=True)))

        wide, wider = each_way(messenger, "kkot", widen_sender, widen_receiver)
        sender = InlineSender(delta, own.rows, follows, wide)
        return sender, InlineReceiver(others.rows, extends, wider)

    def set_up_cost(self) -> Cost:
        """Base OTs, and a batch of IKNP each way."""
        return extend_both_cost(1) + message(0, WIDTH * WIDE) + message(1, WIDTH * WIDE)

    def pick(self, sender: int, n: int, m: int) -> Cost:
        """IKNP's corrections for 1-of-2, else KKOT's."""
        return message(1 - sender, (WIDTH if m == 1 else WIDE) * n)

    def extending_work(self, n: int, m: int) -> Cost:
        """Two columns for one of the rows."""
        rows = n if m == 1 else n * WIDE // WIDTH
        return work("streams", 2 * rows) + work("rows", rows)

    def pads_work(self, sender: int, n: int, m: int) -> tuple[Cost, Cost]:
        """Of 1-of-2^m a compression and a hash, at the sender for each message."""
        if m == 1:
            return super().pads_work(sender, n, m)
        return one_sided("blocks", 1 - sender, 3 * n), one_sided("blocks", sender, 3 * n << m)

    def triple_picks(self, n: int) -> int:
        """Two triples an OT."""
        return triple_picks(n)


class InlineSender(OtSender):
    """Extends rows q as they are asked for."""

    def __init__(self, delta: Words, hash: Hash, extension: ExtensionSender, wide: WideSender):
        super().__init__(delta, hash)
        self._extension, self._wide = extension, wide

    def accept(self, raw: Raw, n: int) -> Rows:
        """Of IKNP. Cost: `Inline.pick`."""
        return self._extension.extend(raw, n)

    def pick_pads(self, raw: Raw, n: int, m: int, t: int) -> Words:
        """Of KKOT, or of IKNP for a single bit. Cost: `Inline.pick`."""
        if m == 1:
            return super().pick_pads(raw, n, m, t)
        return self._hash.offsets(self._wide.extend(raw, n), self._wide.offsets(m), t)

    def triples(self, randomness: Randomness, n: int) -> Offered:
        """As picks. Cost: `Inline.triple_picks`."""
        return offered_triples(randomness, n)


class InlineReceiver(OtReceiver):
    """Extends rows t for its choices."""

    def __init__(self, hash: Hash, extension: ExtensionReceiver, wide: WideReceiver):
        super().__init__(hash)
        self._extension, self._wide = extension, wide

    def offer(self, choices: Choices) -> tuple[Rows, Raw]:
        """Of IKNP. Cost: `Inline.pick`."""
        return self._extension.extend(choices)

    def offer_pick(self, choices: Choices, m: int, t: int) -> tuple[Words, Raw]:
        """Of KKOT, or of IKNP for a single bit. Cost: `Inline.pick`."""
        if m == 1:
            return super().offer_pick(choices, m, t)
        rows, raw = self._wide.extend(choices, m)
        return self._hash.chosen(rows, choices, 1 << m) & np.uint64((1 << t) - 1), raw

    def triples(self, randomness: Randomness, n: int) -> Chosen:
        """As picks. Cost: `Inline.triple_picks`."""
        return chosen_triples(randomness, n)
