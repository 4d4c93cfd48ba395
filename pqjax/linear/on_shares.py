"""A linear layer on a shared operand, by any method that multiplies rank 1's numbers.

With X = x0 + x1 - 2^e wrap(x0, x1), the shares read as integers of e bits,

    W X = W x0 + W x1 - 2^e W wrap(x0, x1):

the first term is local at rank 0, the second is the method's, the third "Wrap & MUX", one OT for each
element of the operand, which does not exist where X fills the ring. Elements are pixels, or entries of
im2col's patches, as the method's form says.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt, UInt8

from pqjax.linear.by_ot_layout import Layout, layout_of
from pqjax.linear.by_ot_transfer import choose_if, offer_if
from pqjax.linear.job import Encoded, Job, multiply_plain
from pqjax.linear.method import Method
from pqjax.ot.source import Source
from pqjax.protocols.compare import known_wrap_bit, known_wrap_cost, less_than_cost, wrap_bit
from pqjax.protocols.party import Party
from pqjax.protocols.resize import Forms, extend, extend_cost
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, message


def serve(
    party: Party,
    method: Method,
    job: Job,
    encoded: Encoded,
    x: UInt[np.ndarray, "H W C"],
    forms: Forms,
) -> UInt[np.ndarray, "H2 W2 K"]:
    """Rank 0's half: [W X]^L of its plain weights and a shared X.

      1. extension of X, if the variant says so.
      2. as the method.
      3. as a wrap (cheap if the sign is known) and one chosen OT with all uses of an element.

    Args:
      party: this party.
      method: how W is multiplied with rank 1's share.
      job: the layer.
      encoded: the weights.
      x: own share, in Ring(job.x.bits).
      forms: forms of the small protocols.

    Returns:
      Own share in Ring(L). Cost: `on_shares_cost`. Reference: PrivQuant, table 4; SiRNN, section III.E.
    """
    job, x = _extended(party, method, job, x, forms)
    width, ring = method.extended(job), Ring(job.bits)
    offset = _offset(method, job)
    y = method.serve(party, job, encoded)
    # What was added is taken off again before the local product, whose numbers may be negative.
    moved = Ring(width).add(x, Ring(width).reduce(offset))
    own = ring.sub(ring.reduce(moved), ring.reduce(offset))
    y = ring.add(y, multiply_plain(job, encoded, own, width, offset > 0))
    if width == job.bits:
        return y
    layout, flags, part = _wraps(party, method, job, moved, forms)
    with party.messenger.step("wrap and mux"):
        weights = part.reduce(layout.weights(encoded.weights))
        wrapped = offer_if(party, layout, weights, flags, part)
    return ring.sub(y, ring.shift_left(layout.image(wrapped).astype(ring.dtype), width))


def ask(
    party: Party, method: Method, job: Job, x: UInt[np.ndarray, "H W C"], forms: Forms
) -> UInt[np.ndarray, "H2 W2 K"]:
    """Rank 1's half, see `serve`."""
    job, x = _extended(party, method, job, x, forms)
    width, ring = method.extended(job), Ring(job.bits)
    y = method.ask(party, job, x)
    if width == job.bits:
        return y
    layout, flags, part = _wraps(party, method, job, x, forms)
    with party.messenger.step("wrap and mux"):
        wrapped = choose_if(party, layout, flags, part)
    return ring.sub(y, ring.shift_left(layout.image(wrapped).astype(ring.dtype), width))


def on_shares_cost(source: Source, method: Method, job: Job, forms: Forms) -> Cost:
    """PrivQuant's table 4, exactly; of an operand that fills the ring only the product itself."""
    cost = extension_cost(source, method, job, forms) + method.cost(source, job)
    return cost + wraps_cost(source, method, job, forms)


def extension_cost(source: Source, method: Method, job: Job, forms: Forms) -> Cost:
    """What step 1 of `serve` costs by itself."""
    n, x = _laid(method, job).map.pixels, job.x
    return extend_cost(source, n, x.bits, method.extended(job), x.signed, x.nonnegative, forms)


def wraps_cost(source: Source, method: Method, job: Job, forms: Forms) -> Cost:
    """What step 3 of `serve` costs by itself."""
    job = _laid(method, job)
    width, n = method.extended(job), job.map.pixels
    if width == job.bits:
        return NOTHING
    if _sign_known(method, job):
        cost = known_wrap_cost(source, n, forms.known_wrap == "table")
    else:
        cost = less_than_cost(source, n, width)
    return cost + source.request(0, n) + message(0, 2 * job.map.pairs * (job.bits - width))


def _laid(method: Method, job: Job) -> Job:
    return job.columns if method.form == "patches" else job


def _extended(
    party: Party, method: Method, job: Job, x: np.ndarray, forms: Forms
) -> tuple[Job, np.ndarray]:
    """Step 1, in the method's form: the job on what is multiplied, and own share of it, an image."""
    if method.form == "patches":
        x = job.map.im2col(x)
    job, t = _laid(method, job), job.x
    flat = _in_order(method, x)
    flat = extend(party, flat, t.bits, method.extended(job), t.signed, t.nonnegative, forms)
    return job, _as_image(method, job, flat)


def _in_order(method: Method, x: np.ndarray) -> np.ndarray:
    """Elements in the order in which they are extended and compared: of patches, term by term."""
    return (x.transpose(2, 0, 1) if method.form == "patches" else x).reshape(-1)


def _as_image(method: Method, job: Job, flat: np.ndarray) -> np.ndarray:
    """Inverts `_in_order`."""
    if method.form == "patches":
        return flat.reshape(job.map.inputs, *job.map.image).transpose(1, 2, 0)
    return flat.reshape(job.map.in_shape)


def _offset(method: Method, job: Job) -> int:
    """What is added to a signed X so that its shares can be read as unsigned."""
    width = method.extended(job)
    moved = job.x.signed and not job.x.nonnegative and width < job.bits
    return 1 << (width - 1) if moved else 0


def _sign_known(method: Method, job: Job) -> bool:
    """Whether the top bit of the extended X is known to be 0."""
    return job.x.nonnegative if job.x.signed else method.extended(job) > job.x.bits


def _wraps(
    party: Party, method: Method, job: Job, x: np.ndarray, forms: Forms
) -> tuple[Layout, UInt8[np.ndarray, " *ots"], Ring]:
    """Step 3's wraps as they choose, the layout of their OTs, and the ring of what these carry."""
    width, flat = method.extended(job), _in_order(method, x)
    if _sign_known(method, job):
        wraps = known_wrap_bit(party, flat, width, forms.known_wrap == "table")
    else:
        wraps = wrap_bit(party, flat, width)
    # Two elements for each product.
    layout = layout_of(job.map, "pixels", method.form, party.tuning.product_elements // 2)
    return layout, layout.pixels(_as_image(method, job, wraps)), Ring(job.bits - width)
