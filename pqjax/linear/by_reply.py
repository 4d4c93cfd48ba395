"""Linear layers on ciphertexts whose results come back, as published systems compute them.

    offline   client -> server   a seed of public polynomials, b_pk of a secret       N log2 q + 128
    online    client -> server   its share of the operand, encrypted                  P N log2 q
    online    server -> client   c1 and, masked, c0 of sums (`pqjax.he.exchange`)

Where two sums share a coefficient (`pqjax.he.packing`), what lies in low slots is first extended to the
ring of both, and afterwards every low slot's wrap goes to the sum above it, by one correlated OT.

Every layer of every inference has a seed and a secret of its own. Shares have guard bits, of which g are
one and an accumulator of g - 1 bits more, or are off by one now and then.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Integer, UInt8

from pqjax.errors import InputError
from pqjax.he import (
    CHEETAH,
    HEQUANT,
    Modulus,
    Options,
    Reply,
    ReplyPrecision,
    Sharing,
    Tiling,
    TwoWay,
    Version,
    two_way,
)
from pqjax.he import Packing as Slots
from pqjax.he.packing import halved, packed_filter, packed_weight_bits
from pqjax.he.published import widths_of
from pqjax.linear.by_rlwe import bound
from pqjax.linear.choice import AnyPacking, Choice, ReplyPacking, When
from pqjax.linear.job import Encoded, Job, Parts, narrowed, unfilled
from pqjax.linear.keys import Keys, OwnKey, Secrets, exchange_own_key, own_key_cost
from pqjax.linear.map import Image
from pqjax.ot.source import Source
from pqjax.ot.stocked import SoftSpoken
from pqjax.protocols.compare import known_wrap_element, known_wrap_element_cost
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.protocols.resize import extend, extend_cost
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, message, work

_NAME = "layer"
# What is switched on, by system and variant. Two uniform sums do not fit a coefficient, so packing comes
# with widths.
_NOMINAL = SoftSpoken(4)
_PLAIN = dataclasses.replace(HEQUANT, widths=False, tiling=False, packing=False)
SYSTEMS: dict[str, dict[str, Options]] = {
    "cheetah": {"uniform": CHEETAH},
    "hequant": {
        "uniform": _PLAIN,
        "widths": dataclasses.replace(_PLAIN, widths=True),
        "tiling": dataclasses.replace(_PLAIN, tiling=True),
        "widths+tiling": dataclasses.replace(_PLAIN, widths=True, tiling=True),
        "widths+packing": dataclasses.replace(_PLAIN, widths=True, packing=True),
        "widths+tiling+packing": HEQUANT,
    },
}


@functools.lru_cache(maxsize=1 << 10)
def _laid(job: Job, ideas: Options, packing: ReplyPacking) -> TwoWay:
    m, of, slots = job.map, bound(job), Slots(packing.packed)
    sums = ideas.sum_bits(job.exact_bits)
    if slots is not Slots.NONE and (job.overflows or not ideas.packing):
        raise InputError("two sums share a coefficient where none overflows, and it is switched on")
    if slots is Slots.CROSS:
        packed_weight_bits(8 * Ring(job.w_bits).dtype.itemsize, sums)
        m, of = halved(m), packed_filter(of, sums)
    tiling = Tiling(m, packing.degree, packing.tile, packing.filters)
    of = of.packed(packing.filters)
    modulus = Modulus(packing.degree, packing.sent_bits, static=False)
    bits = slots.plain_bits(sums), packing.c1_bits, packing.c0_bits
    own = ReplyPrecision(modulus, of, *bits, ideas.sharing)
    if not ideas.widths and own not in widths_of(sums, of, packing.degree, ideas):
        raise InputError(f"uniform widths are others than {packing}")
    return TwoWay(tiling, own, slots, sums)


def _operand(party: Party, forms: Forms, job: Job, at: TwoWay, x: Image) -> Image:
    """Own share of the operand in Ring(at.operand_bits); with all its bits there in low slots alone."""
    more = job.exact_bits - job.bits
    wide, lifted = Ring(at.operand_bits - more), x.astype(np.uint64)
    if job.x.bits < job.bits:  # of the one party that has it in the clear
        lifted = wide.reduce(Ring(job.x.bits).signed(x) if job.x.signed else lifted)
    elif at.lifts:
        low = np.zeros(x.shape, bool)
        low[..., : at.low_channels] = at.low_pixels[..., None]
        known = job.x.signed, job.x.nonnegative
        lifted[low] = extend(party, x[low], job.x.bits, wide.bits, *known, forms)
    return Ring(at.operand_bits).reduce(lifted.astype(np.uint64) << np.uint64(more))


def _lift_cost(source: Source, n: int, forms: Forms, job: Job, wide_bits: int) -> Cost:
    """What n elements in low slots of so many bits take in `_operand`."""
    if job.x.bits < job.bits:
        return NOTHING
    bits, x = wide_bits - (job.exact_bits - job.bits), job.x
    return extend_cost(source, n, x.bits, bits, x.signed, x.nonnegative, forms)


@dataclasses.dataclass(frozen=True)
class ByReply:
    """A `Way` with the layout and the widths that a plan names, and what a system switches on."""

    ideas: Options
    packing: AnyPacking | None
    when: When

    @property
    def guards(self) -> bool:
        """Whether its shares have guard bits."""
        return self.ideas.sharing is Sharing.GUARDED

    @property
    def exact(self) -> bool:
        """Whether no sum is ever off by one."""
        return self.ideas.sharing is not Sharing.APPROXIMATE

    def unfit(self, job: Job, own: bool) -> str | None:
        """Why not: an operand narrower than the accumulator, or no parameters are safe and exact."""
        if self.when != "shared":
            return "has its product with the operand's shares, not ahead of them"
        if unfilled(job, own):
            return unfilled(job, own)
        try:
            self._searched(job) if self.packing is None else self._laid(job)
        except InputError as error:
            return f"cannot be encrypted: {error}"
        return None

    def options(self, choice: Choice, job: Job, inferences: int) -> list[Choice]:
        """The choice with the packing of fewest bits both ways that the system would find.

        One of a sum a coefficient, and one of two where that may be cheaper: OTs have a price, too.
        """
        found = {}
        for at in (self._searched(job), self._packed(job)):
            own, tiling, packed = at.precision, at.tiling, at.packing.value
            bits = own.modulus.bits, own.c1_bits, own.c0_bits
            packing = ReplyPacking(tiling.tile, tiling.filters, at.degree, *bits, packed)
            found[dataclasses.replace(choice, packing=packing)] = None
        return list(found)

    def secrets(self, job: Job) -> Secrets:
        """None of those that layers share."""
        return Secrets()

    def parts(self, source: Source, forms: Forms, job: Job) -> Parts:
        """A key ahead; ciphertexts there and back. OTs where sums are packed."""
        at = self._laid(job)
        n, tiling, rows = at.degree, at.tiling, at.parcels * at.tiling.hints
        sums = 2 * at.parcels * tiling.products(at.precision.modulus.bits)  # of b, and of x
        whole = at.parcels * tiling.weights * tiling.area  # of a
        sent = work("steps", 0, 6) + work("coefficients", 0, at.polynomials * n)
        reply = work("steps", 10, 0) + work(
            "macs", sums + whole * at.precision.modulus.bits // 8, 0
        )
        reply += work("coefficients", 2 * rows * n, 0) + message(0, at.reply_cost)
        reply += work("steps", 0, 6) + work("coefficients", 0, rows * n)
        online = {"ciphertexts": sent + message(1, at.sent_cost), "reply": reply}
        if at.packing is not Slots.NONE:
            lift = _lift_cost(source, at.lifts, forms, job, at.operand_bits)
            wraps = known_wrap_element_cost(source, at.wraps, Ring(at.sum_bits))
            online = {"extension": lift, **online, "wraps": wraps}
        return Parts({}, {"key": own_key_cost(at.precision.modulus)}, online)

    def load(
        self, job: Job, weights: Integer[np.ndarray, " *w"], name: str, version: Version
    ) -> Encoded:
        """The weights, narrow and read-only."""
        return Encoded(narrowed(job, weights))

    def hint(
        self, job: Job, own: Encoded, name: str, version: Version
    ) -> UInt8[np.ndarray, " bytes"]:
        """Nothing."""
        return np.zeros(0, np.uint8)

    def prepare(self, party: Party, job: Job, name: str, own: object, keys: Keys | None) -> OwnKey:
        """A fresh secret and seed at the client; both parties at once."""
        return exchange_own_key(party, self._laid(job).precision.modulus)

    def run(
        self, party: Party, forms: Forms, job: Job, own: object, x: Image, ready: OwnKey
    ) -> Image:
        """Own share (H', W', K) of [W x], of own share x (H, W, C)."""
        at, messenger = self._laid(job), party.messenger
        matrix = at.matrix(ready.seed, _NAME)  # the seed is this layer's own
        own_bits, rows = at.precision, (at.parcels, at.tiling.hints, at.degree)
        q, high, low = own_bits.modulus.ring, Ring(own_bits.c1_bits), Ring(own_bits.c0_bits)
        x = _operand(party, forms, job, at, x)
        if party.rank == 1:
            assert ready.secret is not None
            with messenger.step("ciphertexts"):
                messenger.send_elements(q.reduce(at.encrypt(ready.secret, matrix, x)), q)
            with messenger.step("reply"):
                c1 = messenger.receive_elements(math.prod(rows), high)
                c0 = messenger.receive_elements(at.sums * job.map.outputs, low)
            c1, c0 = c1.astype(np.uint64), c0.astype(np.uint64)
            reply = Reply(c1.reshape(rows), c0.reshape(at.sums, -1))
            share = at.decrypt(ready.secret, reply)
        else:
            assert isinstance(own, Encoded) and ready.public is not None
            with messenger.step("ciphertexts"):
                b = messenger.receive_elements(at.polynomials * at.degree, q)
            b = b.astype(np.uint64).reshape(at.parcels, -1, at.degree)
            reply, share = at.reply(own.weights, b, ready.public, matrix, x, party.randomness)
            with messenger.step("reply"):
                messenger.send_elements(high.reduce(reply.c1), high)
                messenger.send_elements(low.reduce(reply.c0), low)
        wrap = None
        if at.packing is not Slots.NONE:
            rest = at.slots(share, party.rank).rest
            ring = Ring(at.sum_bits)
            wrap = known_wrap_element(party, rest.reshape(-1), at.low_bits, ring)
            wrap = wrap.astype(np.uint64).reshape(rest.shape)
        return Ring(job.bits + job.guard).reduce(at.image(share, party.rank, wrap))

    def _searched(self, job: Job) -> TwoWay:
        ideas = dataclasses.replace(self.ideas, packing=False)
        return two_way(job.map, job.exact_bits, bound(job), ideas)

    def _packed(self, job: Job) -> TwoWay:
        """The cheapest where OTs cost what they do from a store that is nearly free to fill."""
        if job.overflows or not self.ideas.packing:
            return self._searched(job)
        sums = self.ideas.sum_bits(job.exact_bits)
        wide = Slots.CROSS.plain_bits(sums)
        wrap = known_wrap_element_cost(_NOMINAL, 1, Ring(sums))
        lift = _lift_cost(_NOMINAL, 1, Forms(), job, wide)
        prices = (cost.bits + sum(cost.rots) for cost in (wrap, lift))
        return two_way(job.map, job.exact_bits, bound(job), self.ideas, *prices)

    def _laid(self, job: Job) -> TwoWay:
        if not isinstance(self.packing, ReplyPacking):
            raise InputError("its packing is of another method")
        return _laid(job, self.ideas, self.packing)
