"""Linear layers on ciphertexts whose results come back, as published systems compute them.

    offline   client -> server   a seed of public polynomials, b_pk of a secret       N log2 q + 128
    online    client -> server   its share of the operand, encrypted                  P N log2 q
    online    server -> client   c1 and, masked, c0 of sums (`pqjax.he.exchange`)

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
    Matrix,
    Modulus,
    Options,
    Reply,
    ReplyPrecision,
    Secret,
    Sharing,
    Tiling,
    TwoWay,
    Version,
    two_way,
)
from pqjax.he import Packing as Slots
from pqjax.he.matrix import SEED_BYTES
from pqjax.he.polynomial import Polynomials
from pqjax.he.published import widths_of
from pqjax.linear.by_rlwe import bound
from pqjax.linear.choice import Choice, Packing, ReplyPacking, When
from pqjax.linear.job import Encoded, Job, Parts, filling, narrowed, unfilled
from pqjax.linear.keys import Keys, Secrets
from pqjax.linear.map import Image
from pqjax.ot.source import Source
from pqjax.protocols.party import Party
from pqjax.protocols.resize import Forms
from pqjax.ring import Ring
from pqjax.wire.cost import message

# What is switched on, by system and variant. Two sums in a coefficient are left out: exact shares of
# them take a wrap each, which nobody spends here and which seldom pays (tests/he/test_reply_costs.py).
_PLAIN = dataclasses.replace(HEQUANT, widths=False, tiling=False, packing=False)
SYSTEMS: dict[str, dict[str, Options]] = {
    "cheetah": {"uniform": CHEETAH},
    "hequant": {
        "uniform": _PLAIN,
        "widths": dataclasses.replace(_PLAIN, widths=True),
        "tiling": dataclasses.replace(_PLAIN, tiling=True),
        "widths+tiling": dataclasses.replace(_PLAIN, widths=True, tiling=True),
    },
}


@dataclasses.dataclass(frozen=True, repr=False)  # a secret, at the client
class Ready:
    """A layer's key, for one inference, to be used once.

    Attributes:
      matrix: the public polynomials.
      secret: the client's.
      public: the server's b_pk (1, N).
    """

    matrix: Matrix
    secret: Secret | None = None
    public: Polynomials | None = None


@functools.lru_cache(maxsize=1 << 10)
def _laid(job: Job, ideas: Options, packing: ReplyPacking) -> TwoWay:
    tiling = Tiling(job.map, packing.degree, packing.tile, packing.filters)
    of, sums = bound(job).packed(packing.filters), ideas.sum_bits(job.exact_bits)
    modulus = Modulus(packing.degree, packing.sent_bits, static=False)
    bits = sums, packing.c1_bits, packing.c0_bits
    own = ReplyPrecision(modulus, of, *bits, ideas.sharing)
    if not ideas.widths and own not in widths_of(sums, of, packing.degree, ideas):
        raise InputError(f"uniform widths are others than {packing}")
    return TwoWay(tiling, own, Slots.NONE, sums)


@dataclasses.dataclass(frozen=True)
class ByReply:
    """A `Way` with the layout and the widths that a plan names, and what a system switches on."""

    ideas: Options
    packing: Packing | ReplyPacking | None
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
        """The choice with the packing of fewest bits both ways that the system would find."""
        at = self._searched(job)
        own, tiling = at.precision, at.tiling
        bits = own.modulus.bits, own.c1_bits, own.c0_bits
        found = ReplyPacking(tiling.tile, tiling.filters, at.degree, *bits)
        return [dataclasses.replace(choice, packing=found)]

    def secrets(self, job: Job) -> Secrets:
        """None of those that layers share."""
        return Secrets()

    def parts(self, source: Source, forms: Forms, job: Job) -> Parts:
        """A key ahead; ciphertexts there and back. No OTs."""
        at = self._laid(job)
        sent, reply = message(1, at.sent_cost), message(0, at.reply_cost)
        return Parts({}, {"key": message(1, at.key_cost)}, {"ciphertexts": sent, "reply": reply})

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

    def prepare(self, party: Party, job: Job, name: str, own: object, keys: Keys | None) -> Ready:
        """A fresh secret and seed at the client; both parties at once."""
        at, messenger, byte = self._laid(job), party.messenger, Ring(8)
        modulus = at.precision.modulus
        with messenger.step("key"):
            if party.rank == 0:
                seed = messenger.receive_elements(SEED_BYTES, byte).tobytes()
                public = messenger.receive_elements(modulus.degree, modulus.ring)
                return Ready(at.matrix(seed, name), public=public.astype(np.uint64)[None])
            seed, secret = party.randomness.block(), Secret(modulus, party.randomness)
            messenger.send_elements(np.frombuffer(seed, np.uint8), byte)
            messenger.send_elements(modulus.ring.reduce(secret.zero(seed)), modulus.ring)
            return Ready(at.matrix(seed, name), secret)

    def run(
        self, party: Party, forms: Forms, job: Job, own: object, x: Image, ready: Ready
    ) -> Image:
        """Own share (H', W', K) of [W x], of own share x (H, W, C)."""
        at, messenger, matrix = self._laid(job), party.messenger, ready.matrix
        own_bits, rows = at.precision, (at.parcels, at.tiling.hints, at.degree)
        q, high, low = own_bits.modulus.ring, Ring(own_bits.c1_bits), Ring(own_bits.c0_bits)
        more = np.uint64(job.exact_bits - job.bits)
        x = Ring(at.operand_bits).reduce(filling(job, x).astype(np.uint64) << more)
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
        return Ring(job.bits + job.guard).reduce(at.image(share, party.rank))

    def _searched(self, job: Job) -> TwoWay:
        return two_way(job.map, job.exact_bits, bound(job), self.ideas)

    def _laid(self, job: Job) -> TwoWay:
        if not isinstance(self.packing, ReplyPacking):
            raise InputError("its packing is of another method")
        return _laid(job, self.ideas, self.packing)
