"""The geometry of a linear layer: dense layers, convolutions and convolutions in groups, one type.

Kernel position (i, j), a *tap*, reads a rectangle of the image for a rectangle of outputs. What lies in
the padding is no use of anything: taps leave it out.
"""

import dataclasses
import functools
import math
from types import EllipsisType
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from pqjax.errors import InputError

Image = Shaped[np.ndarray, "*n H W C"]
Pair = tuple[int, int]
Rectangle = tuple[EllipsisType, slice, slice]


class Tap(NamedTuple):
    """A position of the kernel that reads anything.

    Attributes:
      at: row and column in the kernel.
      slot: its place among the uses that a pixel can have.
      pixels: rows and columns of every image that it reads, in steps of the stride.
      outputs: rows and columns of the result that it reads them for, as many.
      sides: how many images, if they are several, rows and columns.
    """

    at: Pair
    slot: int
    pixels: Rectangle
    outputs: Rectangle
    sides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """What is multiplied with what: images (H, W, C), weights (h, w, C / groups, K).

    Several images are one operand (n, H, W, C); a single one has no such axis.

    Attributes:
      image: height and width of the input; (1, 1) for a vector.
      kernel: height and width of the kernel.
      stride: rows and columns from one output's window to the next.
      padding: ((top, bottom), (left, right)) zeros around the image.
      dilation: rows and columns between what neighbouring taps read.
      groups: divides `inputs` and `outputs`; channels are group-major.
      inputs, outputs: channels C and K.
      images: how many are multiplied with the same weights.
    """

    image: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    groups: int
    inputs: int
    outputs: int
    images: int = 1

    def __post_init__(self) -> None:
        if self.inputs % self.groups or self.outputs % self.groups or min(self.out_image) < 1:
            raise InputError(f"groups divide channels and kernels fit padded images, got {self}")

    @classmethod
    def pointwise(cls, image: Pair, inputs: int, outputs: int, images: int = 1) -> "LinearMap":
        """A matrix product in every pixel; a dense layer is one of a single pixel."""
        return cls(image, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, inputs, outputs, images)

    @property
    def columns(self) -> "LinearMap":
        """The product with `im2col`'s patches that comes to the same."""
        return LinearMap.pointwise(self.out_image, self.terms, self.outputs, self.images)

    @functools.cached_property
    def out_image(self) -> Pair:
        """Height and width of the result."""
        axes = zip(self.image, self.padding, self.kernel, self.dilation, self.stride, strict=True)
        down, right = ((n + sum(p) - 1 - (t - 1) * d) // s + 1 for n, p, t, d, s in axes)
        return down, right

    @property
    def several(self) -> tuple[int, ...]:
        """How many images there are, where they are several: what shapes begin with."""
        return (self.images,) if self.images > 1 else ()

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the operand, or (n, H, W, C)."""
        return *self.several, *self.image, self.inputs

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(H', W', K) of the result, or (n, H', W', K)."""
        return *self.several, *self.out_image, self.outputs

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
        """Elements of the operand, all images and channels."""
        return math.prod(self.in_shape)

    @property
    def pairs(self) -> int:
        """Products of a weight and a pixel, those with the padding left out."""
        return self.outputs * self.fan_in * self.uses

    @property
    def _periods(self) -> Pair:
        """Taps that lie so many rows or columns apart, and no others, can meet in a pixel."""
        down, right = (s // math.gcd(s, d) for s, d in zip(self.stride, self.dilation, strict=True))
        return down, right

    @property
    def slots(self) -> int:
        """Uses that a pixel can have: taps that never meet in a pixel share a slot."""
        return math.prod(-(-n // p) for n, p in zip(self.kernel, self._periods, strict=True))

    @functools.cached_property
    def _spans(self) -> list[list[tuple[int, slice, slice, int]]]:
        """Along either axis, the taps that read anything: pixels, outputs, and how many."""
        found: list[list] = [[], []]
        for axis, step in enumerate(self.stride):
            for tap in range(self.kernel[axis]):
                shift = tap * self.dilation[axis] - self.padding[axis][0]
                first = max(0, -(shift // step))  # output o reads pixel o * step + shift
                last = min(self.out_image[axis] - 1, (self.image[axis] - 1 - shift) // step)
                if last >= first:
                    pixels = slice(first * step + shift, last * step + shift + 1, step)
                    outputs = slice(first, last + 1)
                    found[axis].append((tap, pixels, outputs, last - first + 1))
        return found

    @functools.cached_property
    def taps(self) -> tuple[Tap, ...]:
        """Those that read anything, row by row."""
        down, right = self._periods
        across = -(-self.kernel[1] // right)
        return tuple(
            Tap(
                (i, j), i // down * across + j // right, (..., up, left), (..., o, p),
                (*self.several, high, wide),
            )
            for i, up, o, high in self._spans[0]
            for j, left, p, wide in self._spans[1]
        )  # fmt: skip

    @property
    def uses(self) -> int:
        """Pixels of a channel that all taps read together, in all images."""
        rows, columns = (sum(n for *_, n in spans) for spans in self._spans)
        return self.images * rows * columns

    @property
    def reading(self) -> int:
        """How many taps there are; a price needs no more of them."""
        return len(self._spans[0]) * len(self._spans[1])

    def im2col(self, x: Image) -> Image:
        """The patch (*n, H', W', terms) that each output sums, in the order of the weights' first axes.

        One group only. In memory a term's pixels lie together.
        """
        planes, out = np.moveaxis(x, -1, 0), (*self.several, *self.out_image)
        found = np.zeros((*self.kernel, self.inputs, *out), x.dtype)
        for tap in self.taps:
            found[tap.at][tap.outputs] = planes[tap.pixels]
        return np.moveaxis(found.reshape(-1, *out), 0, -1)
