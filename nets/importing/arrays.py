"""Operations on arrays of a source, whatever order their elements have: what all importers need.

Each becomes operations of a builder on the tensors that hold the elements; where an order can go into
weights it does.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Sequence

import numpy as np

from nets.importing.builder import Pair, Sides
from nets.importing.layout import ZERO, Axes, Layouts, Tensor, sides
from nets.importing.refusals import AT_THE_END, BY_PIXEL
from nets.ops import NO_MARGINS

Numbers = typing.Any  # constants as numpy takes them: one, or as many as broadcast to an array


class Arrays(Layouts):
    """Operations; all raise GraphError where an array has no such order that they can be done."""

    def conv(
        self, x: Tensor, axes: Axes, kernel: np.ndarray, bias: np.ndarray | None = None, *,
        made: Axes, stride: Pair = (1, 1), padding: Sides = NO_MARGINS, groups: int = 1,
        dilation: Pair = (1, 1),
    ) -> Tensor:  # fmt: skip
        """A convolution with a kernel (h, w, channels read / groups, channels made).

        Args:
          x: an array.
          axes: its rows, columns and channels.
          kernel: another order of the array's channels goes into it.
          bias: by channel.
          made: the axes of what is made.
          stride: of rows and columns.
          padding: zeros before and after these.
          groups: of channels.
          dilation: of rows and columns.
        """
        shape, axis = self.builder.shapes[x.name], axes[2] or 0
        count = kernel.shape[2]
        if groups == 1 and len(shape) == 3 and x.shape[axis] == shape[2] == count:
            order = np.moveaxis(x.places, axis, -1).reshape(-1, count)[0] % count
            if np.array_equal(np.sort(order), np.arange(count)):
                back = np.argsort(order)
                x, kernel = Tensor(x.name, np.take(x.places, back, axis)), kernel[..., back, :]
        name, _ = self.made(x, axes)
        name = self.builder.conv(
            name, kernel, bias, stride=stride, padding=padding, groups=groups, dilation=dilation
        )
        return self.laid(name, made, x.places.ndim)

    def dense(self, x: Tensor, matrix: np.ndarray, bias: np.ndarray | None = None) -> str:
        """A product of all elements with a matrix, whose rows go to where these are."""
        size, places = math.prod(self.builder.shapes[x.name]), x.places.reshape(-1)
        if not np.array_equal(places, np.arange(size)):
            rows = np.zeros((size, matrix.shape[1]), matrix.dtype)
            read = places != ZERO
            np.add.at(rows, places[read], matrix[read])
            matrix = rows
        return self.builder.dense(x.name, matrix, bias)

    # Values of arrays, each for itself.

    def each(self, x: Tensor, operation: Callable[[str], str]) -> Tensor:
        """What an operation makes of every element alike, where it stood."""
        x = self.settled(x)
        return Tensor(operation(x.name), x.places)

    def relu(self, x: Tensor) -> Tensor:
        """max(x, 0)."""
        return self.each(x, self.builder.relu)

    def affine(self, x: Tensor, scale: Numbers = 1.0, offset: Numbers = 0.0) -> Tensor:
        """Scales and shifts: x * scale + offset, by constants that may differ by channel."""
        x = self.settled(x)
        name, found = x.name, [self.by_channel(x, each) for each in (scale, offset)]
        if any(each is None for each in found) and x.flat:
            x = Tensor(self.builder.flatten(name), x.places)
            name, found = x.name, [self.by_channel(x, each) for each in (scale, offset)]
        first, second = found
        if first is None or second is None:
            raise self.builder.fault(BY_PIXEL)
        if not np.isfinite([first, second]).all():
            raise self.builder.fault("constants that are not finite: the network's weights must be")
        return Tensor(self.builder.affine(name, first, second), x.places)

    def by_channel(self, x: Tensor, numbers: Numbers) -> np.ndarray | None:
        """One number for each channel, where an array has the same at all its pixels."""
        numbers, channels = np.asarray(numbers, np.float64), self.builder.shapes[x.name][-1]
        if numbers.size == 1:
            return np.full(channels, numbers.reshape(()))
        every, at = np.broadcast_to(numbers, x.shape), x.places % channels
        found = np.zeros(channels)
        found[at.reshape(-1)] = every.reshape(-1)
        return found if np.array_equal(found[at], every) else None

    def clip(self, x: Tensor, low: Numbers = -np.inf, high: Numbers = np.inf) -> Tensor:
        """No less and no more; max(x, low) is a ReLU: max(x - low, 0) + low."""
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if (low >= high).any():
            raise self.builder.fault(
                f"a clip to [{low.max():g}, {high.min():g}], where nothing is left"
            )
        bounded = not np.isneginf(low).all()
        caps = high - low if bounded else high
        if (caps != caps.flat[0]).any():
            raise self.builder.fault("a cap for each channel: one for all expected, as in ReLU6")
        cap = None if np.isposinf(caps.flat[0]) else float(caps.flat[0])
        if not bounded:
            return x if cap is None else self.each(x, lambda name: self.builder.minimum(name, cap))
        x = self.affine(x, offset=-low) if low.any() else x
        x = self.each(x, lambda name: self.builder.relu(name, cap))
        return self.affine(x, offset=low) if low.any() else x

    def leaky_relu(self, x: Tensor, slope: Numbers) -> Tensor:
        """The larger of x and 0, and what is below 0 times a slope, perhaps one for each channel."""
        x = self.settled(x)
        found = self.by_channel(x, slope)
        if found is None:
            raise self.builder.fault(BY_PIXEL)
        return self.each(x, lambda name: self.builder.leaky_relu(name, found))

    def sum(self, x: Tensor, y: Tensor) -> Tensor:
        """Of two arrays of one shape."""
        if x.shape != y.shape:
            raise self.builder.fault(
                f"two tensors of one shape expected, got {x.shape} and {y.shape}: the shape of "
                "constants may grow, repeat no tensor"
            )
        x, y = self.settled(x), self.settled(y)
        if not np.array_equal(x.places, y.places):
            x, y = self.ordered(x), self.ordered(y)
        names = [x.name, y.name]
        if len({self.builder.shapes[name] for name in names}) > 1:
            names = [self.builder.flatten(name) for name in names]
        if not np.array_equal(x.places, y.places):
            raise self.builder.fault(
                "a sum of tensors whose elements are in different orders (one was transposed): bring "
                "both into one order"
            )
        return Tensor(self.builder.add(*names), x.places)

    # Several elements at once.

    def concat(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Arrays, one after the other: their tensors' channels; zeros alone have no name."""
        builder, found = self.builder, [self.settled(part) if part.name else part for part in parts]
        names = [part.name for part in found if part.name]
        if len({builder.shapes[name][:-1] for name in names}) > 1:
            names = [builder.flatten(name) for name in names]
        made, before, arrays = builder.concat(*names), 0, []
        total, ahead = builder.shapes[made][-1], iter(names)
        for part in found:
            places = part.places
            if part.name:
                channels = builder.shapes[next(ahead)][-1]
                pixels, at = np.divmod(places, channels)
                places, before = (pixels * total + at + before).astype(np.int32), before + channels
            arrays.append(places)
        joined = Tensor(made, np.concatenate(arrays, axis))
        if not joined.flat:
            self.made(joined)  # or says that these are no channels
        return joined

    def over(self, x: Tensor, axes: Sequence[int], largest: bool) -> Tensor:
        """Averages or largest values over rows, columns or both; the axes are gone then."""
        builder, kept = self.builder, [i for i in range(x.places.ndim) if i not in axes]
        shape = tuple(x.shape[axis] for axis in kept)
        if math.prod(shape) == x.places.size:
            return Tensor(x.name, x.places.reshape(shape))
        x = self.settled(x)
        image = builder.shapes[x.name]
        of = np.moveaxis(x.places, axes, range(-len(axes), 0)).reshape(*shape, -1) % image[-1]
        if len(image) == 3 and math.prod(shape) == image[2] and (of == of[..., :1]).all():
            made = (
                builder.max_pool(x.name, (image[0], image[1]), (1, 1))
                if largest
                else builder.global_average(x.name)
            )
            return Tensor(made, of[..., 0].astype(np.int32))
        name, found = self.made(x)
        places = [found.axes.index(axis) for axis in axes if axis in found.axes]
        if 2 in places:
            raise builder.fault(
                f"over the axes {tuple(axes)} of {x.shape}: sums or largest values over channels (layer "
                "norm, attention, softmax inside), where rows and columns are expected; norms need "
                f"running averages; {AT_THE_END}"
            )
        pool = builder.max_pool if largest else builder.avg_pool
        high, wide, _ = sides(builder.shapes[name])
        window = (high if 0 in places else 1), (wide if 1 in places else 1)
        roles = [kept.index(axis) if axis in kept else None for axis in found.axes]
        return self.laid(pool(name, window, (1, 1)), (roles[0], roles[1], roles[2]), len(shape))
