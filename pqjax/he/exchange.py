"""A linear layer whose result comes back under the client's key, as published systems compute it.

    once a key   client -> server   seeds of all polynomials, b_pk = e_pk - a_pk s
    online       client -> server   b = e - a s + 2^(k-p) x1, whole polynomials
                 server -> client   for every output polynomial the high bits of
                                    c1 = sum w^ a + u a_pk + e1, and, masked and where they are sums,
                                    of c0 = sum w^ b + u b_pk

Both then hold shares of the sums of x = x0 + x1, the server's own x0 multiplied by itself
(`pqjax.he.resharing`). u is one output polynomial's own, as c1 without it is the weights times what the
client knows. Seeds are one inference's own: a, unlike with hints, must be fresh.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Bool, Integer, UInt64

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he.matrix import Matrix
from pqjax.he.packing import (
    Packing,
    Slots,
    low_pixels,
    pack_channels,
    pack_filters,
    pack_tiles,
    packed_filter,
    paired,
    several,
    slots,
)
from pqjax.he.phases import Geometry, Image, Pair
from pqjax.he.polynomial import Polynomials, product
from pqjax.he.precision import Filter
from pqjax.he.resharing import ReplyPrecision, mask, unmask
from pqjax.he.sampling import errors, ternary
from pqjax.he.secret import Secret
from pqjax.he.shares import rounded
from pqjax.he.tiling import Tiling
from pqjax.ring import Ring

Share = UInt64[np.ndarray, "sums K"]


@dataclasses.dataclass(frozen=True, repr=False)
class Reply:
    """What the server sends back: c1 in Ring(b1), and c0 where it is a sum, in Ring(b0)."""

    c1: UInt64[np.ndarray, "parcels rows N"]
    c0: Share


def parcels(tiling: Tiling, packing: Packing) -> int:
    """Tiles, or pairs of them."""
    return -(-tiling.tiles // (2 if packing is Packing.WITHIN else 1))


def sums(tiling: Tiling, packing: Packing) -> int:
    """Coefficients of c0 that travel, of one filter."""
    if packing is not Packing.WITHIN:
        return tiling.map.images * math.prod(tiling.phases.out_image)
    return _kept(tiling.map, tiling.degree, tiling.tile, packing)[1]


@functools.lru_cache(maxsize=1 << 12)
def _kept(
    m: Geometry, degree: int, tile: Pair, packing: Packing
) -> tuple[Bool[np.ndarray, "parcels pixels"], int]:
    """Which of parcels' pixels are some in their images, and how many: the same for any filters."""
    found = Tiling(m, degree, tile).inside
    found = np.logical_or(*paired(found)) if packing is Packing.WITHIN else found
    return found, int(found.sum())


@dataclasses.dataclass(frozen=True)
class TwoWay:
    """A layer's parameters, public and the same for both parties.

    Attributes:
      tiling: how what is multiplied lies in polynomials: `halved` channels if packed across.
      precision: its widths.
      packing: what shares a coefficient.
      sum_bits: l, the accumulator: of which precision.plain_bits hold one, or two.
    """

    tiling: Tiling
    precision: ReplyPrecision
    packing: Packing
    sum_bits: int

    def __post_init__(self) -> None:
        plain = self.packing.plain_bits(self.sum_bits)
        if plain != self.precision.plain_bits or self.tiling.degree != self.degree:
            raise InputError(
                f"{self.packing.value} packing of {self.sum_bits}-bit sums in {self.tiling.degree} "
                f"slots does not go with {self.precision}"
            )

    @property
    def degree(self) -> int:
        """N."""
        return self.precision.modulus.degree

    @property
    def operand_bits(self) -> int:
        """Of the ring that the operand is shared in."""
        return self.precision.plain_bits

    @property
    def result_bits(self) -> int:
        """Of the ring that images of sums are shared in: with a guard bit, twice the sums."""
        return self.sum_bits + self.precision.guard

    @property
    def low_bits(self) -> int:
        """Of what is shared in a low slot, where there is one."""
        return self.precision.share_bits - self.sum_bits

    @property
    def parcels(self) -> int:
        """Tiles, or pairs of them."""
        return parcels(self.tiling, self.packing)

    @property
    def polynomials(self) -> int:
        """Of the client's message, and public ones: all parcels'."""
        return self.parcels * self.tiling.polynomials

    @functools.cached_property
    def _kept(self) -> Bool[np.ndarray, "parcels pixels"]:
        """Which of a parcel's pixels are some in its images."""
        return _kept(self.tiling.map, self.degree, self.tiling.tile, self.packing)[0]

    @property
    def sums(self) -> int:
        """Coefficients of c0 that travel, of one filter."""
        return sums(self.tiling, self.packing)

    @property
    def wraps(self) -> int:
        """Wraps of low slots that exact shares of packed sums take."""
        return 0 if self.packing is Packing.NONE else self.sums * self.tiling.map.outputs

    @property
    def low_pixels(self) -> Bool[np.ndarray, "*n H W"]:
        """Whose `low_channels` first channels have to be shared mod 2^operand_bits."""
        t = self.tiling
        if self.packing is Packing.NONE:
            return np.zeros((*several(t.map), *t.map.image), bool)
        return low_pixels(t.map, t.degree, t.tile, self.packing)

    @property
    def low_channels(self) -> int:
        """Channels that are in low slots: all, or half of them packed across."""
        return self.tiling.map.inputs

    @property
    def lifts(self) -> int:
        """Elements of the operand in low slots."""
        return int(self.low_pixels.sum()) * self.low_channels

    @property
    def sent_cost(self) -> int:
        """Bits from the client to the server: b."""
        return self.polynomials * self.degree * self.precision.modulus.bits

    @property
    def reply_cost(self) -> int:
        """Bits from the server to the client: c1 and c0."""
        rows = self.parcels * self.tiling.hints * self.degree * self.precision.c1_bits
        return rows + self.sums * self.tiling.map.outputs * self.precision.c0_bits

    def matrix(self, seed: bytes, name: str) -> Matrix:
        """The layer's public polynomials; the seed is one inference's, the name the layer's."""
        return Matrix(self.precision.modulus, seed, name, self.polynomials)

    def encode(self, x: Image) -> UInt64[np.ndarray, "parcels P N"]:
        """Images of shares in Ring(operand_bits) as polynomials of parcels."""
        x = x.astype(np.uint64)
        if self.packing is Packing.CROSS:
            x = pack_channels(x, self.sum_bits)
        cut = self.tiling.cut(x)
        return pack_tiles(cut, self.sum_bits) if self.packing is Packing.WITHIN else cut

    def encrypt(
        self, secret: Secret, matrix: Matrix, x: Image
    ) -> UInt64[np.ndarray, "parcels P N"]:
        """b, in Ring(k), of the client's share x, in Ring(operand_bits)."""
        modulus = self.precision.modulus
        plain = self.encode(x)
        scaled = plain << np.uint64(modulus.bits - self.operand_bits)
        masks = secret.masks(matrix).reshape(plain.shape)
        return modulus.ring.reduce(scaled + masks).astype(np.uint64)

    def reply(
        self,
        weights: Integer[np.ndarray, "h w F K"],
        sent: UInt64[np.ndarray, "parcels P N"],
        public: Polynomials,
        matrix: Matrix,
        x: Image,
        randomness: Randomness,
    ) -> tuple[Reply, Share]:
        """What the server sends, and its share, in Ring(share_bits), of what c0 holds.

        Args:
          weights: signed; InputError if they exceed the bounds that the widths were made for.
          sent: b.
          public: b_pk (1, N), `Secret.zero` under the matrix's seed.
          matrix: the layer's.
          x: the server's share of the operand, in Ring(operand_bits).
          randomness: the server's.
        """
        own, t = self.precision, self.tiling
        k, p = own.modulus.bits, own.plain_bits
        if (matrix.count, matrix.modulus) != (self.polynomials, own.modulus):
            raise InputError(f"the layer takes {self.polynomials} polynomials, got {matrix.count}")
        largest = Filter(int((weights.astype(np.int64) ** 2).sum((0, 1, 2)).max()), 1)
        packed = weights
        if self.packing is Packing.CROSS:
            packed = pack_filters(weights, self.sum_bits)
            largest = packed_filter(largest, self.sum_bits)
        if largest.squares * t.filters > own.filter.squares:
            raise InputError("the filters are larger than the layer's widths allow")
        u = ternary(self.parcels * t.hints, self.degree, randomness)
        hidden = product(Matrix.key(own.modulus, matrix.seed).polynomials(), u, k)
        hidden += errors(len(u), self.degree, randomness).astype(np.uint64)
        zeros = product(public, u, k).reshape(self.parcels, t.hints, -1)
        a = matrix.polynomials().reshape(sent.shape)
        c1 = np.stack([t.multiply(packed, rows, k) for rows in a]).reshape(hidden.shape) + hidden
        high = rounded(own.modulus.ring.reduce(c1).astype(np.uint64), k, own.c1_bits)
        hidden = np.stack([t.rows(zero[:, t.positions]) for zero in zeros])
        phase = t.convolve(packed, t.used(sent), k) + hidden
        phase = own.modulus.ring.reduce(self._gather(phase)).astype(np.uint64)
        c0, share = mask(phase, own, randomness)
        mine = self._gather(t.convolve(packed, t.used(self.encode(x)), p))
        share = Ring(own.share_bits).reduce(share + (mine << np.uint64(own.guard)))
        c1 = high.astype(np.uint64).reshape(self.parcels, t.hints, -1)
        return Reply(c1, c0.astype(np.uint64)), share.astype(np.uint64)

    def _gather(self, found: UInt64[np.ndarray, "parcels K pixels"]) -> Share:
        return found.astype(np.uint64).transpose(0, 2, 1)[self._kept]

    def decrypt(self, secret: Secret, reply: Reply) -> Share:
        """The client's share, in Ring(share_bits)."""
        return unmask(self.phase(secret, reply), self.precision).astype(np.uint64)

    def phase(self, secret: Secret, reply: Reply) -> Share:
        """c0 + c1 s mod q: all that the secret opens, for `decrypt` and for tests."""
        own, t = self.precision, self.tiling
        k = own.modulus.bits
        whole = (reply.c1 << np.uint64(k - own.c1_bits)).reshape(-1, self.degree)
        opened = secret.times(whole).reshape(reply.c1.shape)
        phase = self._gather(np.stack([t.rows(rows[:, t.positions]) for rows in opened]))
        phase += reply.c0 << np.uint64(k - own.c0_bits)
        return own.modulus.ring.reduce(phase).astype(np.uint64)

    def slots(self, share: Share, rank: int) -> Slots:
        """The halves of rank's share (0: the server's), if packed."""
        return slots(share, self.low_bits, self.precision.share_bits, rank)

    def image(self, share: Share, rank: int, wrap: Share | None = None) -> Image:
        """Rank's share of the image of sums, in Ring(result_bits).

        Args:
          share: `decrypt`'s or `reply`'s.
          rank: 0 for the server.
          wrap: rank's share mod 2^l of whether both parties' `Slots.rest` reach 2^low_bits
            together. Without it sums of high slots may be off by one.
        """
        if self.packing is Packing.NONE:
            return self._scatter(share)
        found = self.slots(share, rank)
        high = found.near if wrap is None else found.high + wrap
        high = high << np.uint64(self.precision.guard)
        if self.packing is Packing.CROSS:
            return self._scatter(high)
        return self._scatter(found.low, high)

    def _scatter(self, *parts: Share) -> Image:
        room = np.zeros((*self._kept.shape, len(parts), self.tiling.map.outputs), np.uint64)
        room[self._kept] = np.stack(parts, 1)
        tiles = room.transpose(0, 2, 3, 1).reshape(-1, room.shape[-1], room.shape[1])
        return Ring(self.result_bits).reduce(self.tiling.join(tiles[: self.tiling.tiles]))
