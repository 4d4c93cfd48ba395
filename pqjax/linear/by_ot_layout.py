"""Where every OT's words lie in a message and in the result, when products are made by OT.

A message has an element for every product of its pixels and weights, in the order (groups, outputs,
inputs, images if they are several, a tap's rows and columns), tap by tap. The third axis is summed.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from types import EllipsisType
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from pqjax.linear.choice import Chosen, Form
from pqjax.linear.map import Image, LinearMap

Index = tuple[slice | int | None | EllipsisType, ...]
Laid = Shaped[np.ndarray, " *laid"]
Sizes = tuple[int, ...]


class View(NamedTuple):
    """Which words of a tile's OTs belong to a piece; a constant of the kernels that use it.

    Attributes:
      words: that each OT has.
      shape, axes: of the words of all of them, and how they are turned.
      own: how many axes at the end of `shape` are an OT's own.
      at: slot, rows and columns (start, stop, step) of the piece in that; None for all.
    """

    words: int
    shape: Sizes
    axes: Sizes
    own: int = 2
    at: tuple[int, Sizes, Sizes] | None = None

    def __call__(self, words):
        """The piece's words of (OTs, at least as many words as each needs)."""
        found = words[:, : self.words].reshape(self.shape).transpose(self.axes)
        if self.at is None:
            return found
        slot, rows, columns = self.at
        return found[slot, ..., slice(*rows), slice(*columns)]

    def of_bits(self, bits, dtype):
        """A bit (OTs, 1) of every OT, to be broadcast to the piece's words."""
        at = self.at and (0, *self.at[1:])
        shape = *self.shape[: -self.own], *(1,) * self.own
        return View(1, shape, self.axes, self.own, at)(bits.astype(dtype))


class Piece(NamedTuple):
    """Products of a message that belong together.

    Attributes:
      shape: of the products.
      view: which of the tile's words are theirs.
      carried: what their OTs carry, as an index into the offering side's numbers, broadcast to `shape`.
      sums: what they add to, as an index into the result.
    """

    shape: Sizes
    view: View
    carried: Index
    sums: Index


class Tile(NamedTuple):
    """A message.

    Attributes:
      ots: which OTs of a bit position it belongs to, as an index.
      words: of each of them.
      pieces: what it consists of.
    """

    ots: Index
    words: int
    pieces: tuple[Piece, ...]

    @property
    def elements(self) -> int:
        """How many products it has."""
        return sum(math.prod(piece.shape) for piece in self.pieces)


@dataclasses.dataclass(frozen=True)
class Layout:
    """All OTs of one bit position, and how numbers are laid out for them.

    Attributes:
      map: the geometry.
      turned: whether pixels and weights of a product have changed places: (W X)^T = X^T W^T.
      ots, sums: shapes of the choices and of the result.
      tiles: the messages, in their order.
    """

    map: LinearMap
    turned: bool
    ots: Sizes
    sums: Sizes
    tiles: tuple[Tile, ...]

    def pixels(self, x: Image) -> Laid:
        """An operand as it chooses, or is offered: (groups, inputs, *n, H, W)."""
        m = self.map
        if self.turned:
            return x.reshape(self.ots)
        planes = np.ascontiguousarray(np.moveaxis(x, -1, 0))
        return planes.reshape(m.groups, m.fan_in, *planes.shape[1:])

    def weights(self, w: Laid) -> Laid:
        """Weights likewise: (taps that read anything, groups, outputs, inputs)."""
        m = self.map
        if self.turned:
            return w.reshape(1, m.inputs, 1, m.outputs)
        split = w.reshape(*m.kernel, m.fan_in, m.groups, m.fan_out)
        return np.stack([split[tap.at].transpose(1, 2, 0) for tap in m.taps])

    def image(self, sums: Laid) -> Image:
        """The result, (*n, H', W', K)."""
        if self.turned:
            return sums.reshape(self.map.out_shape)
        planes = sums.reshape(-1, *sums.shape[2:])
        return np.ascontiguousarray(np.moveaxis(planes, 0, -1))


@functools.lru_cache(maxsize=256)
def layout_of(m: LinearMap, chosen: Chosen, form: Form, elements: int) -> Layout:
    """The layout of a map's OTs.

    Where the form is patches, `m` is a map's `columns`; if their pixels choose, they take the place of
    weights. A message holds at most so many elements, if it can.
    """
    turned = chosen == "pixels" and form == "patches"
    pixels = m.images * math.prod(m.image)
    inner = LinearMap.pointwise((1, m.outputs), m.inputs, pixels) if turned else m
    if chosen == "pixels" and not turned:
        ots, tiles = (m.groups, m.fan_in, *m.several, *m.image), _by_pixels(m, elements)
    else:
        ots = len(inner.taps), inner.groups, inner.fan_out, inner.fan_in
        tiles = _by_weights(inner, elements)
    sums = inner.groups, inner.fan_out, *inner.several, *inner.out_image
    return Layout(m, turned, ots, sums, tuple(tiles))


def _by_weights(m: LinearMap, elements: int) -> Iterator[Tile]:
    """A weight's OT carries what its tap reads."""
    for t, tap in enumerate(m.taps):
        area = math.prod(tap.sides)
        for (g, k, c), n in _cuts(m, area, elements):
            shape, carried = (*n, *tap.sides), (g, None, c, *tap.pixels)
            view = View(area, shape, tuple(range(len(shape))), len(tap.sides))
            yield Tile((t, g, k, c), area, (Piece(shape, view, carried, (g, k, *tap.outputs)),))


def _by_pixels(m: LinearMap, elements: int) -> Iterator[Tile]:
    """A pixel's OT carries its weights in all uses."""
    sides = *m.several, *m.image
    turned = 2 + len(sides), 0, 3 + len(sides), 1, *range(2, 2 + len(sides))
    for (g, k, c), n in _cuts(m, math.prod(sides) * m.slots, elements):
        words, shape = m.slots * n[1], (n[0], n[2], *sides, m.slots, n[1])
        pieces = []
        for t, tap in enumerate(m.taps):
            rows, columns = ((s.start, s.stop, s.step) for s in tap.pixels[1:])
            view = View(words, shape, turned, at=(tap.slot, rows, columns))
            carried = (t, g, k, c, *(None,) * len(sides))
            pieces.append(Piece((*n, *tap.sides), view, carried, (g, k, *tap.outputs)))
        yield Tile((g, c), words, tuple(pieces))


def _cuts(m: LinearMap, area: int, elements: int) -> Iterator[tuple[tuple[slice, ...], Sizes]]:
    """Cuts (groups, outputs, inputs) of `area` elements each into tiles of bearable size."""
    room, spans = max(1, elements // area), []
    for n in (m.fan_in, m.fan_out, m.groups):
        step = min(n, room)
        spans.append([slice(i, min(i + step, n)) for i in range(0, n, step)])
        room = max(1, room // step)
    for at in itertools.product(*spans[::-1]):
        yield at, tuple(s.stop - s.start for s in at)
