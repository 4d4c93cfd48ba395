"""Where every OT's words lie in a message and in the result, when products are made by OT.

A message has an element for every product of its pixels and weights, in the order (groups, outputs,
inputs, a tap's rows and columns), tap by tap. The third axis is summed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from pqjax.linear.choice import Chosen, Form
from pqjax.linear.map import Image, LinearMap

Index = tuple[slice | int | None, ...]
Laid = Shaped[np.ndarray, " *laid"]
Sizes = tuple[int, ...]


class Piece(NamedTuple):
    """Products of a message that belong together.

    Attributes:
      shape: of the products.
      words: which of the tile's words are theirs, as an index into `Tile.arranged`.
      carried: what their OTs carry, as an index into the offering side's numbers, broadcast to `shape`.
      sums: what they add to, as an index into the result.
    """

    shape: Sizes
    words: Index
    carried: Index
    sums: Index


class Tile(NamedTuple):
    """A message.

    Attributes:
      ots: which OTs of a bit position it belongs to, as an index.
      words: of each of them.
      shape, axes: of the words of all of them, and the order in which pieces take them.
      pieces: what it consists of.
    """

    ots: Index
    words: int
    shape: Sizes
    axes: Sizes
    pieces: tuple[Piece, ...]

    @property
    def elements(self) -> int:
        """How many products it has."""
        return sum(math.prod(piece.shape) for piece in self.pieces)

    def arranged(self, words: Laid) -> Laid:
        """What its OTs have, (OTs, at least as many words as each needs), for pieces to take."""
        return words[:, : self.words].reshape(self.shape).transpose(self.axes)


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
        """An operand as it chooses, or is offered: (groups, inputs, H, W)."""
        m = self.map
        if self.turned:
            return x.reshape(self.ots)
        return np.ascontiguousarray(x.transpose(2, 0, 1)).reshape(m.groups, m.fan_in, *m.image)

    def weights(self, w: Laid) -> Laid:
        """Weights likewise: (taps that read anything, groups, outputs, inputs)."""
        m = self.map
        if self.turned:
            return w.reshape(1, m.inputs, 1, m.outputs)
        split = w.reshape(*m.kernel, m.fan_in, m.groups, m.fan_out)
        return np.stack([split[tap.at].transpose(1, 2, 0) for tap in m.taps])

    def image(self, sums: Laid) -> Image:
        """The result, (H', W', K)."""
        if self.turned:
            return sums.reshape(self.map.out_shape)
        return np.ascontiguousarray(sums.reshape(-1, *self.map.out_image).transpose(1, 2, 0))


@functools.lru_cache(maxsize=256)
def layout_of(m: LinearMap, chosen: Chosen, form: Form, elements: int) -> Layout:
    """The layout of a map's OTs.

    Args:
      m: the map; its `columns` where the form is patches.
      chosen: whose bits choose.
      form: of the operand; if the pixels of patches choose, they take the place of weights.
      elements: how many a message holds at most, if it can.
    """
    turned = chosen == "pixels" and form == "patches"
    inner = LinearMap.pointwise((1, m.outputs), m.inputs, math.prod(m.image)) if turned else m
    if chosen == "pixels" and not turned:
        ots, tiles = (m.groups, m.fan_in, *m.image), _by_pixels(m, elements)
    else:
        ots = len(inner.taps), inner.groups, inner.fan_out, inner.fan_in
        tiles = _by_weights(inner, elements)
    sums = inner.groups, inner.fan_out, *inner.out_image
    return Layout(m, turned, ots, sums, tuple(tiles))


def _by_weights(m: LinearMap, elements: int) -> Iterator[Tile]:
    """A weight's OT carries what its tap reads."""
    for t, tap in enumerate(m.taps):
        area = math.prod(tap.sides)
        for (g, k, c), n in _cuts(m, area, elements):
            shape, carried = (*n, *tap.sides), (g, None, c, *tap.pixels)
            piece = Piece(shape, (), carried, (g, k, *tap.outputs))
            yield Tile((t, g, k, c), area, shape, (0, 1, 2, 3, 4), (piece,))


def _by_pixels(m: LinearMap, elements: int) -> Iterator[Tile]:
    """A pixel's OT carries its weights in all uses."""
    every = slice(None)
    for (g, k, c), n in _cuts(m, math.prod(m.image) * m.slots, elements):
        pieces = []
        for t, tap in enumerate(m.taps):
            words, carried = (tap.slot, every, every, every, *tap.pixels), (t, g, k, c, None, None)
            pieces.append(Piece((*n, *tap.sides), words, carried, (g, k, *tap.outputs)))
        shape = n[0], n[2], *m.image, m.slots, n[1]
        yield Tile((g, c), m.slots * n[1], shape, (4, 0, 5, 1, 2, 3), tuple(pieces))


def _cuts(m: LinearMap, area: int, elements: int) -> Iterator[tuple[tuple[slice, ...], Sizes]]:
    """Cuts (groups, outputs, inputs) of `area` elements each into tiles of bearable size."""
    room, spans = max(1, elements // area), []
    for n in (m.fan_in, m.fan_out, m.groups):
        step = min(n, room)
        spans.append([slice(i, min(i + step, n)) for i in range(0, n, step)])
        room = max(1, room // step)
    for at in itertools.product(*spans[::-1]):
        yield at, tuple(s.stop - s.start for s in at)
