"""A linear layer over RLWE, both parties' halves in one place, with what only a test may see."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.he import (
    LIMITS,
    STATIC,
    Filter,
    Hint,
    Matrix,
    Packing,
    Precision,
    Reply,
    Secret,
    ServerKey,
    Tiling,
    TwoWay,
    cheapest,
)
from pqjax.he.polynomial import product
from pqjax.he.published import _tiled
from pqjax.he.shares import short, with_masks
from pqjax.linear import Choice
from pqjax.linear.by_reply import SYSTEMS
from pqjax.linear.by_rlwe import bound
from pqjax.linear.choice import ReplyPacking
from pqjax.ring import Ring

SEED = bytes(range(16))


def plain(m, w, x):
    """The convolution in Python's integers or numpy's int64: (H', W', K), by loops over taps."""
    if m.images > 1:
        one = dataclasses.replace(m, images=1)
        return np.stack([plain(one, w, image) for image in x])
    x = np.pad(x, (*m.padding, (0, 0)))
    high, wide = m.out_image
    y = np.zeros((high, wide, m.outputs), np.int64)
    for i, j in np.ndindex(m.kernel):
        top, left = i * m.dilation[0], j * m.dilation[1]
        seen = x[top :: m.stride[0], left :: m.stride[1]][:high, :wide]
        for g in range(m.groups):
            ins = slice(g * m.fan_in, (g + 1) * m.fan_in)
            outs = slice(g * m.fan_out, (g + 1) * m.fan_out)
            y[..., outs] += seen[..., ins] @ w[i, j][:, outs]
    return y


def hint_of(tiling, own, w, matrix, randomness):
    """A layer's hint and the server's key to it, of one stream."""
    key = ServerKey.draw(tiling, own, w, matrix, randomness)
    return key.hint(matrix, randomness), key


def encrypt(masks, x, own):
    """What travels of x under these masks."""
    return with_masks(x, short(masks, own), own)


def filter_of(w):
    """The tightest bounds."""
    squares = (w.astype(np.int64) ** 2).sum((0, 1, 2)).max()
    return Filter(int(squares), int(np.prod(w.shape[:3])))


def weights_of(rng, m, w_bits):
    """Random signed weights, the first filter as large as can be."""
    half = 1 << w_bits - 1
    w = rng.integers(-half, half, m.weight_shape)
    w[..., 0] = -half
    return w.astype(np.int8 if w_bits <= 8 else np.int16)


@dataclasses.dataclass
class Layer:
    """A layer at both parties; every call of `infer` is an inference with fresh secrets."""

    tiling: Tiling
    precision: Precision
    weights: np.ndarray
    matrix: Matrix
    hint: Hint
    key: ServerKey
    randomness: Randomness

    def infer(self, x, x0, secrets=None):
        """Shares of the guarded sums (server, client), and the errors e, of x = x0 + x1 mod 2^l."""
        t, own = self.tiling, self.precision
        ring, q = Ring(own.sum_bits), own.modulus.ring
        ours, theirs = t.cut(x0), t.cut(ring.sub(x, x0))
        true = t.cut(x)
        shares, errors = ([], []), []
        for i in range(t.tiles):
            secret = secrets[i] if secrets else Secret(own.modulus, self.randomness)
            public, masks = secret.zero(SEED), secret.masks(self.matrix)
            sent = encrypt(t.used(masks[None]), t.used(theirs[i, None]), own)
            levels = own.merging.levels if own.merging else ()
            zero = self.key.zero(public, [secret.switching(SEED, level) for level in levels])
            mine = t.used(ours[i, None])
            shares[0].append(self.key.share(sent, zero[None], mine)[0])
            shares[1].append(secret.share(t, self.hint))

            whole = self.hint.high << np.uint64(own.hint_dropped_bits)
            phase = t.rows(product(whole, secret._s, q.bits)[:, t.positions]) + zero
            phase += t.convolve(self.weights, sent, own.sent_bits)[0] << np.uint64(own.dropped_bits)
            y, sums = (
                t.convolve(self.weights, t.used(each[i, None]), own.sum_bits)[0]
                for each in (true, ours)
            )
            y = ring.reduce(y - sums)
            phase -= y.astype(np.uint64) << np.uint64(q.bits - own.sum_bits)
            errors.append(q.signed(q.reduce(phase)))
        return t.join(np.stack(shares[0])), t.join(np.stack(shares[1])), np.stack(errors)


def layer(m, w, sum_bits, tiling=None, precision=None, key=bytes(16), inferences=100):
    """A layer with widths for its weights; the cheapest tiling if none is given."""
    found, own = cheapest(m, sum_bits, filter_of(w), inferences)
    tiling, own = tiling or found, precision or own
    randomness = Randomness(key)
    matrix = Matrix(STATIC, SEED, "layer", tiling.polynomials)
    hint, server = hint_of(tiling, own, w, matrix, randomness)
    return Layer(tiling, own, w, matrix, hint, server, randomness)


PACKED = "widths+tiling+packing"


def layouts(job, packing):
    """HEQuant's choices of two sums a coefficient, in some layouts, with their numbers of tiles."""
    if packing is Packing.CROSS and (job.map.groups > 1 or job.map.inputs < 2):
        return []
    args = job.map, job.exact_bits, bound(job), SYSTEMS["hequant"][PACKED], packing
    found = []
    for at in (at for degree in LIMITS for at in itertools.islice(_tiled(*args, degree), 40)):
        own, tiling = at.precision, at.tiling
        bits = own.modulus.bits, own.c1_bits, own.c0_bits
        packed = ReplyPacking(tiling.tile, tiling.filters, at.degree, *bits, packing.value)
        if packing is Packing.CROSS or tiling.tiles > 1:
            found.append((tiling.tiles, Choice("hequant", PACKED, "pixels", "shared", packed)))
    return sorted(found, key=lambda each: each[0])


def operands(rng, m, sum_bits):
    """An image of any elements, and the server's share."""
    ring = Ring(sum_bits)
    both = rng.integers(0, 1 << sum_bits, (2, *m.in_shape))
    return ring.reduce(both[0]), ring.reduce(both[1])


class Exchange(NamedTuple):
    """A layer computed with a reply: what both parties hold, and what went between them."""

    at: TwoWay
    secret: Secret
    matrix: Matrix
    public: np.ndarray
    sent: np.ndarray
    reply: Reply
    server: np.ndarray
    client: np.ndarray

    def image(self, exact=True):
        """The sums mod 2^l, with an ideal wrap of low slots if exact; half of those with a guard."""
        at, shares = self.at, (self.server, self.client)
        wraps = None, None
        if exact and at.packing is not Packing.NONE:
            rests = [at.slots(share, rank).rest for rank, share in enumerate(shares)]
            # The one known top bit of both: what `known_wrap_element` makes of them.
            wraps = (rests[0] | rests[1]) >> np.uint64(at.low_bits - 1), np.zeros_like(self.client)
        images = [at.image(shares[rank], rank, wraps[rank]) for rank in (0, 1)]
        both = Ring(at.result_bits).add(*images)
        return both >> both.dtype.type(at.precision.guard)


def exchange(at, w, x, x0, key=bytes(16), name="layer"):
    """One inference of x = x0 + x1 mod 2^at.operand_bits, of keys that follow from one."""
    ring, server = Ring(at.operand_bits), Randomness(key[::-1])
    secret = Secret(at.precision.modulus, Randomness(bytes(15) + key[:1]))
    matrix = at.matrix(SEED, name)
    sent = at.encrypt(secret, matrix, ring.sub(ring.reduce(x), x0))
    public = secret.zero(SEED)
    reply, share = at.reply(w, sent, public, matrix, x0, server)
    return Exchange(at, secret, matrix, public, sent, reply, share, at.decrypt(secret, reply))
