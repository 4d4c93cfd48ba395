"""How an image and its filters lie in polynomials, and what of them travels.

A tile of Hw x Ww pixels is one polynomial for every Cw channels, Kw filters share one hint:

    x^[c Hw Ww + i Ww + j]            = X[c, i, j]           A = Cw Hw Ww,  Kw A <= N
    w^[O - k A - c Hw Ww - a Ww - b]  = W[a, b, c, k]        O = Kw A - Hw Ww + Ww (h - 1) + w - 1
    (w^ x^)[O - k A + i Ww + j]       = Y[k, i, j]

(Cheetah's and HEQuant's encoding, on the step-1 map of `phases`.) Wanted coefficients of one filter
read slots of x^ only, so with Kw = 1 only those travel and the server's half is the plain convolution of
what came. With more filters a product all slots count, and hints are fewer. Groups share polynomials;
they have Kw = 1.

Several images (`Geometry.images`) have tiles of their own, one image's after another's.

Hints of g filters with Kw = 1 can be merged instead (`pqjax.he.merging`), where Cw = g channels lie side
by side:

    x^[(i Ww + j) g + c]  = X[c, i, j]       w^[O - (a Ww + b) g - c] = W[a, b, c, k]
    O = g (Ww (h - 1) + w - 1)               (w^ x^)[O + (i Ww + j) g] = Y[k, i, j]

and k coefficients further once they are merged.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped, UInt, UInt64

from pqjax.errors import InputError
from pqjax.he.modulus import STATIC, Modulus
from pqjax.he.phases import Geometry, Image, Pair, Phases
from pqjax.he.polynomial import Polynomials
from pqjax.he.precision import Filter, Precision, precision_for, widths_for
from pqjax.ring import Ring, conv, matmul

_STRETCH = 512  # coefficients of a hint at a time: all copies of all channels would fill the memory


_phases = functools.lru_cache(maxsize=1 << 10)(Phases)  # one layer's are those of all its tilings


@dataclasses.dataclass(frozen=True)
class Tiling:
    """A layer cut into equal tiles of its padded image, and filters packed into hints.

    Attributes:
      map: the layer.
      degree: N.
      tile: Hw, Ww.
      filters: Kw.
      merged: g; 1 where hints are not merged.
    """

    map: Geometry
    degree: int
    tile: Pair
    filters: int = 1
    merged: int = 1

    def __post_init__(self) -> None:
        kernel, image = self.phases.kernel, self.phases.image
        inside = all(t <= n <= m for t, n, m in zip(kernel, self.tile, image, strict=True))
        together = self.filters * self.merged
        if not inside or self.area * together > self.degree:
            raise InputError(
                f"tiles hold a kernel of {kernel}, lie in an image of {image} and fit {self.degree} "
                f"slots, got {self.tile} for {together} filters"
            )
        if not 1 <= self.filters <= (self.map.outputs if self.map.groups == 1 else 1):
            raise InputError(f"filters of one group share a hint, got {self.filters}")
        if self.merged > 1 and (
            self.filters > 1 or self.map.groups > 1 or self.merged & self.merged - 1
        ):
            raise InputError(
                f"2^n hints of a filter and of one group are merged, got {self.merged}"
            )

    @functools.cached_property
    def phases(self) -> Phases:
        """The layer as a convolution of step 1."""
        return _phases(self.map)

    @property
    def area(self) -> int:
        """Slots of a channel."""
        return math.prod(self.tile)

    @functools.cached_property
    def channels(self) -> int:
        """Cw: channels in one polynomial."""
        if self.merged > 1:
            return self.merged
        return min(self.phases.inputs, self.degree // (self.area * self.filters))

    @property
    def polynomials(self) -> int:
        """How many polynomials make a tile."""
        return -(-self.phases.inputs // self.channels)

    @property
    def hints(self) -> int:
        """How many polynomials make the layer's hint."""
        return -(-self.map.outputs // (self.filters * self.merged))

    @functools.cached_property
    def grid(self) -> Pair:
        """Tiles down and across an image. Neighbours share kernel - 1 rows or columns."""
        axes = zip(self.phases.out_image, self._out_tile, strict=True)
        down, right = (-(-n // step) for n, step in axes)
        return down, right

    @property
    def tiles(self) -> int:
        """How many tiles all images have, each of which needs a secret of its own."""
        return self.map.images * math.prod(self.grid)

    @functools.cached_property
    def _out_tile(self) -> Pair:
        axes = zip(self.tile, self.phases.kernel, strict=True)
        down, right = (n - t + 1 for n, t in axes)
        return down, right

    @property
    def slots(self) -> int:
        """Coefficients of a tile that travel."""
        if self.filters == 1:
            return self.phases.inputs * self.area
        return self.polynomials * self.degree

    @property
    def sums(self) -> int:
        """Coefficients of a product with a hint that are wanted."""
        return self.filters * self.merged * math.prod(self._out_tile)

    def products(self, bits: int) -> int:
        """Products of 8-bit digits that `convolve` sums of a tile, of numbers of so many bits."""
        return math.prod(self._out_tile) * self.weights * -(-bits // 8)

    @property
    def weights(self) -> int:
        """How many weights there are of `phases`, those that are zero among them."""
        fan_in = self.phases.inputs // self.map.groups
        return math.prod(self.phases.kernel) * fan_in * self.map.outputs

    def hint_cost(self, hint_bits: int) -> int:
        """Bits of the hint, once."""
        return self.hints * self.degree * hint_bits

    def sent_cost(self, sent_bits: int) -> int:
        """Bits of the client's one message, with every inference."""
        return self.tiles * self.slots * sent_bits

    def cut(self, x: Image) -> Shaped[np.ndarray, "tiles P N"]:
        """Images (*n, H, W, C) as the polynomials of their tiles, zero where no channel lies."""
        planes = self._tiled(x).transpose(0, 3, 1, 2).reshape(self.tiles, -1, self.area)
        room = np.zeros((self.tiles, self.polynomials * self.channels, self.area), x.dtype)
        room[:, : planes.shape[1]] = planes
        found = np.zeros((self.tiles, self.polynomials, self.degree), x.dtype)
        if self.merged > 1:
            room = room.reshape(self.tiles, self.polynomials, self.channels, -1).swapaxes(2, 3)
        found[..., : self.channels * self.area] = room.reshape(self.tiles, self.polynomials, -1)
        return found

    def _tiled(self, x: Image) -> Shaped[np.ndarray, "tiles Hw Ww C"]:
        images, step = self.phases.images(x.reshape(-1, *x.shape[-3:])), self._out_tile
        sides = [(n - 1) * s + t for n, s, t in zip(self.grid, step, self.tile, strict=True)]
        more = [(0, n - m) for n, m in zip(sides, images.shape[1:], strict=False)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(images, ((0, 0), *more, (0, 0))), self.tile, axis=(1, 2)
        )[:, :: step[0], :: step[1]]
        return windows.transpose(0, 1, 2, 4, 5, 3).reshape(self.tiles, *self.tile, -1)

    def join(self, y: Shaped[np.ndarray, "tiles K pixels"]) -> Image:
        """The wanted sums of all tiles as images (*n, H', W', K)."""
        (down, right), (high, wide) = self.grid, self._out_tile
        y = y.reshape(-1, down, right, self.map.outputs, high, wide).transpose(0, 1, 4, 2, 5, 3)
        rows, columns = self.phases.out_image
        y = y.reshape(len(y), down * high, right * wide, -1)[:, :rows, :columns]
        return y if self.map.images > 1 else y[0]

    @functools.cached_property
    def inside(self) -> Bool[np.ndarray, "tiles pixels"]:
        """Which of a tile's sums lie in its image; others are padding's."""
        axes = zip(self.phases.out_image, self.grid, self._out_tile, strict=True)
        rows, columns = ((np.arange(g * t) < n).reshape(g, t) for n, g, t in axes)
        found = (rows[:, None, :, None] & columns[:, None, :]).reshape(math.prod(self.grid), -1)
        return np.tile(found, (self.map.images, 1))

    def used(self, polynomials: UInt[np.ndarray, "tiles P N"]) -> UInt[np.ndarray, "tiles slots"]:
        """Of tiles' polynomials the coefficients that travel."""
        if self.filters == 1:
            polynomials = polynomials[..., : self.channels * self.area]
        if self.merged > 1:
            shape = *polynomials.shape[:2], self.area, self.channels
            polynomials = polynomials.reshape(shape).swapaxes(2, 3)
        return polynomials.reshape(len(polynomials), -1)[:, : self.slots]

    @property
    def _offset(self) -> int:
        (h, w), (_, width) = self.phases.kernel, self.tile
        last = width * (h - 1) + w - 1
        if self.merged > 1:
            return last * self.merged
        return (self.filters * self.channels - 1) * self.area + last

    @functools.cached_property
    def positions(self) -> Int[np.ndarray, " wanted"]:
        """Which coefficients of a tile's products are sums: Kw or g filters' pixels."""
        (high, wide), block = self._out_tile, self.channels * self.area
        pixels = (np.arange(high)[:, None] * self.tile[1] + np.arange(wide)).reshape(-1)
        if self.merged > 1:
            filters = np.arange(self.merged)[:, None]
            return (self._offset + filters + pixels * self.merged).reshape(-1)
        return (self._offset - np.arange(self.filters)[:, None] * block + pixels).reshape(-1)

    def rows(self, found: UInt64[np.ndarray, "hints wanted"]) -> UInt64[np.ndarray, "K pixels"]:
        """The coefficients at `positions`, a row a filter."""
        return found.reshape(-1, math.prod(self._out_tile))[: self.map.outputs]

    def multiply(
        self, weights: Integer[np.ndarray, "h w F K"], polynomials: Polynomials, bits: int
    ) -> UInt64[np.ndarray, "rows N"]:
        """Every filter polynomial w^ times a tile's polynomials (P, N), summed, mod 2^bits.

        One for every hint, before they are merged. A product with w^ is a sum of turned copies (X^N =
        -1), one a weight: a convolution of a kernel's rows Ww apart, by int8 digits; of every g-th
        coefficient by itself.
        """
        (h, w), apart = self.phases.kernel, self.merged
        each = self.degree // apart
        step, kernels = min(_STRETCH, each), self._packed(weights)
        places = np.arange(h)[:, None] * self.tile[1] + np.arange(step + w - 1)
        starts = np.arange(min(apart, _STRETCH // step))[:, None, None]
        found = np.empty((self.hints * apart, each, apart), np.uint64)
        for at, first in np.ndindex(each // step, apart // len(starts)):
            at, first = at * step, first * len(starts)
            images = self._turned(polynomials, (places + at) * apart + starts + first, bits)
            found[:, at : at + step, first : first + len(starts)] = conv(
                images, kernels, Ring(bits),
                groups=self.map.groups, w_bits=8 * weights.itemsize, w_signed=True,
            )[:, 0].transpose(2, 1, 0)  # fmt: skip
        return found.reshape(len(found), self.degree)

    def _turned(self, polynomials: np.ndarray, places: np.ndarray, bits: int) -> np.ndarray:
        """What a weight of each of Kw F channels meets at places (...): (..., Kw F)."""
        inputs, ring = self.phases.inputs, Ring(bits)
        turned = np.concatenate([polynomials, ring.neg(polynomials)], axis=1, dtype=ring.dtype)
        channel = np.tile(np.arange(inputs), self.filters)
        block = np.repeat(np.arange(self.filters), inputs) * self.channels * self.area
        apart = self.area if self.merged == 1 else 1
        shift = self._offset - block - channel % self.channels * apart
        return turned[channel // self.channels, (places[..., None] - shift) % (2 * self.degree)]

    def _packed(self, weights: np.ndarray) -> np.ndarray:
        """Kernels (h, w, Kw F, rows): the filters of a product beside each other."""
        found, rows = self.phases.weights(weights), self.hints * self.merged
        lack = rows * self.filters - self.map.outputs
        found = np.pad(found, ((0, 0), (0, 0), (0, 0), (0, lack)))
        found = found.reshape(*found.shape[:3], rows, self.filters)
        return found.transpose(0, 1, 4, 2, 3).reshape(*found.shape[:2], -1, rows)

    def convolve(
        self, weights: Integer[np.ndarray, "h w F K"], slots: np.ndarray, bits: int
    ) -> UInt64[np.ndarray, "tiles K pixels"]:
        """The wanted coefficients of `multiply` for what travelled, (tiles, slots), mod 2^bits."""
        (h, w), digits = self.phases.kernel, 8 * weights.itemsize
        if self.filters > 1:
            taps = np.add.outer(np.arange(h) * self.tile[1], np.arange(w)).reshape(-1)
            kernels = self._packed(weights).reshape(-1, self.hints)
            found = []
            for whole in slots.reshape(-1, self.polynomials, self.degree):
                columns = self._turned(whole, self.positions[:, None] + taps, bits)
                columns = columns.reshape(len(self.positions), -1)
                sums = matmul(columns, kernels, Ring(bits), b_bits=digits, b_signed=True)
                found.append(self.rows(sums.T.astype(np.uint64)))
            return np.stack(found)
        tiles = slots.reshape(len(slots), -1, *self.tile).transpose(0, 2, 3, 1)
        found = conv(
            tiles, self.phases.weights(weights), Ring(bits),
            groups=self.map.groups, w_bits=8 * weights.itemsize, w_signed=True,
        )  # fmt: skip
        found = np.asarray(found).reshape(len(slots), -1, self.map.outputs)
        return found.transpose(0, 2, 1).astype(np.uint64)


def tilings(m: Geometry, degree: int) -> Iterator[Tiling]:
    """All worth a look: the smallest tile for each number of tiles, fewest filters for each of hints."""
    counts = {-(-m.outputs // n): n for n in range(m.outputs, 0, -1)}
    filters_of = sorted(counts.values()) if m.groups == 1 else [1]
    for tile in _tiles(m, degree):
        for filters in filters_of:
            if filters * math.prod(tile) <= degree:
                yield Tiling(m, degree, tile, filters)


def merged_tilings(m: Geometry, degree: int, merged: int) -> Iterator[Tiling]:
    """Those that merge so many filters' hints; none where they are too few, or in groups."""
    if m.groups == 1 and merged < 2 * m.outputs:
        for tile in _tiles(m, degree // merged):
            yield Tiling(m, degree, tile, 1, merged)


def _tiles(m: Geometry, most: int) -> Iterator[Pair]:
    phases = _phases(m)
    for high in _sides(phases.image[0], phases.kernel[0], most):
        for wide in _sides(phases.image[1], phases.kernel[1], most // high):
            yield high, wide


def _sides(side: int, kernel: int, most: int) -> list[int]:
    """Sides of tiles, the smallest for each number of them."""
    found = {}
    for tile in range(min(side, most), kernel - 1, -1):
        found[-(-(side - kernel + 1) // (tile - kernel + 1))] = tile
    return list(found.values())


def cheapest(
    m: Geometry, sum_bits: int, of: Filter, inferences: int, modulus: Modulus = STATIC
) -> tuple[Tiling, Precision]:
    """The tiling of fewest bits for a client that makes so many inferences, and its widths.

    InputError if no parameters do for sums of so many bits.
    """
    widths: dict[int, Precision | None] = {1: precision_for(sum_bits, of, modulus)}
    found = None
    for tiling in tilings(m, modulus.degree):
        if tiling.filters not in widths:
            widths[tiling.filters] = widths_for(sum_bits, of.packed(tiling.filters), modulus)
        own = widths[tiling.filters]
        if own is None:
            continue  # fewer filters need less room
        bits = tiling.hint_cost(own.hint_bits) + inferences * tiling.sent_cost(own.sent_bits)
        if found is None or bits < found[0]:
            found = bits, tiling, own
    if found is None:
        raise InputError(f"no tile of {modulus.degree} slots holds a kernel of {m.kernel}")
    return found[1:]
