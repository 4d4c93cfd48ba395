"""Where every element of an array comes from: reshapes, transposes, slices and pads need no operation.

An array that a source computes holds the elements of one tensor of ours in some order, and perhaps
zeros. What only moves elements is done to the places instead, by the very primitive. Layers ask for an
image or a vector, and find it among the places, or a crop, a stride or zeros around one.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Int

from nets.importing.builder import Builder
from pqjax.graph.bounds import Shape

ZERO = -1  # the place of what is padded
Axes = tuple[int | None, int | None, int | None]  # an array's, of rows, columns and channels


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array of a source.

    Attributes:
      name: of a tensor of ours.
      places: of each of the array's elements in it, flat; `ZERO` for a zero.
    """

    name: str
    places: Int[np.ndarray, "..."]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.places.shape

    @property
    def flat(self) -> bool:
        """Whether the array is a vector, perhaps with axes of one element."""
        return self.places.size == max(self.shape, default=1)

    @property
    def padded(self) -> bool:
        """Whether there are zeros in it that its tensor has not."""
        return bool((self.places == ZERO).any())

    def same(self, other: Tensor) -> bool:
        """Whether both are one array."""
        return self.name == other.name and np.array_equal(self.places, other.places)


def natural(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor's elements in their order, in an array of any shape of as many."""
    return Tensor(name, np.arange(math.prod(shape), dtype=np.int32).reshape(shape))


@dataclasses.dataclass(frozen=True)
class Grid:
    """An array as a part of an image, perhaps with zeros around it.

    Attributes:
      axes: the array's axis of rows, columns and channels; None where there is one of them alone.
      picks: which rows, columns and channels.
      margins: zeros before and after each.
    """

    axes: Axes
    picks: tuple[np.ndarray, np.ndarray, np.ndarray]
    margins: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def sides(shape: Shape) -> tuple[int, int, int]:
    """Those of an image: a vector is one of one pixel."""
    high, wide, channels = shape if len(shape) == 3 else (1, 1, *shape)
    return high, wide, channels


def grid(places: Int[np.ndarray, "..."], image: Shape, axes: Axes | None = None) -> Grid | None:
    """Rows, columns and channels that an array reads; None if it is no such part of an image.

    Args:
      places: the array's.
      image: shape (H, W, C) of the tensor.
      axes: the array's axes of rows, columns and channels, where that is known; else axes of a single
        element are none of them.
    """
    inner, around = _unpadded(places)
    if inner is None:
        return None
    first = inner.reshape(-1)[0]
    steps = [_along(inner, axis) for axis in range(inner.ndim)]
    total = np.asarray(first)
    for axis, step in enumerate(steps):
        total = total + np.expand_dims(step, [a for a in range(inner.ndim) if a != axis])
    if not np.array_equal(total, inner):
        return None
    own: list[int | None] = list(axes) if axes is not None else [None, None, None]
    picks = [np.array([at]) for at in np.unravel_index(first, image)]
    for axis, step in enumerate(steps):
        if len(step) == 1:
            continue
        moved = np.unravel_index(step + first, image)
        changed = [i for i in range(3) if (moved[i] != moved[i][0]).any()]
        if len(changed) != 1:  # several at once, or a repetition
            return None
        (role,) = changed
        if len(picks[role]) > 1 or (axes is not None and axes[role] != axis):
            return None
        picks[role], own[role] = moved[role], axis
    for axis, pair in enumerate(around):  # zeros around a single row: of whatever is still free
        if pair != (0, 0) and axis not in own:
            free = [i for i in range(3) if own[i] is None]
            if not free:
                return None
            own[free[0]] = axis
    margins = [(0, 0) if axis is None else around[axis] for axis in own]
    return Grid(
        (own[0], own[1], own[2]),
        (picks[0], picks[1], picks[2]),
        (margins[0], margins[1], margins[2]),
    )


def _along(places: np.ndarray, axis: int) -> np.ndarray:
    """How places move along one axis, from the first."""
    line = np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1)[:, 0]
    return line - line[0]


def _unpadded(places: np.ndarray) -> tuple[np.ndarray | None, list[tuple[int, int]]]:
    """What lies within zeros, and how many are before and after it along each axis."""
    read = places != ZERO
    if read.all():
        return places, [(0, 0)] * places.ndim
    margins, cut = [], []
    for axis, side in enumerate(places.shape):
        (any_,) = np.nonzero(read.any(tuple(a for a in range(places.ndim) if a != axis)))
        if not len(any_):
            return None, []
        margins.append((int(any_[0]), side - 1 - int(any_[-1])))
        cut.append(slice(any_[0], any_[-1] + 1))
    inner = places[tuple(cut)]
    return (inner if (inner != ZERO).all() else None), margins


class Layouts:
    """Images and vectors of arrays, by operations of a builder where there must be some."""

    def __init__(self, builder: Builder):
        self.builder = builder

    def whole(self, x: Tensor) -> bool:
        """Whether an array holds all of its tensor's elements, each once."""
        size = math.prod(self.builder.shapes[x.name])
        if x.places.size != size or x.padded:
            return False
        return bool((np.bincount(x.places.reshape(-1), minlength=size) == 1).all())

    def made(self, x: Tensor, axes: Axes | None = None) -> tuple[str, Grid]:
        """An image that holds an array's elements, and the array's axes of it.

        Args:
          x: the array.
          axes: see `grid`.

        Raises:
          GraphError: its elements are no such part of an image.
        """
        name, image = x.name, sides(self.builder.shapes[x.name])
        found = grid(x.places, image, axes)
        if found is None and x.flat and not x.padded:
            name, image = self.vector(x), (1, 1, x.places.size)
            found = grid(natural(name, x.shape).places, image, axes)
        if found is None:
            raise self.builder.fault(
                "it reads elements in another order than an image's rows, columns and channels "
                "(repeated, cut out, mixed or one behind the other): reshape and transpose so that they "
                "keep together, and enlarge or roll pictures before the network"
            )
        name = self._picked(name, x, found)
        if any(pair != (0, 0) for pair in found.margins):
            name = self.builder.pad(name, found.margins[:2], found.margins[2])
        return name, found

    def _picked(self, name: str, x: Tensor, found: Grid) -> str:
        """Rows, columns and channels that an array reads."""
        stride, image = [], sides(self.builder.shapes[name])
        for what, side, picks in zip(("rows", "columns"), image[:2], found.picks[:2], strict=True):
            step = int(picks[1] - picks[0]) if len(picks) > 1 else side
            if step <= 0 or not np.array_equal(picks, np.arange(0, side, step)):
                raise self.builder.fault(
                    f"reads {x.shape} of an image {image} whose rows or columns were moved: it cuts "
                    f"or turns {what} ({len(picks)} of {side}); cut pictures before the network; only "
                    "every n-th from the first can be taken here"
                )
            stride.append(step)
        name = self.builder.take(name, found.picks[2])
        return name if stride == [1, 1] else self.builder.subsample(name, (stride[0], stride[1]))

    def vector(self, x: Tensor) -> str:
        """Our vector of an array's elements in their order."""
        x = self.settled(x) if x.padded else x
        return self.builder.take(self.builder.flatten(x.name), x.places.reshape(-1))

    def settled(self, x: Tensor) -> Tensor:
        """The same array, of a tensor that holds these elements and no others."""
        return x if self.whole(x) else self.ordered(x)

    def ordered(self, x: Tensor) -> Tensor:
        """The same array, of an image with its order of rows, columns and channels."""
        name, found = self.made(x)
        return self.laid(name, found.axes, x.places.ndim)

    def laid(self, name: str, axes: Axes, rank: int) -> Tensor:
        """An image's elements in an array whose axes of rows, columns and channels are these."""
        image = sides(self.builder.shapes[name])
        order = sorted((i for i in range(3) if axes[i] is not None), key=lambda i: axes[i] or 0)
        rest = [i for i in range(3) if axes[i] is None]
        shape = [1] * rank
        for i in order:
            shape[axes[i] or 0] = image[i]
        return Tensor(name, natural(name, image).places.transpose([*rest, *order]).reshape(shape))
