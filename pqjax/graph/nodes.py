"""The kinds of nodes that networks are written in, each with what is true of it.

What methods without a word of their own are asked stands in `Node`.
"""

import dataclasses
import math
import typing

import numpy as np
from jaxtyping import Int

from pqjax.graph import bounds
from pqjax.graph.node import Node
from pqjax.graph.tensor import Interval, Known, TensorType
from pqjax.protocols.nonlinear import average_pool_unfit, differences_unfit, relu_unfit

Widths = typing.Literal["worst", "weights", "empirical"]
NO_PADDING = ((0, 0), (0, 0))


@dataclasses.dataclass(frozen=True)
class Input(Node):
    """The client's private input."""

    arity = (0, 0)

    def reach(self) -> Interval:
        """The whole format: the input is checked against it."""
        return self.out.low, self.out.high


class Linear(Node):
    """A layer of the server's weights: sums of products, plus a bias.

    Parameters `<name>/weight`, signed `weight_bits`, with outputs along the last axis, and
    `<name>/bias` at the accumulator's scale. `widths` says how `out.bits` was found: from the widths
    alone, from the actual weights (still overflow-free; the width is public), or measured
    ("empirical": it may overflow, and holds the low bits of its sum then). `square_bits` declares that
    the squares of no filter's weights sum to more than 2^square_bits; where it is None, they may be any
    of their width. Both say something of the weights to everybody who sees the graph.
    """

    weight_bits: bounds.Bits
    weight_scale: bounds.Scale
    widths: Widths
    square_bits: bounds.Squares | None

    multiplies = True

    def weight_shape(self, source: TensorType) -> tuple[int, ...]:
        """The shape of the weights for such an operand."""
        raise NotImplementedError(f"{self.kind} does not say how many weights it has")

    def terms(self, source: TensorType) -> int:
        """Products that one accumulator sums."""
        return math.prod(self.weight_shape(source)[:-1])

    def worst(self, source: Interval, terms: int) -> Interval:
        """What weights of the declared width could produce, the bias aside."""
        largest = max(abs(source[0]), abs(source[1])) * (1 << (self.weight_bits - 1)) * terms
        return -largest, largest

    @property
    def overflows(self) -> bool:
        return self.widths == "empirical"

    def reach(self, x: Known) -> Interval:
        """What it declares; the weights may tell more (`pqjax.graph.reach`)."""
        out, scale = self.out, x.out.scale + self.weight_scale
        if out.scale != scale:
            raise self.error(
                f"scale must be {x.out.scale} + {self.weight_scale} (input + weights), got {out.scale}"
            )
        if not out.signed or out.nonnegative:
            raise self.error("an accumulator is signed, and nothing is known about its sign")
        if self.widths == "worst":
            low, high = self.worst((x.low, x.high), self.terms(x.out))
            if low < out.low or high > out.high:
                raise self.misfit((low, high), "the sum of products")
        return out.low, out.high


@dataclasses.dataclass(frozen=True)
class Conv(Linear):
    """Cross-correlation of an (H, W, C) tensor with the server's (h, w, C / groups, K) kernel.

    Its taps lie `dilation` rows and columns apart. Weights, bias (K,) and `widths`: see `Linear`.
    """

    kernel: bounds.Kernel
    stride: bounds.Stride
    padding: tuple[bounds.Margins, bounds.Margins]
    weight_bits: bounds.Bits
    weight_scale: bounds.Scale
    groups: bounds.Groups = 1
    widths: Widths = "weights"
    # Files are older than this: it is written only where it is not the default.
    dilation: bounds.Stride = dataclasses.field(default=(1, 1), metadata={"later": True})
    square_bits: bounds.Squares | None = dataclasses.field(default=None, metadata={"later": True})

    sides = 3

    def weight_shape(self, source: TensorType) -> tuple[int, ...]:
        return (*self.kernel, source.shape[-1] // self.groups, self.out.shape[-1])

    def shape(self, x: TensorType) -> bounds.Shape:
        *image, c = x.shape
        k = self.out.shape[-1]
        if c % self.groups or k % self.groups:
            raise self.error(f"{self.groups} groups do not divide {c} and {k} channels")
        axes = zip(image, self.padding, self.kernel, self.dilation, self.stride, strict=True)
        out = [(n + sum(p) - 1 - (t - 1) * d) // s + 1 for n, p, t, d, s in axes]
        if not all(self._meets(i, image[i], out[i]) for i in range(2)):
            raise self.error("reads nothing but padding: no window meets its source; pad it less")
        return (*out, k)

    def _meets(self, axis: int, side: int, outputs: int) -> bool:
        """Whether any tap reads a row (column) of the source for one of so many outputs, if any."""
        step, before = self.stride[axis], self.padding[axis][0]
        for tap in range(self.kernel[axis]):
            first = before - tap * self.dilation[axis]  # of the padded source, from this tap's view
            output = max(0, -(-first // step))
            if output < outputs and output * step < first + side:
                return True
        return outputs < 1


@dataclasses.dataclass(frozen=True)
class Dense(Linear):
    """Matrix product of a (C,) vector with the server's (C, K) matrix, plus bias (K,): see `Linear`."""

    weight_bits: bounds.Bits
    weight_scale: bounds.Scale
    widths: Widths = "weights"
    square_bits: bounds.Squares | None = dataclasses.field(default=None, metadata={"later": True})

    sides = 1

    def weight_shape(self, source: TensorType) -> tuple[int, ...]:
        return (source.shape[0], self.out.shape[0])

    def shape(self, x: TensorType) -> bounds.Shape:
        return self.out.shape


class InRing(Node):
    """What computes in its source's ring: as many bits, read the same way."""

    same = ("bits", "scale", "signed")
    hands_on = True

    def reach(self, *x: Known) -> Interval:
        return min(k.low for k in x), max(k.high for k in x)

    def follow(self, old: TensorType, new: TensorType, finer: int = 0) -> Node | None:
        out = self.out.moved(new.bits - old.bits, new.scale - old.scale)
        return dataclasses.replace(self, out=out)


@dataclasses.dataclass(frozen=True)
class Relu(InRing):
    """max(x, 0) of a signed x, same bits and scale; its output is nonnegative."""

    keeps_range = keeps_guard = may_drop_guard = True

    def reach(self, x: Known) -> Interval:
        self.refuse(relu_unfit(x.out.signed))
        return max(x.low, 0), max(x.high, 0)

    def nonnegative(self, *sources: TensorType) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class Add(InRing):
    """Sum of two tensors of the same bits, scale and shape, in their ring."""

    arity = (2, 2)
    keeps_guard = True

    def shape(self, x: TensorType, y: TensorType) -> bounds.Shape:
        if x.shape != y.shape:
            raise self.error(f"shape must agree, got {x.shape} and {y.shape}")
        return x.shape

    def slack(self, *sources: int) -> int:
        return sum(sources)

    def reach(self, x: Known, y: Known) -> Interval:
        return x.low + y.low, x.high + y.high


@dataclasses.dataclass(frozen=True)
class _Pool(InRing):
    """What makes one value of each window (no padding)."""

    window: bounds.Window
    stride: bounds.Stride

    sides = 3
    keeps_sign = True

    def shape(self, x: TensorType) -> bounds.Shape:
        shape, (high, wide) = x.shape, self.window
        if shape[0] < high or shape[1] < wide:
            raise self.error(f"a window of {self.window} does not fit an input of shape {shape}")
        down, right = (shape[0] - high) // self.stride[0], (shape[1] - wide) // self.stride[1]
        return (down + 1, right + 1, shape[2])


@dataclasses.dataclass(frozen=True)
class MaxPool(_Pool):
    """Largest value of each window (no padding).

    `headroom` is the fact that the difference of any two values fits the source's bits, as it does
    where none is negative; planners see to it.
    """

    headroom: bool = False

    keeps_range = keeps_guard = True

    def reach(self, x: Known) -> Interval:
        _check_headroom(self, x)
        return x.low, x.high


def window_counts(
    shape: bounds.Shape, window: bounds.Window, stride: bounds.Stride,
    padding: tuple[bounds.Margins, bounds.Margins],
) -> Int[np.ndarray, "h w 1"]:  # fmt: skip
    """How many pixels of an image (H, W, ...) lie in each of the windows over its padded form."""
    rows, columns = (
        np.array([max(0, min(at + reach, n) - max(at, 0))
                  for at in range(-before, n + after - reach + 1, step)], np.int64)
        for n, reach, step, (before, after) in zip(shape[:2], window, stride, padding, strict=True)
    )  # fmt: skip
    return rows[:, None, None] * columns[:, None]


@dataclasses.dataclass(frozen=True)
class AvgPool(_Pool):
    """`multiplier` times the sum of each window, in its ring: no rounding happens here.

    The average is sum * round(2^t / area) / 2^t, so the output's scale is the source's plus t:
    t = log2(area) and multiplier 1 where the area is a power of two. Windows may reach over the image by
    `padding`, where nothing is: one with n values in the image has round(multiplier * area / n) in the
    multiplier's place, so it averages these n.
    """

    multiplier: bounds.Multiplier = 1
    padding: tuple[bounds.Margins, bounds.Margins] = dataclasses.field(
        default=NO_PADDING, metadata={"later": True}
    )

    same = ("bits", "signed")

    @property
    def adds(self) -> bool:
        return True

    @property
    def area(self) -> int:
        """By how much values may grow."""
        area = math.prod(self.window)
        return area * self.multiplier + (area // 2 if self.padding != NO_PADDING else 0)

    def shape(self, x: TensorType) -> bounds.Shape:
        high, wide = (n + sum(p) for n, p in zip(x.shape[:2], self.padding, strict=True))
        shape = super().shape(dataclasses.replace(x, shape=(high, wide, x.shape[2])))
        if window_counts(x.shape, self.window, self.stride, self.padding).min() < 1:
            raise self.error("a window reads nothing but padding; pad it less")
        return shape

    def factors(self, shape: bounds.Shape) -> Int[np.ndarray, "h w 1"]:
        """What every window's sum is multiplied by."""
        count = window_counts(shape, self.window, self.stride, self.padding)
        return (2 * self.multiplier * math.prod(self.window) + count) // (2 * count)

    def reach(self, x: Known) -> Interval:
        self.refuse(average_pool_unfit(x.out.bits, int(self.factors(x.out.shape).max())))
        return x.low * self.area, x.high * self.area


class Moving(InRing):
    """What moves values, and adds zeros or the same values again at most."""

    moves = keeps_sign = keeps_range = keeps_guard = True


@dataclasses.dataclass(frozen=True)
class Flatten(Moving):
    """(H, W, C) to (H * W * C,), in that order."""

    def shape(self, x: TensorType) -> bounds.Shape:
        return (x.n,)


@dataclasses.dataclass(frozen=True)
class Subsample(Moving):
    """Every stride-th row and column of an image, the first ones first."""

    stride: bounds.Stride

    sides = 3

    def shape(self, x: TensorType) -> bounds.Shape:
        h, w, c = x.shape
        return (-(-h // self.stride[0]), -(-w // self.stride[1]), c)


@dataclasses.dataclass(frozen=True)
class Pad(Moving):
    """An image with zeros around it: (before, after) for rows, columns and channels.

    Or with what stands at its `edge`, again and again: a max pool of that is one of the image alone.
    """

    margins: tuple[bounds.Margins, bounds.Margins, bounds.Margins]
    edge: bool = dataclasses.field(default=False, metadata={"later": True})

    sides = 3

    def shape(self, x: TensorType) -> bounds.Shape:
        return tuple(d + sum(m) for d, m in zip(x.shape, self.margins, strict=True))

    def reach(self, x: Known) -> Interval:
        """Zero, too."""
        return (x.low, x.high) if self.edge else (min(x.low, 0), max(x.high, 0))


@dataclasses.dataclass(frozen=True)
class Take(Moving):
    """Some entries of the last axis, by their places: a slice, a part of a split, a channel shuffle."""

    channels: bounds.Taken

    def shape(self, x: TensorType) -> bounds.Shape:
        if max(self.channels) >= x.shape[-1]:
            raise self.error(f"takes channel {max(self.channels)} of {x.shape[-1]}")
        return (*x.shape[:-1], len(self.channels))


@dataclasses.dataclass(frozen=True)
class Concat(Moving):
    """Two or more tensors of one format, one behind the other along the last axis."""

    arity = (2, bounds.MOST_SOURCES)

    def shape(self, *sources: TensorType) -> bounds.Shape:
        ahead = sources[0].shape[:-1]
        for x in sources[1:]:
            if x.shape[:-1] != ahead:
                raise self.error(
                    f"all sides but the last must agree, got {sources[0].shape} and {x.shape}"
                )
        return (*ahead, sum(x.shape[-1] for x in sources))


@dataclasses.dataclass(frozen=True)
class ArgMax(Node):
    """Index of the largest element of a vector, the first one if several are equal.

    `headroom` as for `MaxPool`.
    """

    headroom: bool = False

    sides = 1
    own_range = True

    def shape(self, x: TensorType) -> bounds.Shape:
        return (1,)

    def reach(self, x: Known) -> Interval:
        _check_headroom(self, x)
        return 0, x.out.n - 1

    def follow(self, old: TensorType, new: TensorType, finer: int = 0) -> Node | None:
        """As it is: an index has no scale."""
        return self


def _check_headroom(node: MaxPool | ArgMax, x: Known) -> None:
    """What is compared: differences must fit, or there must be a bit left to make them."""
    if not node.headroom:
        if x.out.bits >= 64 and not x.out.nonnegative:
            raise node.error("compares in one bit more than its source has, and 64 is the most")
    elif x.loose or not x.trusted:
        high = (x.high << x.out.guard) + x.slack
        node.refuse(differences_unfit(x.out.share_bits, x.low << x.out.guard, high))
