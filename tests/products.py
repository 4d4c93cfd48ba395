"""Products of two shared operands: operands of every kind, and both parties' halves in one place."""

import itertools
from typing import Any

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.graph.ir import TensorType
from pqjax.linear import Choice
from pqjax.linear.products import ProductJob
from pqjax.linear.products_by_ot import VARIANTS
from pqjax.linear.shared import product_way_of
from pqjax.ot.source import Source
from pqjax.ot.stocked import SoftSpoken
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import make_party, run_pair
from pqjax.ring import Ring
from pqjax.wire.cost import total

KINDS = ("signed", "unsigned", "nonnegative")
OT = SoftSpoken(4)
EVERY = [("shared-ot", variant) for variant in VARIANTS] + [("shared-rlwe", "guarded")]


def operand(bits, kind):
    """A format of so many bits; its shape says nothing here."""
    return TensorType((1, 1, 1), bits, 0, kind != "unsigned", kind == "nonnegative")


def job_of(shape, widths, kinds, bits=None, guard=0):
    """A product (heads, rows, terms, columns) that holds every sum, or of `bits`."""
    heads, rows, terms, columns = shape
    left, right = (operand(b, kind) for b, kind in zip(widths, kinds, strict=True))
    ends = [x * y * terms for x, y in itertools.product(*((t.low, t.high) for t in (left, right)))]
    need = 1 + max(max(ends).bit_length(), (-min(ends) - 1).bit_length() if min(ends) < 0 else 0)
    return ProductJob(heads, rows, terms, columns, left, right, bits or need, guard)


def operands(rng, job):
    """A and B in the clear, the ends of their formats among them."""
    shapes = (job.heads, job.rows, job.terms), (job.heads, job.terms, job.columns)
    found = []
    for shape, t in zip(shapes, (job.left, job.right), strict=True):
        x = rng.integers(t.low, t.high, shape, endpoint=True)
        x.reshape(-1)[0], x.reshape(-1)[-1] = t.low, t.high
        found.append(x)
    return found


def shares(rng, x, t):
    """Both parties' shares of a tensor in the clear."""
    ring = Ring(t.bits)
    own = ring.reduce(rng.integers(0, 1 << 63, x.shape, dtype=np.uint64) * 2 + 1)
    return own, ring.sub(ring.reduce(x), own)


def exact(a, b):
    """A B in Python integers."""
    return np.stack([x @ y for x, y in zip(a.astype(object), b.astype(object), strict=True)])


def way_for(job, method, variant):
    """The way of the first choice that the method finds for a product."""
    choice = Choice(method, variant, "pixels", "shared")
    return product_way_of(product_way_of(choice).options(choice, job)[0])


def run(way, job, both_a, both_b, forms=Forms(), keys=(1, 2), source: Source = OT):  # noqa: B008 (frozen)
    """Both shares of a product; bits and flows are held to the prediction."""
    parts = way.parts(source, forms, job)
    cost = total([*parts.offline.values(), *parts.online.values()])

    def side(rank):
        def go(wire):
            me: Any = make_party(wire, rank, source, Randomness(bytes([keys[rank]] * 16)))
            me.fill(cost.rots)
            before = me.messenger.trace.bits()[0], me.messenger.clock
            ready = way.prepare(me, job, "product")
            y = way.run(me, forms, job, both_a[rank], both_b[rank], ready)
            if source.has_store:
                assert (me.sender.stock.left, me.receiver.stock.left) == (0, 0)
            return y, me.messenger.trace.bits()[0] - before[0], before[1], me.messenger.clock

        return go

    (y0, sent0, from0, clock0), (y1, sent1, from1, clock1) = run_pair(side(0), side(1))
    assert (sent0, sent1) == cost.sent, "bits are not those predicted"
    assert (clock0, clock1) == cost.clocks((from0, from1)), "flows are not those predicted"
    return y0, y1


def joined(way, job, y0, y1):
    """A B modulo 2^L; guard bits hold 0 or 1."""
    guard = job.guard if way.guards else 0
    found = Ring(job.bits + guard).add(y0, y1).astype(object)
    assert ((found & (1 << guard) - 1) <= 1).all()
    return found >> guard
