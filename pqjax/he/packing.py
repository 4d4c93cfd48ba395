"""Two sums of l bits in one of s + l, s = l + 2 (HEQuant's intra-coefficient packing, arXiv 2401.15970).

    WITHIN   x_A + 2^s x_B, for two tiles A and B of the images:  w x = Y_A + 2^s Y_B
    CROSS    x_c + 2^s x_d against w_d + 2^s w_c, for two halves c and d of the channels:
             x_c w_d + 2^s (x_c w_c + x_d w_d)  mod 2^(s + l): the sum lies above what nobody wants

This holds for operands as integers: x_A and x_c are shared mod 2^(s + l), x_B and x_d mod 2^l at least.
The low slot's share is local. A low sum y makes the high slot's locally rounded shares off by one with
probability |y| / 2^s; with a wrap of the low slots (`Slots`) they are exact.

Why two bits more: l bits hold an accumulator with its sign, whatever its operands, 0 among them. So they
hold its bias, and products alone, or any part of their terms, lie in [-2^l, 2^l): that is the first bit.
With the second, what is shared of a low slot, moved by 2^l, has a top bit that is known to be 0, and its
wrap is one correlated OT instead of a comparison.
"""

import dataclasses
import enum
import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, UInt, UInt64

from pqjax.errors import InputError
from pqjax.he.phases import Geometry, Image, Pair
from pqjax.he.precision import Filter
from pqjax.he.shares import rounded
from pqjax.he.tiling import Tiling
from pqjax.ring import Ring

_SPARE_BITS = 2  # of a low slot, see above


def slot_bits(sum_bits: int) -> int:
    """s, of a low slot for sums of so many bits."""
    return sum_bits + _SPARE_BITS


class Packing(enum.Enum):
    """What shares a coefficient, see above."""

    NONE = "none"
    WITHIN = "within"
    CROSS = "cross"

    def plain_bits(self, sum_bits: int) -> int:
        """Bits of a coefficient of one sum, or of two."""
        return sum_bits if self is Packing.NONE else slot_bits(sum_bits) + sum_bits


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
    images: int


def halved(m: Geometry) -> Channels:
    """The layer that cross-packed channels make. InputError for layers in groups, or of one channel."""
    if m.groups != 1 or m.inputs < 2:
        raise InputError(f"channels pack across in one group of two or more, got {m}")
    own = (m.image, m.kernel, m.stride, m.padding, m.dilation)
    return Channels(*own, 1, -(-m.inputs // 2), m.outputs, m.images)


def several(m: Geometry) -> tuple[int, ...]:
    """How many images there are, where they are several: what shapes of operands begin with."""
    return (m.images,) if m.images > 1 else ()


@functools.lru_cache(maxsize=1 << 12)
def low_pixels(
    m: Geometry, degree: int, tile: Pair, packing: Packing
) -> Bool[np.ndarray, "*n H W"]:
    """Which pixels of the images lie in low slots: of tiles A, or all that are read, packed across."""
    one = Channels(m.image, m.kernel, m.stride, m.padding, m.dilation, 1, 1, 1, m.images)
    shape = *several(m), *m.image
    places = 1 + np.arange(math.prod(shape)).reshape(*shape, 1)
    cut = Tiling(one, degree, tile).cut(places)
    found = np.zeros(1 + places.size, bool)
    found[cut[:: 2 if packing is Packing.WITHIN else 1]] = True
    return found[1:].reshape(shape)


def packed_filter(of: Filter, sum_bits: int) -> Filter:
    """Bounds on w_d + 2^s w_c: by Cauchy and Schwarz (1 + 4^s) times the squares."""
    return Filter((1 + 4 ** slot_bits(sum_bits)) * of.squares, -(-of.terms // 2))


def pack_channels(x: Image, sum_bits: int) -> UInt64[np.ndarray, "*n H W c"]:
    """x_c + 2^s x_d mod 2^(s + l), c the first half of the channels."""
    return _stacked(*_halves(x.astype(np.uint64), x.ndim - 1), sum_bits)


def _stacked(low: np.ndarray, high: np.ndarray, sum_bits: int) -> np.ndarray:
    whole, s = Ring(Packing.CROSS.plain_bits(sum_bits)), np.uint64(slot_bits(sum_bits))
    return whole.reduce(low + (high << s)).astype(np.uint64)


def pack_filters(
    weights: Integer[np.ndarray, "h w C K"], sum_bits: int
) -> Integer[np.ndarray, "h w c K"]:
    """w_d + 2^s w_c, in a signed dtype that holds all weights of the given dtype so packed."""
    first, second = _halves(weights.astype(np.int64), 2)
    wide = packed_weight_bits(8 * weights.itemsize, sum_bits)
    return (second + (first << slot_bits(sum_bits))).astype(np.int32 if wide <= 32 else np.int64)


def packed_weight_bits(w_bits: int, sum_bits: int) -> int:
    """Of w_d + 2^s w_c; InputError if more than 64."""
    wide = w_bits + slot_bits(sum_bits) + 1
    if wide > 64:
        raise InputError(f"packed weights have {wide} bits, more than 64")
    return wide


def _halves(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    half = -(-x.shape[axis] // 2)
    lack = [(0, 2 * half - n if i == axis else 0) for i, n in enumerate(x.shape)]
    first, second = np.split(np.pad(x, lack), 2, axis)
    return first, second


def pack_tiles(
    tiles: UInt64[np.ndarray, "tiles P N"], sum_bits: int
) -> UInt64[np.ndarray, "pairs P N"]:
    """Neighbours in pairs, x_A + 2^s x_B mod 2^(s + l); zeros where there is no B."""
    return _stacked(*paired(tiles), sum_bits)


def paired(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tiles 0, 2, ... and 1, 3, ..., with zeros where there is none."""
    room = np.zeros((len(tiles) + len(tiles) % 2, *tiles.shape[1:]), tiles.dtype)
    room[: len(tiles)] = tiles
    return room[::2], room[1::2]


class Slots(NamedTuple):
    """One party's halves of shares of y + 2^b z mod 2^bits, y signed with b - 1 bits.

    z is exactly the sum of both parties' `high`, plus 1 where both parties' `rest` reach 2^b together.

    Attributes:
      low: share of y mod 2^b.
      rest: share of y + 2^(b-2) mod 2^b, in [0, 2^(b-1)): its top bit is 0.
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
        moved = whole.reduce(share + np.uint64(1 << low_bits - 2)).astype(np.uint64)
        back = rounded(whole.neg(share).astype(np.uint64), bits, high.bits)
        near = high.neg(back)  # half rounds down here and up there: no error at y = 0
    else:
        near = rounded(share, bits, high.bits)
    found = low.reduce(share), low.reduce(moved), moved >> np.uint64(low_bits), near
    return Slots(*(x.astype(np.uint64) for x in found))
