"""Products of two shared operands by oblivious transfer: PrivQuant's way, where no party knows either.

Operands are shared in rings of a and b bits, and their shares read as integers

    A = A0 + A1 - 2^a wrap(A0, A1),    B = B0 + B1 - 2^b wrap(B0, B1).

Modulo 2^L, with a + b >= L after one of both was extended, the product of both wraps is gone:

    A B = A0 B0 + A1 B1                            local
        + A0 B1 + A1 B0                            linear layers of rank 0's shares and rank 1's numbers
        - 2^a wrap(A0, A1) (B0 + B1) - 2^b (A0 + A1) wrap(B0, B1)      one OT each way for an element

What of these is a linear layer has the bits of either operand as choices, in both terms alike (`by_ot`).
A turned product is (A B)^T = B^T A^T: there B's elements are pixels, and A's weights.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from pqjax.graph.ir import TensorType
from pqjax.linear.by_ot import ByOt, vectors_work
from pqjax.linear.by_ot_layout import Layout, layout_of
from pqjax.linear.by_ot_transfer import choose_if, offer_if
from pqjax.linear.choice import Choice
from pqjax.linear.job import Job, Parts
from pqjax.linear.map import Image, LinearMap
from pqjax.linear.products import Matrices, ProductJob, multiply
from pqjax.ot.source import Source
from pqjax.protocols.compare import carry_out_cost, known_wrap_bit, known_wrap_cost, wrap_bit
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.protocols.resize import extend, extend_cost
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, message, total, work

TURNS = (False, True)
Both = tuple[np.ndarray, np.ndarray]  # something of A and of B


class Variant(NamedTuple):
    """Which operand makes room for the sum by being extended, and whose bits choose."""

    extends: Literal["a", "b", "both"]
    chosen: Literal["a", "b"]


VARIANTS: dict[str, Variant] = {
    "extend-a-choose-a": Variant("a", "a"),
    "extend-a-choose-b": Variant("a", "b"),
    "extend-b-choose-a": Variant("b", "a"),
    "extend-b-choose-b": Variant("b", "b"),
    "full-choose-a": Variant("both", "a"),
    "full-choose-b": Variant("both", "b"),
}


@dataclasses.dataclass(frozen=True)
class _Operand:
    """One operand as it is multiplied: in a ring of `bits`, which may be the accumulator's of `most`."""

    x: TensorType
    bits: int
    most: int

    @property
    def full(self) -> bool:
        """Whether its wrap is gone in the accumulator's ring."""
        return self.bits == self.most

    @property
    def moved(self) -> bool:
        """Whether rank 0 moves its share by half the range, so that a signed value is unsigned."""
        return self.x.signed and not self.x.nonnegative and not self.full

    @property
    def sign_known(self) -> bool:
        """Whether its top bit is known to be 0."""
        return self.x.nonnegative if self.x.signed else self.bits > self.x.bits

    @property
    def integer_bits(self) -> int:
        """Signed bits of what rank 0's share is read as."""
        return self.bits if self.moved or self.full else self.bits + 1

    def extended(self, party: Party, x: Matrices, forms: Forms) -> Matrices:
        """Own share in the ring of `bits`."""
        t = self.x
        known = t.signed, t.nonnegative
        return extend(party, x.reshape(-1), t.bits, self.bits, *known, forms).reshape(x.shape)

    def extension_cost(self, source: Source, n: int, forms: Forms) -> Cost:
        """Of `extended`, for n elements."""
        t = self.x
        return extend_cost(source, n, t.bits, self.bits, t.signed, t.nonnegative, forms)

    def integers(self, rank: int, x: Matrices) -> Int[np.ndarray, "heads rows columns"]:
        """What own share of `bits` bits is read as; that of rank 0, moved there and back, is signed."""
        signed = rank == 0 and (self.moved or self.full)
        return (Ring(self.bits).signed(x) if signed else x).astype(np.int64)

    def wraps(self, party: Party, x: Image, forms: Forms) -> Image:
        """XOR shares of the integers' wraps, a bit an element."""
        ring, table = Ring(self.bits), forms.known_wrap == "table"
        if self.moved and party.rank == 0:
            x = ring.add(x, ring.reduce(1 << self.bits - 1))
        if self.sign_known:
            return known_wrap_bit(party, x.reshape(-1), self.bits, table).reshape(x.shape)
        return wrap_bit(party, x.reshape(-1), self.bits, forms).reshape(x.shape)

    def wraps_cost(self, source: Source, n: int, forms: Forms) -> Cost:
        """Of `wraps`, for n elements."""
        if self.sign_known:
            return known_wrap_cost(source, n, forms.known_wrap == "table")
        return carry_out_cost(source, n, self.bits, forms)


def _map(job: ProductJob, turned: bool) -> LinearMap:
    """The product as a layer in as many groups as there are heads; a pixel for each row of pixels."""
    pixels, outputs = (job.rows, job.columns)[:: -1 if turned else 1]
    channels = job.heads * job.terms, job.heads * outputs
    apart = (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)
    return LinearMap((1, pixels), *apart, job.heads, *channels)


def _image(of: Both, turned: bool) -> Image:
    """What are pixels of A and B: (1, pixels, heads * terms)."""
    x = of[1].transpose(2, 0, 1) if turned else of[0].transpose(1, 0, 2)
    return x.reshape(1, len(x), -1)


def _weights(of: Both, turned: bool) -> np.ndarray:
    """What are weights of A and B: (1, 1, terms, heads * outputs)."""
    w = of[0].transpose(2, 0, 1) if turned else of[1].transpose(1, 0, 2)
    return w.reshape(1, 1, len(w), -1)


def _matrices(job: ProductJob, y: Image, turned: bool) -> Matrices:
    """The result of a map as matrices (heads, rows, columns)."""
    y = y.reshape(y.shape[1], job.heads, -1)
    return y.transpose(1, 2, 0) if turned else y.transpose(1, 0, 2)


@dataclasses.dataclass(frozen=True)
class ProductsByOt:
    """A `ProductWay` in one of its variants."""

    variant: str
    guards = False

    def _operands(self, job: ProductJob) -> tuple[_Operand, _Operand]:
        a, b, most = min(job.left.bits, job.bits), min(job.right.bits, job.bits), job.bits
        extends = VARIANTS[self.variant].extends
        wide_a = {"a": max(a, most - b), "b": a, "both": most}[extends]
        wide_b = {"a": b, "b": max(b, most - a), "both": most}[extends]
        return _Operand(job.left, wide_a, most), _Operand(job.right, wide_b, most)

    def _term(self, job: ProductJob, turned: bool) -> tuple[ByOt, Job]:
        """Rank 0's weights times rank 1's pixels, as a linear layer."""
        weights, pixels = self._operands(job)[:: 1 if turned else -1]
        # No wrap is to be put right here: whichever choose have as many bits as they have.
        choose_pixels = VARIANTS[self.variant].chosen == ("b" if turned else "a")
        method = ByOt("1-extend-w-choose-x" if choose_pixels else "4-extend-x-choose-w", "pixels")
        m = _map(job, turned)
        x = TensorType(m.in_shape, pixels.bits, 0, signed=False)
        return method, Job(m, weights.integer_bits, x, job.bits)

    def unfit(self, job: ProductJob) -> str | None:
        """Why not: an operand is to be extended, and both fill the ring as they are."""
        filled = min(job.left.bits, job.right.bits) >= job.bits
        if filled and VARIANTS[self.variant].extends != "both":
            return "extends an operand, and both fill the accumulator's ring"
        return None

    def options(self, choice: Choice, job: ProductJob) -> list[Choice]:
        """As it is."""
        return [choice]

    def parts(self, source: Source, forms: Forms, job: ProductJob) -> Parts:
        """All of it online."""
        operands, terms = self._operands(job), job.heads * job.terms
        sizes = terms * job.rows, terms * job.columns
        products = [self._term(job, turned) for turned in TURNS]
        wraps = [
            self._wraps_cost(source, forms, job, operand, n, turned)
            for operand, n, turned in zip(operands, sizes, TURNS, strict=True)
            if not operand.full
        ]
        each = zip(operands, sizes, strict=True)
        own = work("steps", 1) + work("macs", _map(job, False).pairs * (-(-job.bits // 8)) ** 2)
        return Parts(
            online={
                "extension": total(x.extension_cost(source, n, forms) for x, n in each),
                "product": own + total(method.cost(source, term) for method, term in products),
                "wrap & mux": total(wraps) if wraps else NOTHING,
            }
        )

    def _wraps_cost(
        self, source: Source, forms: Forms, job: ProductJob, operand: _Operand, n: int, turned: bool
    ) -> Cost:
        m, ring = _map(job, turned), Ring(job.bits - operand.bits)
        cost = operand.wraps_cost(source, n, forms)
        for rank in (0, 1):
            (keys,) = vectors_work(m, rank, "pixels", "pixels", [ring])
            taken, offered = keys
            cost += source.extending_work(n, 1) + source.request(rank, n) + offered
            cost += work("words", 2 * m.pairs) + message(rank, 2 * m.pairs * ring.bits) + taken
        return cost

    def prepare(self, party: Party, job: ProductJob, name: str) -> None:
        """Nothing."""

    def run(
        self, party: Party, forms: Forms, job: ProductJob, a: Matrices, b: Matrices, ready: None
    ) -> Matrices:
        """Own share (heads, rows, columns) of A B.

          1. extensions, if the variant says so.
          2. as the linear layers A1 B0 and, turned, A0 B1.
          3. for each operand that does not fill the ring its wraps, and two chosen OTs an element, one
             in either direction, with the other operand's shares that it meets.

        Cost: `parts`. Reference: PrivQuant, section 4.1.1, whose layers have one plain operand.
        """
        ring, operands = Ring(job.bits), self._operands(job)
        left, right = operands
        wide = left.extended(party, a, forms), right.extended(party, b, forms)
        own = left.integers(party.rank, wide[0]), right.integers(party.rank, wide[1])
        y = multiply(own[0], own[1], ring)
        for turned in TURNS:
            method, term = self._term(job, turned)
            if party.rank == 0:
                crossed = method.serve(party, term, method.encode(term, _weights(own, turned)))
            else:
                crossed = method.ask(party, term, _image(wide, turned))
            y = ring.add(y, _matrices(job, crossed, turned))
        for turned, operand in zip(TURNS, operands, strict=True):
            if not operand.full:
                wrapped = self._wrapped(party, forms, job, operand, wide, own, turned)
                high = ring.shift_left(wrapped.astype(ring.dtype), operand.bits)
                y = ring.sub(y, _matrices(job, high, turned))
        return y

    def _wrapped(
        self, party: Party, forms: Forms, job: ProductJob,
        operand: _Operand, wide: Both, own: Both, turned: bool,
    ) -> Image:  # fmt: skip
        """Step 3: own share of the pixels' wraps times the weights, in the ring of L - `bits` bits."""
        part, m = Ring(job.bits - operand.bits), _map(job, turned)
        # Two elements for each product.
        layout: Layout = layout_of(m, "pixels", "pixels", party.tuning.product_elements // 2)
        flags = layout.pixels(operand.wraps(party, _image(wide, turned), forms))
        weights = part.reduce(layout.weights(_weights(own, turned)))
        sums = []
        with party.messenger.step("wrap and mux"):
            for offering in (0, 1):
                if party.rank == offering:
                    sums.append(offer_if(party, layout, weights, flags, part))
                else:
                    sums.append(choose_if(party, layout, flags, part))
        return layout.image(part.add(*sums))
