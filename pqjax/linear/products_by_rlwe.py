"""Products of two shared operands on ciphertexts that come back (`pqjax.he.bilinear`).

    offline   client -> server   a seed of public polynomials, b_pk of a secret     N log2 q + 128
    online    client -> server   its shares of both operands, encrypted, head by head
    online    server -> client   c1 and, masked, c0 of the sums, head by head

Both operands are first extended to the accumulator's ring, so that no wrap has to be put right. Every
product of every inference has a seed and a secret of its own. Shares have guard bits, of which g are one
and an accumulator of g - 1 bits more.
"""

import dataclasses
import functools

import numpy as np

from pqjax.errors import InputError
from pqjax.he import Modulus, ReplyPrecision, Sharing
from pqjax.he.bilinear import Bilinear, BlockReply, bound, cheapest_bilinear
from pqjax.linear.choice import AnyPacking, Choice, ProductPacking
from pqjax.linear.job import Parts
from pqjax.linear.keys import OwnKey, exchange_own_key, own_key_cost
from pqjax.linear.products import Matrices, ProductJob
from pqjax.ot.source import Source
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.protocols.resize import extend, extend_cost
from pqjax.ring import Ring, unpack
from pqjax.wire.cost import message, total, work

VARIANTS = ("guarded",)


@functools.lru_cache(maxsize=1 << 10)
def _laid(shape: tuple[int, int, int], plain_bits: int, packing: ProductPacking) -> Bilinear:
    modulus = Modulus(packing.degree, packing.sent_bits, static=False)
    bits = plain_bits, packing.c1_bits, packing.c0_bits
    of = bound(shape, packing.block, plain_bits)
    return Bilinear(shape, packing.block, ReplyPrecision(modulus, of, *bits, Sharing.GUARDED))


@dataclasses.dataclass(frozen=True)
class ProductsByRlwe:
    """A `ProductWay` with the blocks and the widths that a plan names."""

    packing: AnyPacking | None
    guards = True

    def unfit(self, job: ProductJob) -> str | None:
        """Why not: no parameters are safe and exact."""
        try:
            self._searched(job) if self.packing is None else self._laid(job)
        except InputError as error:
            return f"cannot be encrypted: {error}"
        return None

    def options(self, choice: Choice, job: ProductJob) -> list[Choice]:
        """The choice with the blocks of fewest bits both ways."""
        at = self._searched(job)
        own = at.precision
        bits = own.modulus.bits, own.c1_bits, own.c0_bits
        return [dataclasses.replace(choice, packing=ProductPacking(at.block, at.degree, *bits))]

    def parts(self, source: Source, forms: Forms, job: ProductJob) -> Parts:
        """A key ahead; extensions, ciphertexts there and back."""
        at, heads = self._laid(job), job.heads
        sizes = heads * job.rows * job.terms, heads * job.terms * job.columns
        wide = (
            extend_cost(source, n, x.bits, job.bits, x.signed, x.nonnegative, forms)
            for n, x in zip(sizes, (job.left, job.right), strict=True)
        )
        sent, replies = (heads * n * at.degree for n in (at.polynomials, at.replies))
        # A block's c1 and c0, each of as many products as there are blocks along the sum.
        multiplied = 4 * replies * at.grid[1]
        made = work("steps", 0, heads) + work("coefficients", 0, sent)
        replied = work("steps", heads, 0) + work("coefficients", multiplied, 0)
        read = work("steps", 0, heads) + work("coefficients", 0, replies)
        online = {
            "extension": total(wide),
            "ciphertexts": made + message(1, heads * at.sent_cost),
            "reply": replied + message(0, heads * at.reply_cost) + read,
        }
        return Parts({}, {"key": own_key_cost(at.precision.modulus)}, online)

    def prepare(self, party: Party, job: ProductJob, name: str) -> OwnKey:
        """A fresh secret and seed at the client; both parties at once."""
        return exchange_own_key(party, self._laid(job).precision.modulus)

    def run(
        self, party: Party, forms: Forms, job: ProductJob, a: Matrices, b: Matrices, ready: OwnKey
    ) -> Matrices:
        """Own share (heads, rows, columns) of A B with guard bits."""
        at, more = self._laid(job), job.exact_bits - job.bits
        ring = Ring(job.exact_bits)
        wide = []
        for x, t in ((a, job.left), (b, job.right)):
            known = t.signed, t.nonnegative
            flat = extend(party, x.reshape(-1), t.bits, job.bits, *known, forms)
            wide.append(flat.astype(ring.dtype).reshape(x.shape))
        a, b = ring.shift_left(wide[0], more), wide[1]
        found = (self._ask if party.rank else self._serve)(party, at, a, b, ready)
        return Ring(job.bits + job.guard).reduce(np.stack(found))

    def _ask(
        self, party: Party, at: Bilinear, a: Matrices, b: Matrices, ready: OwnKey
    ) -> list[np.ndarray]:
        own, messenger = at.precision, party.messenger
        assert ready.secret is not None
        with messenger.step("ciphertexts"):
            for head in range(len(a)):
                matrix = at.matrix(ready.seed, str(head))
                sent = at.encrypt(ready.secret, matrix, a[head], b[head])
                messenger.send_elements(own.modulus.ring.reduce(sent), own.modulus.ring)
        found, sizes = [], (at.replies * at.degree, at.sums)
        bits = own.c1_bits, own.c0_bits
        with messenger.step("reply"):
            each = messenger.receive_each(
                [n * w for n, w in zip(sizes, bits, strict=True)] * len(a)
            )
            for pair in zip(a, b, strict=True):
                c1, c0 = (
                    unpack(next(each), n, w).astype(np.uint64)
                    for n, w in zip(sizes, bits, strict=True)
                )
                shape = at.shape[0], at.shape[2]
                reply = BlockReply(c1.reshape(-1, at.degree), c0.reshape(shape))
                found.append(at.decrypt(ready.secret, reply, *pair))
        return found

    def _serve(
        self, party: Party, at: Bilinear, a: Matrices, b: Matrices, ready: OwnKey
    ) -> list[np.ndarray]:
        own, messenger = at.precision, party.messenger
        assert ready.public is not None
        n, k = at.polynomials * at.degree, own.modulus.bits
        with messenger.step("ciphertexts"):  # all come first: the client listens only then
            every = list(messenger.receive_each([n * k] * len(a)))
        found = []
        with messenger.step("reply"):
            for head, pair in enumerate(zip(a, b, strict=True)):
                sent = unpack(every[head], n, k).astype(np.uint64).reshape(-1, at.degree)
                matrix = at.matrix(ready.seed, str(head))
                reply, share = at.reply(sent, ready.public, matrix, *pair, party.randomness)
                messenger.send_elements(Ring(own.c1_bits).reduce(reply.c1), Ring(own.c1_bits))
                messenger.send_elements(Ring(own.c0_bits).reduce(reply.c0), Ring(own.c0_bits))
                found.append(share)
        return found

    def _searched(self, job: ProductJob) -> Bilinear:
        shape = job.rows, job.terms, job.columns
        return cheapest_bilinear(shape, job.exact_bits, Sharing.GUARDED)

    def _laid(self, job: ProductJob) -> Bilinear:
        if not isinstance(self.packing, ProductPacking):
            raise InputError("its packing is of another method")
        return _laid((job.rows, job.terms, job.columns), job.exact_bits, self.packing)
