"""The geometry of a linear layer: dense layers, convolutions and convolutions in groups, one type.

Kernel position (i, j), a *tap*, reads a rectangle of the image for a rectangle of outputs. What lies in
the padding is no use of anything: taps leave it out.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Shaped

from pqjax.errors import InputError

Pair = tuple[int, int]
Rectangle = tuple[slice, slice]


@dataclasses.dataclass(frozen=True)
class Tap:
    """A position of the kernel: the pixels it reads, and the outputs it reads them for.

    Attributes:
      at: row and column in the kernel.
      slot: its place among the uses that a pixel can have.
      pixels: rows and columns of the image, in steps of the stride.
      outputs: rows and columns of the result, as many.
      sides: how many rows, how many columns.
    """

    at: Pair
    slot: int
    pixels: Rectangle
    outputs: Rectangle
    sides: Pair

    @property
    def area(self) -> int:
        """How many pixels it reads in a channel."""
        return self.sides[0] * self.sides[1]


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """What is multiplied with what: images (H, W, C), weights (h, w, C / groups, K).

    Attributes:
      image: height and width of the input; (1, 1) for a vector.
      kernel: height and width of the kernel.
      stride: rows and columns from one output's window to the next.
      padding: ((top, bottom), (left, right)) zeros around the image.
      dilation: rows and columns between what neighbouring taps read.
      groups: divides `inputs` and `outputs`; channels are group-major.
      inputs, outputs: channels C and K.
    """

    image: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    groups: int
    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        if self.groups < 1 or self.inputs % self.groups or self.outputs % self.groups:
            raise InputError(
                f"groups must divide {self.inputs} inputs and {self.outputs} outputs, got {self.groups}"
            )
        if min(self.out_image) < 1:
            raise InputError(
                f"the kernel {self.kernel}, dilated by {self.dilation}, does not fit an image "
                f"{self.image} padded by {self.padding}"
            )

    @classmethod
    def pointwise(cls, image: Pair, inputs: int, outputs: int) -> LinearMap:
        """A matrix product in every pixel; a dense layer is one of a single pixel."""
        return cls(image, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, inputs, outputs)

    @functools.cached_property
    def columns(self) -> LinearMap:
        """The product with `im2col`'s patches that comes to the same."""
        return LinearMap.pointwise(self.out_image, self.terms, self.outputs)

    @functools.cached_property
    def out_image(self) -> Pair:
        """Height and width of the result."""
        high, wide = (
            (self.image[i] + sum(self.padding[i]) - 1 - (self.kernel[i] - 1) * self.dilation[i])
            // self.stride[i]
            + 1
            for i in (0, 1)
        )
        return high, wide

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the operand."""
        return *self.image, self.inputs

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(H', W', K) of the result."""
        return *self.out_image, self.outputs

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(h, w, C / groups, K) of the weights."""
        return *self.kernel, self.fan_in, self.outputs

    @property
    def fan_in(self) -> int:
        """Input channels of a group."""
        return self.inputs // self.groups

    @property
    def fan_out(self) -> int:
        """Output channels of a group."""
        return self.outputs // self.groups

    @property
    def terms(self) -> int:
        """Products that an output sums, those with the padding among them."""
        return math.prod(self.kernel) * self.fan_in

    @property
    def pixels(self) -> int:
        """Elements of the operand, all channels."""
        return math.prod(self.in_shape)

    @property
    def pairs(self) -> int:
        """Products of a weight and a pixel, those with the padding left out."""
        return self.outputs * self.fan_in * self.uses

    def _period(self, axis: int) -> int:
        """Taps that lie so many apart, and no others, can read the same pixel."""
        return self.stride[axis] // math.gcd(self.stride[axis], self.dilation[axis])

    @property
    def slots(self) -> int:
        """Uses that a pixel can have: taps that never meet in a pixel share a slot."""
        return -(-self.kernel[0] // self._period(0)) * -(-self.kernel[1] // self._period(1))

    def _span(self, axis: int, tap: int) -> tuple[slice, slice, int]:
        """Pixels and outputs of a tap along an axis, and how many."""
        # Output o reads pixel o * step + shift.
        step, shift = self.stride[axis], tap * self.dilation[axis] - self.padding[axis][0]
        first = max(0, -(shift // step))
        last = min(self.out_image[axis] - 1, (self.image[axis] - 1 - shift) // step)
        n = max(0, last - first + 1)
        begin = first * step + shift
        return slice(begin, begin + n * step, step), slice(first, first + n), n

    @functools.cached_property
    def taps(self) -> tuple[Tap, ...]:
        """Those that read anything, row by row."""
        found = []
        across = -(-self.kernel[1] // self._period(1))
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                down, right = self._span(0, i), self._span(1, j)
                slot = i // self._period(0) * across + j // self._period(1)
                if down[2] * right[2]:
                    rectangles = (down[0], right[0]), (down[1], right[1])
                    found.append(Tap((i, j), slot, *rectangles, (down[2], right[2])))
        return tuple(found)

    @functools.cached_property
    def _spans(self) -> tuple[list[int], list[int]]:
        """How many rows a row of the kernel reads, and columns a column: a tap reads their product."""
        down, right = ([self._span(i, tap)[2] for tap in range(self.kernel[i])] for i in (0, 1))
        return down, right

    @property
    def uses(self) -> int:
        """Pixels of a channel that all taps read together."""
        down, right = self._spans
        return sum(down) * sum(right)

    @property
    def reading(self) -> int:
        """How many taps there are; a price needs no more of them."""
        down, right = self._spans
        return sum(n > 0 for n in down) * sum(n > 0 for n in right)

    def im2col(self, x: Shaped[np.ndarray, "H W C"]) -> Shaped[np.ndarray, "H2 W2 terms"]:
        """The patch that each output sums, its terms ordered like the first axes of the weights.

        One group only. In memory a term's pixels lie together.
        """
        planes = x.transpose(2, 0, 1)
        found = np.zeros((*self.kernel, self.inputs, *self.out_image), x.dtype)
        for tap in self.taps:
            found[tap.at][:, *tap.outputs] = planes[:, *tap.pixels]
        return found.reshape(-1, *self.out_image).transpose(1, 2, 0)
