"""Where every OT's words lie in a message and in the result, when products are made by OT.

A message has an element for every product of its pixels and weights, in an order that is the layout's
alone: (groups, outputs, inputs, pixels of a tap), tap by tap; for the columns of im2col whose pixels
choose (pixels, 1, inputs, outputs). Either way the third axis is summed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from pqjax.linear.choice import Chosen, Form
from pqjax.linear.map import LinearMap

Index = tuple[slice | int, ...]
Sizes = tuple[int, ...]


class Piece(NamedTuple):
    """Products of a message that belong together.

    Attributes:
      shape: of the products.
      words: which of the tile's words are theirs, as an index into `Tile.arranged`.
      carried: what their OTs carry, as an index into the offering side's numbers.
      spread: the shape in which that is broadcast to `shape`.
      sums: what they add to, as an index into the result.
    """

    shape: Sizes
    words: Index
    carried: Index
    spread: Sizes
    sums: Index


class Tile(NamedTuple):
    """A message.

    Attributes:
      ots: an index into the OTs of a bit position.
      words: of each of them.
      shape, axes: of the words of all of them, and the order in which pieces take them.
      pieces: what it consists of.
    """

    ots: Index
    words: int
    shape: Sizes
    axes: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def elements(self) -> int:
        """How many products it has."""
        return sum(math.prod(piece.shape) for piece in self.pieces)

    def arranged(self, words: Shaped[np.ndarray, "ots words"]) -> Shaped[np.ndarray, " *words"]:
        """The words of its OTs, of which there may be more than are used, for pieces to take."""
        return words[:, : self.words].reshape(self.shape).transpose(self.axes)


@dataclasses.dataclass(frozen=True)
class Layout:
    """All OTs of one bit position, and how the numbers of a map are laid out for them.

    Attributes:
      map: its geometry.
      pixels_first: (pixels, inputs) with (inputs, outputs) to (pixels, 1, outputs), and not
        (groups, inputs, H, W) with (taps, groups, outputs, inputs) to (groups, outputs, H', W').
      ots: shape of the choices.
      tiles: the messages, in their order.
    """

    map: LinearMap
    pixels_first: bool
    ots: Sizes
    tiles: tuple[Tile, ...]

    @property
    def sums(self) -> Sizes:
        """Shape of the result."""
        m = self.map
        if self.pixels_first:
            return math.prod(m.image), 1, m.outputs
        return m.groups, m.fan_out, *m.out_image

    def pixels(self, x: Shaped[np.ndarray, "H W C"]) -> Shaped[np.ndarray, " *laid"]:
        """An operand as it chooses, or is offered."""
        m = self.map
        if self.pixels_first:
            return x.reshape(-1, m.inputs)
        return np.ascontiguousarray(x.transpose(2, 0, 1)).reshape(m.groups, m.fan_in, *m.image)

    def weights(self, w: Shaped[np.ndarray, " *laid"]) -> Shaped[np.ndarray, " *laid"]:
        """The weights as they choose, or are offered: those of taps that read anything."""
        m = self.map
        if self.pixels_first:
            return w.reshape(m.inputs, m.outputs)
        split = w.reshape(*m.kernel, m.fan_in, m.groups, m.fan_out)
        return np.stack([split[tap.at].transpose(1, 2, 0) for tap in m.taps])

    def image(self, share: Shaped[np.ndarray, " *laid"]) -> Shaped[np.ndarray, "H2 W2 K"]:
        """The result as an image."""
        m = self.map
        if self.pixels_first:
            return share.reshape(m.out_shape)
        return np.ascontiguousarray(share.reshape(-1, *m.out_image).transpose(1, 2, 0))


@functools.lru_cache(maxsize=256)
def layout_of(m: LinearMap, chosen: Chosen, form: Form, elements: int) -> Layout:
    """The layout of a map's OTs.

    Args:
      m: the map; its `columns` where the form is patches.
      chosen: whose bits choose.
      form: of the operand; patches whose pixels choose have an order of their own.
      elements: how many a message holds at most, if it can.
    """
    if chosen == "weights":
        return _by_weights(m, elements)
    return _by_patches(m, elements) if form == "patches" else _by_pixels(m, elements)


def _by_weights(m: LinearMap, elements: int) -> Layout:
    """A weight's OT carries what its tap reads."""
    tiles = []
    for t, tap in enumerate(m.taps):
        for g, k, c in _cuts(m.groups, m.fan_out, m.fan_in, tap.area, elements):
            shape = _count(g), _count(k), _count(c), tap.area
            spread = shape[0], 1, shape[2], tap.area
            piece = Piece(shape, (), (g, c, *tap.pixels), spread, (g, k, *tap.outputs))
            tiles.append(Tile((t, g, k, c), tap.area, shape, (0, 1, 2, 3), (piece,)))
    return Layout(m, False, (len(m.taps), m.groups, m.fan_out, m.fan_in), tuple(tiles))


def _by_pixels(m: LinearMap, elements: int) -> Layout:
    """A pixel's OT carries its weights in all uses."""
    tiles, every = [], slice(None)
    for g, k, c in _cuts(m.groups, m.fan_out, m.fan_in, math.prod(m.image) * m.slots, elements):
        n = _count(g), _count(k), _count(c)
        pieces = []
        for t, tap in enumerate(m.taps):
            words = (tap.slot, every, every, every, *tap.pixels)
            sums = (g, k, *tap.outputs)
            pieces.append(Piece((*n, *tap.sides), words, (t, g, k, c), (*n, 1, 1), sums))
        shape = n[0], n[2], *m.image, m.slots, n[1]
        tiles.append(Tile((g, c), m.slots * n[1], shape, (4, 0, 5, 1, 2, 3), tuple(pieces)))
    return Layout(m, False, (m.groups, m.fan_in, *m.image), tuple(tiles))


def _by_patches(m: LinearMap, elements: int) -> Layout:
    """A column's OT carries its weights; pixels come first and outputs last."""
    tiles, pixels = [], math.prod(m.image)
    for _, p, c in _cuts(1, pixels, m.inputs, m.outputs, elements):
        shape = _count(p), 1, _count(c), m.outputs
        piece = Piece(shape, (), (c,), (1, *shape[1:]), (p,))
        tiles.append(Tile((p, c), m.outputs, shape, (0, 1, 2, 3), (piece,)))
    return Layout(m, True, (pixels, m.inputs), tuple(tiles))


def _count(span: slice) -> int:
    return span.stop - span.start


def _cuts(
    groups: int, outer: int, inner: int, area: int, elements: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Cuts (groups, outer, inner) OTs of `area` elements each into tiles of bearable size."""
    steps, room = [], max(1, elements // area)
    for n in (inner, outer, groups):
        steps.append(min(n, room))
        room = max(1, room // steps[-1])
    for g in range(0, groups, steps[2]):
        for k in range(0, outer, steps[1]):
            for c in range(0, inner, steps[0]):
                yield (
                    slice(g, min(g + steps[2], groups)),
                    slice(k, min(k + steps[1], outer)),
                    slice(c, min(c + steps[0], inner)),
                )
