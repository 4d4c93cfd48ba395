"""Two sums of l bits in one of 2 l (HEQuant's intra-coefficient packing, arXiv 2401.15970).

    WITHIN   x_A + 2^l x_B, for two tiles A and B of an image:  w x = Y_A + 2^l Y_B
    CROSS    x_c + 2^l x_d against w_d + 2^l w_c, for two halves c and d of the channels:
             x_c w_d + 2^l (x_c w_c + x_d w_d)  mod 2^(2 l): the sum lies above what nobody wants

This holds for operands as integers: x_A and x_c are shared mod 2^(2 l), x_B and x_d mod 2^l at least.
And it takes that l bits hold low slots with their sign, as they do parts of an accumulator's terms.
The low slot's share is local. A low sum y makes the high slot's locally rounded shares off by one with
probability |y| / 2^l; with a wrap of the low slots (`Slots`) they are exact.
"""

import dataclasses
import enum
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt, UInt64

from pqjax.errors import InputError
from pqjax.he.phases import Geometry, Image, Pair
from pqjax.he.precision import Filter
from pqjax.he.shares import rounded
from pqjax.ring import Ring


class Packing(enum.Enum):
    """What shares a coefficient, see above."""

    NONE = "none"
    WITHIN = "within"
    CROSS = "cross"


@dataclasses.dataclass(frozen=True)
class Channels:
    """A layer's geometry, with half as many input channels (`halved`)."""

    image: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    groups: int
    inputs: int
    outputs: int


def halved(m: Geometry) -> Channels:
    """The layer that cross-packed channels make. InputError for layers in groups, or of one channel."""
    if m.groups != 1 or m.inputs < 2:
        raise InputError(f"channels pack across in one group of two or more, got {m}")
    own = (m.image, m.kernel, m.stride, m.padding, m.dilation)
    return Channels(*own, 1, -(-m.inputs // 2), m.outputs)


def packed_filter(of: Filter, bits: int) -> Filter:
    """Bounds on w_d + 2^bits w_c: by Cauchy and Schwarz (1 + 4^bits) times the squares."""
    return Filter((1 + 4**bits) * of.squares, -(-of.terms // 2))


def pack_channels(x: Image, bits: int) -> UInt64[np.ndarray, "H W c"]:
    """x_c + 2^bits x_d mod 2^(2 bits), c the first half of the channels."""
    first, second = _halves(x.astype(np.uint64), 2)
    return Ring(2 * bits).reduce(first + (second << np.uint64(bits))).astype(np.uint64)


def pack_filters(
    weights: Integer[np.ndarray, "h w C K"], bits: int
) -> Integer[np.ndarray, "h w c K"]:
    """w_d + 2^bits w_c, in a signed dtype that holds all weights of the given dtype so packed."""
    first, second = _halves(weights.astype(np.int64), 2)
    wide = 8 * weights.itemsize + bits
    if wide >= 64:
        raise InputError(f"packed weights have {wide + 1} bits, more than 64")
    return (second + (first << bits)).astype(np.int32 if wide < 32 else np.int64)


def _halves(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    half = -(-x.shape[axis] // 2)
    lack = [(0, 2 * half - n if i == axis else 0) for i, n in enumerate(x.shape)]
    first, second = np.split(np.pad(x, lack), 2, axis)
    return first, second


def pack_tiles(
    tiles: UInt64[np.ndarray, "tiles P N"], bits: int
) -> UInt64[np.ndarray, "pairs P N"]:
    """Neighbours in pairs, x_A + 2^bits x_B mod 2^(2 bits); zeros where there is no B."""
    first, second = paired(tiles)
    return Ring(2 * bits).reduce(first + (second << np.uint64(bits))).astype(np.uint64)


def paired(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tiles 0, 2, ... and 1, 3, ..., with zeros where there is none."""
    room = np.zeros((len(tiles) + len(tiles) % 2, *tiles.shape[1:]), tiles.dtype)
    room[: len(tiles)] = tiles
    return room[::2], room[1::2]


class Slots(NamedTuple):
    """One party's halves of shares of y + 2^b z mod 2^bits, y signed with b bits.

    z is exactly the sum of both parties' `high`, plus 1 where both parties' `rest` reach 2^b together.

    Attributes:
      low: share of y mod 2^b.
      rest: share of y + 2^(b-1) mod 2^b.
      high: share mod 2^(bits - b), less that 1.
      near: share of z mod 2^(bits - b), off by one with probability |y| / 2^b.
    """

    low: UInt64[np.ndarray, "*s"]
    rest: UInt64[np.ndarray, "*s"]
    high: UInt64[np.ndarray, "*s"]
    near: UInt64[np.ndarray, "*s"]


def slots(share: UInt[np.ndarray, "*s"], low_bits: int, bits: int, rank: int) -> Slots:
    """The halves of rank's share in Ring(bits), of which one party's must be uniform."""
    whole, low, high = Ring(bits), Ring(low_bits), Ring(bits - low_bits)
    share = share.astype(np.uint64)
    moved = share
    if rank == 0:
        moved = whole.reduce(share + np.uint64(1 << low_bits - 1)).astype(np.uint64)
        back = rounded(whole.neg(share).astype(np.uint64), bits, high.bits)
        near = high.neg(back)  # half rounds down here and up there: no error at y = 0
    else:
        near = rounded(share, bits, high.bits)
    found = low.reduce(share), low.reduce(moved), moved >> np.uint64(low_bits), near
    return Slots(*(x.astype(np.uint64) for x in found))
