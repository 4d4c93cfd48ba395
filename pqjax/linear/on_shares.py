"""A linear layer on a shared operand, by any method that multiplies rank 1's numbers.

With X = x0 + x1 - 2^e wrap(x0, x1), the shares read as integers of e bits,

    W X = W x0 + W x1 - 2^e W wrap(x0, x1):

the first term is local at rank 0, the second is the method's, the third "Wrap & MUX", one OT for each
element of the operand, which does not exist where X fills the ring. Elements are pixels, or entries of
im2col's patches, as the method's form says.
"""

import numpy as np

from pqjax.linear.by_ot import vectors_work
from pqjax.linear.by_ot_layout import Laid, Layout, layout_of
from pqjax.linear.by_ot_transfer import Bits, choose_if, offer_if
from pqjax.linear.job import Encoded, Job, multiply_plain, plain_work
from pqjax.linear.map import Image
from pqjax.linear.method import Method
from pqjax.ot.source import Source
from pqjax.protocols.compare import carry_out_cost, known_wrap_bit, known_wrap_cost, wrap_bit
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.protocols.resize import extend, extend_cost
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, message, total, work


def serve(
    party: Party, method: Method, job: Job, encoded: Encoded, x: Image, forms: Forms
) -> Image:
    """Rank 0's half: [W X]^L of its plain weights and a shared X.

      1. extension of X, if the variant says so.
      2. as the method.
      3. as a wrap (cheap if the sign is known) and one chosen OT with all uses of an element.

    Of own share x, (H, W, C) in Ring(job.x.bits), it makes own share (H', W', K) in Ring(L). W is
    multiplied with rank 1's share by the method.

    Cost: `on_shares_cost`. Reference: PrivQuant, table 4; SiRNN, section III.E.
    """
    job, flat = _extended(party, method, job, x, forms)
    width, ring = method.extended(job), Ring(job.bits)
    y = method.serve(party, job, encoded)
    # Moved by half its range, a signed X is unsigned; the local product is of X as it was.
    moved = job.x.signed and not job.x.nonnegative and width < job.bits
    offset = 1 << (width - 1) if moved else 0
    flat = Ring(width).add(flat, Ring(width).reduce(offset))
    own = _image(method, job, ring.sub(ring.reduce(flat), ring.reduce(offset)))
    y = ring.add(y, multiply_plain(job, encoded, own, width, moved))
    if width < job.bits:
        layout, flags, part = _wraps(party, method, job, flat, forms)
        with party.messenger.step("wrap and mux"):
            weights = part.reduce(layout.weights(encoded.weights))
            wrapped = layout.image(offer_if(party, layout, weights, flags, part))
        y = ring.sub(y, ring.shift_left(wrapped.astype(ring.dtype), width))
    return y


def ask(party: Party, method: Method, job: Job, x: Image, forms: Forms) -> Image:
    """Rank 1's half, see `serve`."""
    job, flat = _extended(party, method, job, x, forms)
    width, ring = method.extended(job), Ring(job.bits)
    y = method.ask(party, job, _image(method, job, flat))
    if width < job.bits:
        layout, flags, part = _wraps(party, method, job, flat, forms)
        with party.messenger.step("wrap and mux"):
            wrapped = layout.image(choose_if(party, layout, flags, part))
        y = ring.sub(y, ring.shift_left(wrapped.astype(ring.dtype), width))
    return y


def on_shares_cost(source: Source, method: Method, job: Job, forms: Forms) -> Cost:
    """PrivQuant's table 4, exactly; of an operand that fills the ring only the product itself."""
    cost = work("steps", 1) + extension_cost(source, method, job, forms)
    cost += method.cost(source, job) + plain_work(job, method.extended(job))
    return cost + wraps_cost(source, method, job, forms)


def extension_cost(source: Source, method: Method, job: Job, forms: Forms) -> Cost:
    """What step 1 of `serve` costs by itself."""
    n, x = job.in_form(method.form).map.pixels, job.x
    return extend_cost(source, n, x.bits, method.extended(job), x.signed, x.nonnegative, forms)


def wraps_cost(source: Source, method: Method, job: Job, forms: Forms) -> Cost:
    """What step 3 of `serve` costs by itself."""
    job = job.in_form(method.form)
    width, n = method.extended(job), job.map.pixels
    if width == job.bits:
        return NOTHING
    if _sign_known(method, job):
        cost = known_wrap_cost(source, n, forms.known_wrap == "table")
    else:
        cost = carry_out_cost(source, n, width, forms)
    asked = source.extending_work(n, 1) + source.request(0, n)
    rings, pairs = [Ring(job.bits - width)], job.map.pairs
    taken, offered = zip(
        *vectors_work(job.map, 0, "pixels", method.form, rings), strict=True
    )  # two elements for each product
    sent = message(0, 2 * pairs * (job.bits - width))
    return cost + asked + total([*offered, work("words", 2 * pairs), sent, *taken])


def _extended(party: Party, method: Method, job: Job, x: Image, forms: Forms) -> tuple[Job, Laid]:
    """Step 1, in the method's form: the job on what is multiplied, and own share of that, flat."""
    if method.form == "patches":  # term by term
        x = np.moveaxis(job.map.im2col(x), -1, 0)
    job, t = job.in_form(method.form), job.x
    width = method.extended(job)
    return job, extend(party, x.reshape(-1), t.bits, width, t.signed, t.nonnegative, forms)


def _image(method: Method, job: Job, flat: Laid) -> Image:
    """Elements in the order of `_extended` as an image."""
    if method.form == "patches":
        return np.moveaxis(flat.reshape(-1, *job.map.several, *job.map.image), 0, -1)
    return flat.reshape(job.map.in_shape)


def _sign_known(method: Method, job: Job) -> bool:
    """Whether the top bit of the extended X is known to be 0."""
    return job.x.nonnegative if job.x.signed else method.extended(job) > job.x.bits


def _wraps(
    party: Party, method: Method, job: Job, flat: Laid, forms: Forms
) -> tuple[Layout, Bits, Ring]:
    """Step 3's wraps as they choose, the layout of their OTs, and the ring of what these carry."""
    width = method.extended(job)
    if _sign_known(method, job):
        wraps = known_wrap_bit(party, flat, width, forms.known_wrap == "table")
    else:
        wraps = wrap_bit(party, flat, width, forms)
    # Two elements for each product.
    layout = layout_of(job.map, "pixels", method.form, party.tuning.product_elements // 2)
    return layout, layout.pixels(_image(method, job, wraps)), Ring(job.bits - width)
