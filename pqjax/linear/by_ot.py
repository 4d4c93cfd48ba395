"""Linear layers by oblivious transfer, bit by bit.

W times rank 1's numbers c is bit-decomposed: every bit of W (rank 1 offers what the weight multiplies)
or of c (rank 0 offers the pixel's weights in all uses) selects a correlated vector, and bit i's needs
only L - i bits. A map of T taps that read U pixels of a channel together, K outputs, fan-in c:

    choice bits   OTs            vector                    bits sent
    weights       T K c w_bits   a tap's pixels, of L - i  K c [T w_bits * 128 + U S(w_bits)]
    pixels        H W C x_bits   its uses, of L - i        H W C x_bits * 128 + K c U S(x_bits)

with S(n) = n L - n (n - 1) / 2 for n bit positions. The form `patches` is the same for the columns of
im2col (one tap, C = c = all terms, U = H' W'): what PrivQuant counts.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Integer

from pqjax.linear.by_ot_layout import Laid, Layout, layout_of
from pqjax.linear.by_ot_transfer import Bits, choose, offer
from pqjax.linear.choice import VARIANTS, Chosen, Form, Variant
from pqjax.linear.job import Encoded, Job, narrowed
from pqjax.linear.map import Image, LinearMap
from pqjax.ot.correlations import pad_blocks
from pqjax.ot.source import Source, keys_work
from pqjax.ot.tuning import Tuning
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import Cost, message, total, work


@dataclasses.dataclass(frozen=True)
class ByOt:
    """A `Method` in one of its variants, on patches or pixels."""

    variant: str
    form: Form
    name = "ot"
    variants = tuple(VARIANTS)

    @property
    def _variant(self) -> Variant:
        return VARIANTS[self.variant]

    def extended(self, job: Job) -> int:
        """Width of c."""
        if self._variant.extends == "full":
            return job.bits
        room = job.bits - job.w_bits if self._variant.extends == "inputs" else 0
        return min(max(job.x.bits, room), job.bits)

    def _walked(self, job: Job) -> int:
        """Bit positions that OTs walk through."""
        if self._variant.chosen == "pixels":
            return self.extended(job)
        room = job.bits - job.x.bits if self._variant.extends == "weights" else 0
        return min(max(job.w_bits, room), job.bits)  # what lies above is 0 in the ring

    def fits(self, job: Job, plain: bool) -> str | None:
        """Why not: groups have no patches, and what is not extended must fill the ring."""
        if self.form == "patches" and job.map.groups > 1:
            return f"multiplies patches of one group only, got {job.map.groups} groups"
        if self._variant.extends == "full" and job.x.bits < job.bits and not plain:
            return (
                f"needs an operand of {job.bits} bits, got {job.x.bits}: its preset lacks a pass "
                "that extends operands"
            )
        return None

    def cost(self, source: Source, job: Job) -> Cost:
        """Requests for every bit, then vectors: S(n) bits for every product of a pair."""
        n, m, chosen = self._walked(job), job.in_form(self.form).map, self._variant.chosen
        bits = m.pairs * (n * job.bits - n * (n - 1) // 2)
        sender, each = (
            (1, m.reading * m.outputs * m.fan_in) if chosen == "weights" else (0, m.pixels)
        )
        rings = [Ring(job.bits - i) for i in range(n)]
        taken, offered = zip(*vectors_work(m, sender, chosen, self.form, rings), strict=True)
        pieces = m.pairs * n / Tuning().product_elements
        both = [*offered, work("words", m.pairs * n), message(sender, bits), *taken]
        asked = source.extending_work(each * n, 1) + source.request(sender, each * n)
        return asked + total(both).piped(pieces)

    def encode(self, job: Job, weights: Integer[np.ndarray, " *w"]) -> Encoded:
        """The weights alone, of the map's shape or a dense layer's; bits are made where they choose."""
        return Encoded(narrowed(job, weights))

    def serve(self, party: Party, job: Job, encoded: Encoded) -> Image:
        """Rank 0's half: [W c]^L.

          1. choosing side -> offering side   its bits, as choices.
          2. offering side -> choosing side   for bit i of every number, its vector.

        Choices that are bits of W do not depend on the input. The top bit of W's two's complement
        counts -2^i, so rank 1 offers -c for it. Cost: `cost`. Reference: PrivQuant, section 4.1.1.
        """
        layout = self._layout(party, job)
        weights = layout.weights(encoded.weights)
        return self._half(party, job, layout, weights, self._variant.chosen == "weights")

    def ask(self, party: Party, job: Job, c: Image) -> Image:
        """Rank 1's half, see `serve`."""
        layout = self._layout(party, job)
        x = layout.pixels(job.map.im2col(c) if self.form == "patches" else c)
        return self._half(party, job, layout, x, self._variant.chosen == "pixels")

    def _half(self, party: Party, job: Job, layout: Layout, own: Laid, chooses: bool) -> Image:
        ring, walked = Ring(job.bits), self._walked(job)
        with party.messenger.step("product"):
            if chooses:
                return layout.image(choose(party, layout, _planes(own, walked), ring))
            negative = self._variant.chosen == "weights"
            return layout.image(offer(party, layout, ring.reduce(own), ring, walked, negative))

    def _layout(self, party: Party, job: Job) -> Layout:
        m, chosen = job.in_form(self.form).map, self._variant.chosen
        return layout_of(m, chosen, self.form, party.tuning.product_elements)


def vectors_work(
    m: LinearMap, sender: int, chosen: Chosen, form: Form, rings: Iterable[Ring]
) -> Iterator[tuple[Cost, Cost]]:
    """Work of the receiver, then of the sender, for keys as long as vectors of these rings' elements.

    One OT each for every choice of a bit position. Vectors that are cut are taken as whole.
    """
    if chosen == "weights":
        counts = Counter(math.prod(tap.sides) for tap in m.taps)
        lengths = {words: n * m.outputs * m.fan_in for words, n in counts.items()}
    else:
        lengths = {m.outputs if form == "patches" else m.slots * m.fan_out: m.pixels}
    for ring in rings:
        for words, ots in lengths.items():
            yield keys_work(sender, ots, pad_blocks(words, ring))


def _planes(x: Laid, bits: int) -> Bits:
    """Bits of integers, two's complement if negative: (bits, *x.shape)."""
    unsigned, planes = Ring(bits).reduce(x), np.empty((bits, *x.shape), np.uint8)
    for i in range(bits):
        planes[i] = (unsigned >> unsigned.dtype.type(i)) & 1
    return planes
