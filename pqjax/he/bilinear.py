"""Products of two matrices that are both shared, on ciphertexts under the client's key, in one exchange.

Of A B = sum of all A_i B_j for A = A0 + A1 and B = B0 + B1 mod 2^l the two terms that no party can
compute are linear in what the client has:

    offline   client -> server   a seed of all polynomials, b_pk = e_pk - a_pk s
    online    client -> server   c(A1) and c(B1), with c(x) = e - a s + 2^(k-l) x, whole polynomials
              server -> client   for every block of A B the high bits of
                                 c1 = a(A1) b0 + a0 a(B1) + u a_pk + e1  and, masked and where they are
                                 sums, of  c0 = c(A1) b0 + a0 c(B1) + u b_pk

a0 and b0 are the polynomials of the server's shares. So both terms share one reply, one mask and one
error. A and B are cut into blocks of r x t and t x c numbers (r t c <= N), a polynomial each:

    a[i t c + t - 1 - h] = A[i, h]     b[j t + h] = B[h, j]     (a b)[i t c + j t + t - 1] = (A B)[i, j]

(Cheetah, eprint 2022/207, for a vector; Iron, NeurIPS 2022.) Other products of an i and a j lie less
than t coefficients away from that place, and what X^N = -1 turns around lies below the first. Replies
are made shares as in `pqjax.he.resharing`: u is one block's own, for c1 without it is the server's
shares times what the client knows.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt, UInt64

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he.matrix import Matrix
from pqjax.he.modulus import LIMITS
from pqjax.he.polynomial import Polynomials, bilinear, product
from pqjax.he.precision import Filter
from pqjax.he.resharing import ReplyPrecision, Sharing, mask, unmask, widths
from pqjax.he.sampling import errors, ternary
from pqjax.he.secret import Secret
from pqjax.he.shares import rounded
from pqjax.ring import Ring, matmul

Shares = UInt[np.ndarray, "rows columns"]
Blocks = UInt[np.ndarray, "i j N"]


class BlockReply(NamedTuple):
    """What the server sends back: c1 in Ring(b1), and c0 where it is a sum, in Ring(b0)."""

    c1: UInt64[np.ndarray, "blocks N"]
    c0: UInt64[np.ndarray, "rows columns"]


@dataclasses.dataclass(frozen=True)
class Bilinear:
    """One product's parameters, public and the same for both parties.

    Attributes:
      shape: rows of A, its columns, and columns of B.
      block: r, t, c.
      precision: its widths; `plain_bits` are l, of the ring that A and B are shared in.
    """

    shape: tuple[int, int, int]
    block: tuple[int, int, int]
    precision: ReplyPrecision

    def __post_init__(self) -> None:
        if min(*self.shape, *self.block) < 1 or math.prod(self.block) > self.degree:
            raise InputError(f"blocks of 1 to {self.degree} slots expected, got {self.block}")
        if bound(self.shape, self.block, self.precision.plain_bits) != self.precision.filter:
            raise InputError(f"widths for other shares than those of {self.shape} in {self.block}")

    @property
    def degree(self) -> int:
        """N."""
        return self.precision.modulus.degree

    @functools.cached_property
    def grid(self) -> tuple[int, int, int]:
        """Blocks along rows of A, along its columns, and along columns of B."""
        i, j, k = (-(-n // each) for n, each in zip(self.shape, self.block, strict=True))
        return i, j, k

    @property
    def polynomials(self) -> int:
        """Of the client's message, and public ones."""
        i, j, k = self.grid
        return (i + k) * j

    @property
    def replies(self) -> int:
        """Polynomials of the server's message."""
        return self.grid[0] * self.grid[2]

    @property
    def sums(self) -> int:
        """Elements of the product."""
        return self.shape[0] * self.shape[2]

    @property
    def sent_cost(self) -> int:
        """Bits from the client to the server."""
        return self.polynomials * self.degree * self.precision.modulus.bits

    @property
    def reply_cost(self) -> int:
        """Bits from the server to the client."""
        c1 = self.replies * self.degree * self.precision.c1_bits
        return c1 + self.sums * self.precision.c0_bits

    def matrix(self, seed: bytes, name: str) -> Matrix:
        """Its public polynomials: those of A's blocks, then those of B's."""
        return Matrix(self.precision.modulus, seed, name, self.polynomials)

    @functools.cached_property
    def _places(self) -> tuple[Int[np.ndarray, "r t"], Int[np.ndarray, "t c"]]:
        """Where the numbers of a block of A and of one of B lie."""
        r, t, c = (np.arange(n) for n in self.block)
        return t[::-1] + r[:, None] * (len(t) * len(c)), t[:, None] + c * len(t)

    @functools.cached_property
    def _wanted(self) -> Int[np.ndarray, "r c"]:
        """Where the sums of a block lie."""
        r, t, c = self.block
        return np.arange(r)[:, None] * t * c + np.arange(c) * t + t - 1

    def _polynomials(self, x: Shares, first: int) -> Blocks:
        """A (first = 0) or B (1) as its blocks' polynomials."""
        places, (i, j) = self._places[first], self.grid[first : first + 2]
        high, wide = places.shape
        room = np.zeros((i * high, j * wide), x.dtype)
        room[: x.shape[0], : x.shape[1]] = x
        found = np.zeros((i, j, self.degree), x.dtype)
        found[..., places] = room.reshape(i, high, j, wide).swapaxes(1, 2)
        return found

    def _sums(self, blocks: Blocks) -> Shares:
        """The sums in blocks of the product, (i, k, N) or those of a flat list."""
        i, _, k = self.grid
        found = blocks.reshape(i, k, -1)[..., self._wanted].swapaxes(1, 2)
        return found.reshape(i * self.block[0], -1)[: self.shape[0], : self.shape[2]]

    def _split(self, found: Polynomials) -> tuple[Blocks, Blocks]:
        """Polynomials of A's blocks and of B's, of all in a row."""
        i, j, k = self.grid
        return found[: i * j].reshape(i, j, -1), found[i * j :].reshape(j, k, -1)

    def encrypt(self, secret: Secret, matrix: Matrix, a: Shares, b: Shares) -> Polynomials:
        """c(A1) and c(B1), in Ring(k), of the client's shares in Ring(l)."""
        k, plain = self.precision.modulus.bits, self.precision.plain_bits
        parts = (self._polynomials(x, i).reshape(-1, self.degree) for i, x in enumerate((a, b)))
        scaled = np.concatenate([*parts]).astype(np.uint64) << np.uint64(k - plain)
        return Ring(k).reduce(scaled + secret.masks(matrix)).astype(np.uint64)

    def reply(
        self, sent: Polynomials, public: Polynomials, matrix: Matrix,
        a: Shares, b: Shares, randomness: Randomness,
    ) -> tuple[BlockReply, Shares]:  # fmt: skip
        """What the server sends, and its share of A B in Ring(share_bits).

        Args:
          sent: what `encrypt` made.
          public: b_pk (1, N), `Secret.zero` under the matrix's seed.
          matrix: the product's.
          a: the server's share of A, in Ring(l).
          b: its share of B.
          randomness: the server's.
        """
        own, (k, plain) = self.precision, (self.precision.modulus.bits, self.precision.plain_bits)
        if (matrix.count, matrix.modulus) != (self.polynomials, own.modulus):
            raise InputError(f"a product of {self.polynomials} polynomials got {matrix.count}")
        pairs = zip(self._split(matrix.polynomials()), self._split(sent), strict=True)
        others = tuple(np.stack(pair) for pair in pairs)
        mine = self._polynomials(a, 0), self._polynomials(b, 1)
        c1, c0 = bilinear(mine, (others[0], others[1]), plain, k)
        u = ternary(self.replies, self.degree, randomness)
        hidden = product(Matrix.key(own.modulus, matrix.seed).polynomials(), u, k)
        hidden += errors(len(u), self.degree, randomness).astype(np.uint64)
        q = own.modulus.ring
        c1 = q.reduce(c1.reshape(hidden.shape) + hidden).astype(np.uint64)
        zeros = product(public, u, k)
        phase = q.reduce(self._sums(c0) + self._sums(zeros)).astype(np.uint64)
        c0, share = mask(phase, own, randomness)
        local = np.asarray(matmul(a, b, Ring(plain))).astype(np.uint64) << np.uint64(own.guard)
        share = Ring(own.share_bits).reduce(share + local).astype(np.uint64)
        return BlockReply(
            rounded(c1, k, own.c1_bits).astype(np.uint64), c0.astype(np.uint64)
        ), share

    def decrypt(self, secret: Secret, reply: BlockReply, a: Shares, b: Shares) -> Shares:
        """The client's share in Ring(share_bits), of its own shares of A and B."""
        own = self.precision
        local = np.asarray(matmul(a, b, Ring(own.plain_bits))).astype(np.uint64)
        found = unmask(self.phase(secret, reply), own).astype(np.uint64)
        found += local << np.uint64(own.guard)
        return Ring(own.share_bits).reduce(found).astype(np.uint64)

    def phase(self, secret: Secret, reply: BlockReply) -> Shares:
        """c0 + c1 s mod q: all that the secret opens, for `decrypt` and for tests."""
        own, k = self.precision, self.precision.modulus.bits
        opened = self._sums(secret.times(reply.c1 << np.uint64(k - own.c1_bits)))
        opened = opened + (reply.c0 << np.uint64(k - own.c0_bits))
        return own.modulus.ring.reduce(opened).astype(np.uint64)


def bound(shape: tuple[int, int, int], block: tuple[int, int, int], plain_bits: int) -> Filter:
    """What errors of the client's are multiplied with in one coefficient: any shares of l bits.

    Those of a row of blocks of A, r numbers for each of its columns, and of a column of blocks of B.
    """
    terms = shape[1] * (min(block[0], shape[0]) + min(block[2], shape[2]))
    return Filter(terms << 2 * (plain_bits - 1), terms)


@functools.lru_cache(maxsize=1 << 10)
def cheapest_bilinear(shape: tuple[int, int, int], plain_bits: int, sharing: Sharing) -> Bilinear:
    """The blocks and widths of fewest bits both ways; InputError if none are wide enough."""
    found = None
    for degree in LIMITS:
        for block in _blocks(shape, degree):
            for own in widths(plain_bits, bound(shape, block, plain_bits), degree, sharing):
                at = Bilinear(shape, block, own)
                if found is None or _bits(at) < _bits(found):
                    found = at
    if found is None:
        raise InputError(f"no parameters for products of shares of {plain_bits} bits, {shape}")
    return found


def _bits(at: Bilinear) -> int:
    return at.sent_cost + at.reply_cost


def _blocks(shape: tuple[int, int, int], degree: int) -> Iterator[tuple[int, int, int]]:
    """All worth a look: the smallest side for each number of blocks along rows and columns."""
    rows, terms, columns = shape
    for r, c in itertools.product(_sides(rows, degree), _sides(columns, degree)):
        most = min(terms, degree // (r * c))
        if most:
            yield r, -(-terms // -(-terms // most)), c


def _sides(n: int, most: int) -> list[int]:
    """The smallest sides for each number of parts of n."""
    return sorted({-(-n // parts) for parts in range(1, n + 1) if -(-n // parts) <= most})
