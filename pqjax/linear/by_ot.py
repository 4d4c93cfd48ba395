"""Linear layers by oblivious transfer, bit by bit.

W times rank 1's numbers c is bit-decomposed: every bit of W (rank 1 offers what the weight multiplies)
or of c (rank 0 offers the pixel's weights in all uses) selects a correlated vector, and bit i's needs
only L - i bits. A map of T taps that read U pixels of a channel together, K outputs, fan-in c:

    choice bits   OTs               vector                    bits sent
    weights       T K c w_bits      a tap's pixels, of L - i  K c [T w_bits * 128 + U S(w_bits)]
    pixels        H W C x_bits      its uses, of L - i        H W C x_bits * 128 + K c U S(x_bits)

with S(n) = n L - n (n - 1) / 2 for n bit positions. The form `patches` is the same for the columns of
im2col (one tap, C = c = all terms, U = H' W'): what PrivQuant counts.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Integer, UInt, UInt8

from pqjax.linear.by_ot_layout import Layout, layout_of
from pqjax.linear.by_ot_transfer import choose, offer
from pqjax.linear.choice import VARIANTS, Form, Variant
from pqjax.linear.job import Encoded, Job
from pqjax.ot.source import Source
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import Cost, message


@dataclasses.dataclass(frozen=True)
class ByOt:
    """A `Method` in one of its variants, on patches or pixels."""

    variant: str
    form: Form
    name = "ot"

    @property
    def _variant(self) -> Variant:
        return VARIANTS[self.variant]

    def extended(self, job: Job) -> int:
        """Width of c."""
        return self._variant.extended(job)

    def fits(self, job: Job, plain: bool) -> str | None:
        """Why it would be wrong: no patches in groups, and no wraps where nothing is extended."""
        if self.form == "patches" and job.map.groups > 1:
            return f"multiplies patches of one group only, got {job.map.groups} groups"
        if self._variant.extends == "full" and job.x.bits < job.bits and not plain:
            return (
                f"needs an operand of {job.bits} bits, got {job.x.bits}: its preset lacks a pass "
                "that extends operands"
            )
        return None

    def cost(self, source: Source, job: Job) -> Cost:
        """Requests for every bit, then vectors: S(n) elements' bits for every product of a pair."""
        n, m = self._variant.walked(job), self._laid(job).map
        total = m.pairs * (n * job.bits - n * (n - 1) // 2)
        if self._variant.chosen == "weights":
            return source.request(1, m.reading * m.outputs * m.fan_in * n) + message(1, total)
        return source.request(0, m.pixels * n) + message(0, total)

    def encode(self, job: Job, weights: Integer[np.ndarray, " *w"]) -> Encoded:
        """The weights alone: their bits are made where they choose."""
        return Encoded.of(job, weights)

    def serve(self, party: Party, job: Job, encoded: Encoded) -> UInt[np.ndarray, "H2 W2 K"]:
        """Rank 0's half: [W c]^L.

          1. choosing side -> offering side   its bits, as choices.
          2. offering side -> choosing side   for bit i of every number, its vector.

        Choices that are bits of W do not depend on the input. The top bit of W's two's complement
        counts -2^i, so rank 1 offers -c for it.

        Cost: `cost`. Reference: PrivQuant, section 4.1.1.
        """
        layout, ring, walked = self._layout(party, job), Ring(job.bits), self._variant.walked(job)
        weights = layout.weights(encoded.weights)
        with party.messenger.step("product"):
            if self._variant.chosen == "weights":
                share = choose(party, layout, _planes(weights, walked), ring)
            else:
                share = offer(party, layout, ring.reduce(weights), ring, walked)
        return layout.image(share)

    def ask(
        self, party: Party, job: Job, c: UInt[np.ndarray, "H W C"]
    ) -> UInt[np.ndarray, "H2 W2 K"]:
        """Rank 1's half, see `serve`."""
        layout, ring, walked = self._layout(party, job), Ring(job.bits), self._variant.walked(job)
        x = layout.pixels(job.map.im2col(c) if self.form == "patches" else c)
        with party.messenger.step("product"):
            if self._variant.chosen == "weights":
                share = offer(party, layout, ring.reduce(x), ring, walked, top_negative=True)
            else:
                share = choose(party, layout, _planes(x, walked), ring)
        return layout.image(share)

    def _laid(self, job: Job) -> Job:
        return job.columns if self.form == "patches" else job

    def _layout(self, party: Party, job: Job) -> Layout:
        m, chosen = self._laid(job).map, self._variant.chosen
        return layout_of(m, chosen, self.form, party.tuning.product_elements)


def _planes(x: np.ndarray, bits: int) -> UInt8[np.ndarray, " bits *x"]:
    """Bits of integers, two's complement if negative."""
    unsigned = Ring(bits).reduce(x)
    planes = np.empty((bits, *x.shape), np.uint8)
    for i in range(bits):
        planes[i] = (unsigned >> unsigned.dtype.type(i)) & 1
    return planes
