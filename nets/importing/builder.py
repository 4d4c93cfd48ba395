"""From primitive steps, as importers read them one by one, to an `Architecture` and its weights.

A step names the tensor it makes; shapes are known as soon as it is added. When all are there, what can
be folded is (`nets.importing.folding`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from nets import ops
from nets.fold import Folded
from nets.importing.folding import Affine, Ceiling, Folding, Values
from nets.importing.imported import Imported, Pixels, Runtime
from nets.ops import INPUT, NO_MARGINS, Architecture, Linear, Op
from pqjax.errors import GraphError
from pqjax.graph.bounds import Margins, Shape
from pqjax.graph.ir import fresh

Pair = tuple[int, int]
Sides = tuple[Margins, Margins]


# Of what they make, nothing is larger than the largest of what they read, if that is not negative.
_BETWEEN = (
    ops.MaxPool, ops.AvgPool, ops.GlobalAverage, ops.Flatten, ops.Subsample, ops.Take, ops.Concat,
    ops.Pad,
)  # fmt: skip


class Builder:
    """A network that grows step by step; every method returns the name of the tensor it makes.

    Attributes:
      name: of the network.
      at: where in its source the steps come from that are added now; errors name it.
      shapes: (H, W, C) or (C,) of every tensor.
    """

    def __init__(self, name: str, image: Shape):
        self.name, self.at = name, ""
        self.shapes: dict[str, Shape] = {INPUT: image}
        self._ops: dict[str, Op] = {}
        self._values: dict[str, Values] = {}
        self._places: dict[str, str] = {}

    def fault(self, text: str) -> GraphError:
        """An error at the place that is read now."""
        return GraphError(f"{self.at}: {text}" if self.at else text)

    def _named(self, kind: str) -> str:
        count = sum(name.rstrip("0123456789") == kind for name in self._ops) + 1
        return fresh(f"{kind}{count}", self.shapes)

    def _add(self, op: Op) -> str:
        try:
            self.shapes[op.name] = op.shape(*(self.shapes[source] for source in op.sources))
        except GraphError as error:
            raise self.fault(str(error)) from error
        self._ops[op.name], self._places[op.name] = op, self.at
        return op.name

    def conv(
        self, x: str, kernel: Float[np.ndarray, "h w c k"], bias: np.ndarray | None = None, *,
        stride: Pair = (1, 1), padding: Sides = NO_MARGINS, groups: int = 1,
        dilation: Pair = (1, 1), name: str | None = None,
    ) -> str:  # fmt: skip
        """Cross-correlation; the kernel is (h, w, channels read / groups, channels made).

        Of a vector, which is an image of one pixel, that is a dense layer.
        """
        *window, read, channels = kernel.shape
        if len(self.shapes[x]) == 1:
            if window != [1, 1] or groups != 1 or padding != NO_MARGINS:
                raise self.fault(
                    "a window over what is a vector: 1x1 without groups and padding expected"
                )
            return self.dense(x, kernel[0, 0], bias, name)
        if (made := read * groups) != self.shapes[x][-1]:
            raise self.fault(
                f"its kernel reads {made} channels, but there are {self.shapes[x][-1]}"
            )
        name = fresh(name, self.shapes) if name else self._named("conv")
        at = self._add(
            ops.Conv(
                name, (x,), channels, (window[0], window[1]), stride, padding, groups, dilation
            )
        )
        self._values[at] = kernel, np.zeros(channels) if bias is None else bias
        return at

    def dense(
        self, x: str, kernel: Float[np.ndarray, "c k"], bias: np.ndarray | None = None,
        name: str | None = None,
    ) -> str:  # fmt: skip
        """Product of a vector, or of an image as `flatten` makes one of it, with weights."""
        x, (_, channels) = self.flatten(x), kernel.shape
        if len(kernel) != self.shapes[x][0]:
            raise self.fault(
                f"its weights read {len(kernel)} values, but there are {self.shapes[x][0]}"
            )
        name = fresh(name, self.shapes) if name else self._named("dense")
        at = self._add(ops.Dense(name, (x,), channels))
        self._values[at] = kernel, np.zeros(channels) if bias is None else bias
        return at

    def affine(self, x: str, scale: np.ndarray | float, offset: np.ndarray | float = 0.0) -> str:
        """Scales and shifts: x * scale + offset, one number for all channels or one each."""
        channels = self.shapes[x][-1]
        made = (np.broadcast_to(np.asarray(v, np.float64), (channels,)) for v in (scale, offset))
        at = self._add(Affine(self._named("affine"), (x,)))
        first, second = made
        self._values[at] = first, second
        return at

    def multiple(self, x: str) -> tuple[str, np.ndarray] | None:
        """What a tensor is a multiple of, and the factors by channel, if it was made so."""
        op = self._ops.get(x)
        if not isinstance(op, Affine) or self._values[x][1].any():
            return None
        return op.sources[0], self._values[x][0]

    def relu(self, x: str, cap: float | None = None) -> str:
        """max(x, 0), and no more than the cap if there is one; x itself where that is all it can be."""
        if self.nonnegative(x) and (cap is None or self.most(x) <= cap):
            return x
        return self._add(ops.Relu(self._named("relu"), (x,), cap))

    def leaky_relu(self, x: str, slope: np.ndarray | float) -> str:
        """The larger of x and 0, and what is below 0 times a slope: one for all channels or one each.

        That is (1 - slope) * (relu(x) + x * slope / (1 - slope)); a slope of 1 is none.
        """
        slope = np.asarray(slope, np.float64)
        if (slope == 1).any():
            raise self.fault("a slope of 1 below 0, too, where nothing is left of a ReLU")
        below = self.affine(x, slope / (1 - slope))
        return self.affine(self.add(self.relu(x), below), 1 - slope)

    def minimum(self, x: str, cap: float) -> str:
        """The lesser of x and a cap, of what is not negative or what ReLUs alone read."""
        if cap <= 0:
            raise self.fault(f"a cap of {cap:g}: nothing would be left of a ReLU; above 0 expected")
        if self.nonnegative(x):
            return self.relu(x, cap)
        return self._add(Ceiling(self._named("ceiling"), (x,), cap))

    def add(self, x: str, y: str) -> str:
        """Sum of two tensors of one shape."""
        return self.affine(x, 2.0) if x == y else self._add(ops.Add(self._named("add"), (x, y)))

    def concat(self, *sources: str) -> str:
        """Channels of tensors, one after the other."""
        return self._add(ops.Concat(self._named("concat"), sources)) if sources[1:] else sources[0]

    def max_pool(
        self, x: str, window: Pair, stride: Pair, padding: Sides = NO_MARGINS
    ) -> str:  # fmt: skip
        """Largest of every window; what is padded is never the largest."""
        at = self.pad(x, padding, edge=True)
        if window == (1, 1) == stride:
            return at
        return self._add(ops.MaxPool(self._named("maxpool"), (at,), window, stride))

    def avg_pool(
        self, x: str, window: Pair, stride: Pair, padding: Sides = NO_MARGINS,
        counted: bool = True,
    ) -> str:  # fmt: skip
        """Average of every window; whether zeros that are padded are `counted`, too."""
        at = self.pad(x, padding) if counted else x
        around = NO_MARGINS if counted else padding
        if window == (1, 1) == stride and around == NO_MARGINS:
            return at
        name = self._named("avgpool")
        return self._add(ops.AvgPool(name, (at,), window, stride, padding=around))

    def global_average(self, x: str) -> str:
        """Average of every channel: (1, 1, C)."""
        return self._add(ops.GlobalAverage(self._named("average"), (x,)))

    def pad(
        self, x: str, padding: Sides, channels: Margins = (0, 0), edge: bool = False
    ) -> str:  # fmt: skip
        """Zeros around an image, or what stands at its edge."""
        if padding == NO_MARGINS and channels == (0, 0):
            return x
        return self._add(ops.Pad(self._named("pad"), (x,), (*padding, channels), edge))

    def take(self, x: str, channels: Sequence[int] | np.ndarray) -> str:
        """Some channels, by their places."""
        places = tuple(int(channel) for channel in channels)
        if places == tuple(range(self.shapes[x][-1])):
            return x
        return self._add(ops.Take(self._named("take"), (x,), places))

    def subsample(self, x: str, stride: Pair) -> str:
        """Every stride-th row and column, the first ones first."""
        return self._add(ops.Subsample(self._named("subsample"), (x,), stride))

    def flatten(self, x: str) -> str:
        """(H, W, C) to (H * W * C,), once; a vector stays as it is."""
        if len(self.shapes[x]) == 1:
            return x
        for op in self._ops.values():
            if isinstance(op, ops.Flatten) and op.sources == (x,):
                return op.name
        return self._add(ops.Flatten(self._named("flatten"), (x,)))

    def nonnegative(self, x: str) -> bool:
        """Whether no value can be below 0."""
        op = self._ops.get(x)
        if op is None or isinstance(op, (Linear, Ceiling)):
            return False
        if isinstance(op, Affine) and any((each < 0).any() for each in self._values[x]):
            return False
        return isinstance(op, ops.Relu) or all(self.nonnegative(source) for source in op.sources)

    def most(self, x: str) -> float:
        """What no value is above: infinity where nothing is known."""
        op = self._ops.get(x)
        if isinstance(op, ops.Relu):
            return min(self.most(op.sources[0]), math.inf if op.cap is None else op.cap)
        if isinstance(op, _BETWEEN):
            return max(self.most(source) for source in op.sources)
        return math.inf

    def imported(
        self, output: str, *, pixels: Pixels, source: Mapping[str, str],
        classes: tuple[str, ...] = (), runtime: Runtime | None = None,
        rounding: Runtime | None = None,
    ) -> Imported:  # fmt: skip
        """The network that makes `output`.

        Args:
          output: a vector, or an image of one pixel: the logits.
          pixels: how pictures become the source's own inputs; an affine that alone reads these goes
            into it, and `runtime` is made to read what is left.
          source: see `Imported`.
          classes: see `Imported`.
          runtime: of the source's own inputs.
          rounding: likewise.

        Raises:
          GraphError: the operations do not make an `Architecture`.
        """
        if math.prod(self.shapes[output]) != self.shapes[output][-1]:
            raise self.fault(
                f"the output is an image of shape {self.shapes[output]}, but a vector of logits is "
                "expected: average it, or end with a dense layer"
            )
        output = self.flatten(output)
        folding = Folding(self._ops, self._values, self.shapes, self._places, output)
        made, shapes = folding.done(), (self.shapes[INPUT], self.shapes[output][-1])
        scale, offset = folding.input
        if (scale != 1).any() or offset.any():
            std = np.array(pixels.std)
            mean = np.array(pixels.mean) - offset * std / scale
            mean, std = (tuple(map(float, each)) for each in (mean, std / scale))
            pixels = dataclasses.replace(pixels, mean=mean, std=std)
            runtime, rounding = (
                each and _after(each, scale, offset) for each in (runtime, rounding)
            )
        architecture = Architecture(self.name, "imported", *shapes, made, False, pixels.zero)
        weights: Folded = []
        for layer in architecture.layers:
            kernel, bias = folding.values[layer.name]
            weights.append((np.asarray(kernel, np.float32), np.asarray(bias, np.float32)))
        return Imported(architecture, weights, pixels, classes, source, runtime, rounding)


def _after(runtime: Runtime, scale: np.ndarray, offset: np.ndarray) -> Runtime:
    """A runtime of x, told x * scale + offset."""
    return lambda x: runtime(((x - offset) / scale).astype(np.float32))
