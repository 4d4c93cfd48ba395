"""Tensors of a source whose axes are in another order than ours: what stands where.

A source reshapes, transposes, slices and splits; here nothing moves. A `View` says of every element of
such a tensor which element of ours, (H, W, C) or (C,), it is. Only where a layer needs an image or a
vector does a gather of channels follow, or a permutation of a dense layer's weights, if anything.

    reshape (1, g, c, h, w) -> transpose (0, 2, 1, 3, 4) -> reshape (1, c * g, h, w)   =>   take
    flatten (1, c * h * w) -> dense                                                   =>   dense
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Int

from nets.importing.builder import Builder
from pqjax.graph.bounds import Shape

Places = Int[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor of the source as one of ours.

    Attributes:
      tensor: ours.
      shape: the source's, the batch of 1 included.
      places: of that shape: the index of every element in ours, which is (H, W, C) or (C,); None where
        the source has (1, C, H, W), (1, C, W) of one row or (1, C) of one pixel.
    """

    tensor: str
    shape: tuple[int, ...]
    places: Places | None = None

    @staticmethod
    def of(builder: Builder, tensor: str, places: Places) -> View:
        """What stands at these places."""
        own = _plain(builder.shapes[tensor], places.shape)
        same = own is not None and np.array_equal(own, places)
        return View(tensor, places.shape, None if same else places)

    def all_places(self, builder: Builder) -> Places:
        """Those of every element, whether they are written down or not."""
        if self.places is not None:
            return self.places
        found = _plain(builder.shapes[self.tensor], self.shape)
        assert found is not None  # else they are written down
        return found

    def channels(self, builder: Builder) -> Places:
        """The channel of ours that every element is of."""
        return self.all_places(builder) % builder.shapes[self.tensor][-1]

    def moved(self, builder: Builder, axis: int) -> View:
        """With an axis as the source's channels."""
        if axis == 1:
            return self
        return View.of(builder, self.tensor, np.moveaxis(self.all_places(builder), axis, 1))

    def image(self, builder: Builder) -> str:
        """Our tensor of just these elements: an image for (1, C, H, W) and (1, C, W).

        Raises:
          GraphError: rows and columns are not where they were.
        """
        if self.places is None:
            return self.tensor
        if not 2 <= len(self.shape) <= 4 or self.shape[0] != 1:
            raise builder.fault(
                f"an image of the source's shape (1, C, H, W) expected, got {self.shape}"
            )
        high, wide, channels = _sides(builder.shapes[self.tensor])
        grid = self.places.reshape(self.shape[1], -1).T
        sides = (1,) * (4 - len(self.shape)) + self.shape[2:]
        pixels = np.arange(high * wide).reshape(high, wide) * channels
        if grid[0].max() < channels:
            for step in _steps((high, wide), sides):
                every = pixels[:: step[0], :: step[1]].ravel()
                if len(every) == len(grid) and (grid == every[:, None] + grid[0]).all():
                    thin = self.tensor if step == (1, 1) else builder.subsample(self.tensor, step)
                    return builder.take(thin, grid[0])
        if len(grid) == 1:
            return builder.take(builder.flatten(self.tensor), grid[0])
        raise builder.fault(
            f"reads {self.shape} of an image {(1, channels, high, wide)} whose rows or columns were "
            "moved: channels alone can be sliced, split and shuffled; crop before the network"
        )

    def vector(self, builder: Builder) -> tuple[str, Places]:
        """Our flat tensor, and the places in it of all elements in the source's order."""
        return builder.flatten(self.tensor), self.all_places(builder).ravel()


def _sides(shape: Shape) -> tuple[int, int, int]:
    high, wide, channels = shape if len(shape) == 3 else (1, 1, *shape)
    return high, wide, channels


def _steps(read: tuple[int, int], made: tuple[int, ...]) -> list[tuple[int, int]]:
    """Strides by which rows and columns could be left out: none, or those that make such sides."""
    if read == made:
        return [(1, 1)]
    high, wide = (-(-a // b) for a, b in zip(read, made, strict=True))
    return [(high, wide)]


def _plain(ours: Shape, shape: tuple[int, ...]) -> Places | None:
    """Places where the source has our axes in its usual order; None where its shape is another."""
    high, wide, channels = _sides(ours)
    usual = {4: (1, channels, high, wide), 3: (1, channels, wide), 2: (1, channels)}
    if shape != usual.get(len(shape)) or math.prod(shape) != high * wide * channels:
        return None
    return np.arange(high * wide * channels).reshape(-1, channels).T.reshape(shape)
