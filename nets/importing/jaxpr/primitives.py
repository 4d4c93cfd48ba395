"""What primitives of JAX mean as operations of ours."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nets.importing.arrays import Arrays, Numbers
from nets.importing.builder import Builder, Sides
from nets.importing.jaxpr.trace import Equation
from nets.importing.layout import ZERO, Tensor, grid, natural, sides
from nets.importing.refusals import AT_THE_END, BY_PIXEL, CHOICE, GATE, MOMENTS, why_not
from pqjax.errors import GraphError

Operand = Tensor | jax.Array

_MOVES = (
    "reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "slice", "rev", "gather",
    "dynamic_slice", "split", "copy", "copy_p",
)  # fmt: skip
_NOTHING = (
    "stop_gradient",
    "optimization_barrier",
    "name",
    "sharding_constraint",
    "mesh_cast",
    "reshard",
)


@dataclasses.dataclass(frozen=True)
class Positive:
    """Which values of a tensor are above 0, or below: what a leaky ReLU chooses by."""

    of: Tensor
    below: bool


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums of windows of a tensor, in part of what is padded around it: (window, stride, padding)."""

    of: str
    sides: tuple[tuple[int, int], tuple[int, int], Sides]


class Primitives:
    """Rules of primitives, which add operations to a builder.

    Attributes:
      sums: of tensors that are sums of windows, of what.
    """

    def __init__(self, builder: Builder):
        self.builder, self.arrays = builder, Arrays(builder)
        self.sums: dict[str, Sums] = {}
        self.rules: dict[str, Callable[..., typing.Any]] = {
            **dict.fromkeys(_MOVES, self.moved),
            **dict.fromkeys(_NOTHING, lambda equation, *x: list(x)),
            "convert_element_type": self.converted,
            "pad": self.padded,
            "concatenate": self.joined,
            "conv_general_dilated": self.convolution,
            "dot_general": self.product,
            "add": self.sum,
            "add_any": self.sum,
            "sub": self.difference,
            "neg": lambda equation, x: self.affine(equation, x, -1.0),
            "mul": self.scaled,
            "div": self.divided,
            **dict.fromkeys(("gt", "ge"), self.compared),
            **dict.fromkeys(("lt", "le"), lambda equation, x, y: self.compared(equation, y, x)),
            "select_n": self.chosen,
            **dict.fromkeys(("max", "min"), self.bounded),
            "clamp": lambda equation, low, x, high: self.arrays.clip(x, low, high),
            "reduce_window_max": self.pooled,
            "reduce_window_sum": self.pooled,
            "reduce_sum": self.reduced,
            "reduce_max": self.reduced,
        }

    def fault(self, text: str) -> GraphError:
        """An error at the equation that is read now."""
        return self.builder.fault(text)

    def read(self, equation: Equation, inputs: Sequence[Operand | Positive]) -> list[Tensor]:
        """What an equation makes.

        Raises:
          GraphError: it cannot be said with operations of ours; says why, and what can.
        """
        self.builder.at = equation.title
        if equation.name not in self.rules:
            raise self.fault(why_not(equation.name))
        if equation.name != "select_n" and any(isinstance(each, Positive) for each in inputs):
            raise self.fault(CHOICE)
        made = self.rules[equation.name](equation, *inputs)
        return made if isinstance(made, list) else [made]

    # Elements that only move.

    def moved(self, equation: Equation, x: Operand, *rest: Operand) -> list[Tensor]:
        """The same elements in another array."""
        if not isinstance(x, Tensor) or any(isinstance(each, Tensor) for each in rest):
            raise self.fault(
                "the input says which elements are taken (embeddings, indexing): only fixed slices and "
                "orders can be read"
            )
        places = [jnp.asarray(x.places), *rest]
        return [Tensor(x.name, np.asarray(each)) for each in equation.evaluated(places)]

    def converted(self, equation: Equation, x: Tensor) -> Tensor:
        """Floats stay what they are."""
        kind = np.dtype(equation.params["new_dtype"])
        if kind not in (np.float32, np.float64):
            raise self.fault(
                f"values become {kind.name}: float32 expected throughout; set the layers' dtype to it "
                "(weights may be stored in fewer bits)"
            )
        return x

    def padded(self, equation: Equation, x: Operand, value: Operand) -> Tensor:
        """Zeros around, or less of it."""
        if not isinstance(x, Tensor) or isinstance(value, Tensor) or float(value) != 0:
            raise self.fault(
                "it pads with something else than zeros: pad with zeros; max pools may pad themselves"
            )
        config = equation.params["padding_config"]
        return Tensor(x.name, np.asarray(jax.lax.pad(x.places, np.int32(ZERO), config)))

    def joined(self, equation: Equation, *parts: Operand) -> Tensor:
        """Channels of tensors, one after the other, and zeros."""
        if any(not isinstance(part, Tensor) and np.asarray(part).any() for part in parts):
            raise self.fault("it joins a tensor and constants other than zero: use zeros")
        arrays = [
            part if isinstance(part, Tensor) else Tensor("", np.full(part.shape, ZERO, np.int32))
            for part in parts
        ]
        return self.arrays.concat(arrays, equation.params["dimension"])

    # Layers.

    def convolution(self, equation: Equation, x: Operand, kernel: Operand) -> Tensor:
        """A convolution of one or two sides, whatever the order of its axes."""
        params, spec = equation.params, equation.params["dimension_numbers"]
        if not isinstance(x, Tensor) or isinstance(kernel, Tensor):
            raise self.fault("its kernel is computed from the input: a constant one expected")
        count = len(spec.lhs_spec) - 2
        if count not in (1, 2):
            raise self.fault(
                f"it has {count} sides: images (n, H, W, C) or signals (n, W, C) expected"
            )
        if any(step != 1 for step in params["lhs_dilation"]):
            raise self.fault(
                "a transposed convolution (zeros between its inputs): not among the operations here; "
                "classifiers do without"
            )
        if params["batch_group_count"] != 1 or min(map(min, params["padding"])) < 0:
            raise self.fault("groups of pictures or negative padding: plain convolutions expected")
        weights = np.transpose(np.asarray(kernel), (*spec.rhs_spec[2:], *spec.rhs_spec[1::-1]))
        padding, stride, dilation = (
            tuple(params[name]) for name in ("padding", "window_strides", "rhs_dilation")
        )
        axes, made = ((*each[2:], each[1]) for each in (spec.lhs_spec, spec.out_spec))
        if count == 1:  # a signal is an image of one row
            axes, made, weights = (None, *axes), (None, *made), weights[None]
            padding, stride, dilation = ((0, 0), *padding), (1, *stride), (1, *dilation)
        return self.arrays.conv(
            x, axes, weights, made=made, stride=stride, padding=padding, dilation=dilation,
            groups=params["feature_group_count"],
        )  # fmt: skip

    def product(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """Sums over all that a tensor has are a dense layer, sums over channels a 1x1 convolution."""
        contracted, batched = equation.params["dimension_numbers"]
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            raise self.fault(
                "a product of two tensors (attention): layers multiply by constants alone"
            )
        if any(batched):
            raise self.fault("a product for each element of an axis: a dense layer expected")
        left = isinstance(x, Tensor)
        tensor, weights = (x, y) if isinstance(x, Tensor) else (y, x)
        assert isinstance(tensor, Tensor)
        own, others = contracted if left else contracted[::-1]
        matrix = np.moveaxis(np.asarray(weights), others, range(len(others)))
        outputs, count = matrix.shape[len(others) :], math.prod(matrix.shape[: len(others)])
        matrix = matrix.reshape(count, -1)
        places = np.moveaxis(tensor.places, own, range(-len(own), 0))
        free = places.shape[: places.ndim - len(own)]
        pixels, made = math.prod(free), math.prod(outputs)
        if not own:
            raise self.fault("an outer product: a dense layer expected")
        if pixels == 1:
            name = self.arrays.dense(Tensor(tensor.name, places), matrix)
        else:
            places = places.reshape(*(side for side in free if side > 1), count)
            name = self._pixelwise(Tensor(tensor.name, places), matrix)
        found = natural(name, (pixels, made)).places.reshape(*free, *outputs)
        order = range(found.ndim) if left else np.roll(range(found.ndim), len(outputs))
        return Tensor(name, found.transpose(order))

    def _pixelwise(self, x: Tensor, matrix: np.ndarray) -> str:
        """A 1x1 convolution, of an array (pixels, channels) or (rows, columns, channels)."""
        image, axes = self.builder.shapes[x.name], (0, 1, 2)
        if x.places.ndim == 2 and x.places.size == math.prod(image) and len(image) == 3:
            x = Tensor(x.name, x.places.reshape(*image[:2], -1))
        if x.places.ndim != 3 or grid(x.places, sides(image), axes) is None:
            raise self.fault(
                "it sums over something else than all values or the channels of an image (resizing, "
                "mixing of pixels): a dense layer or a convolution expected"
            )
        return self.arrays.conv(x, axes, matrix[None, None], made=axes).name

    # Values of tensors, each for itself.

    def affine(
        self, equation: Equation, x: Tensor, scale: Numbers = 1.0, offset: Numbers = 0.0
    ) -> Tensor:
        """Scales and shifts, but for sums of windows that become averages of what is in them."""
        if x.shape != equation.outputs[0].shape:
            raise self.fault(
                f"a tensor of shape {x.shape} is repeated to {equation.outputs[0].shape}: the shape of "
                "constants may grow, not that of tensors"
            )
        x = self.arrays.settled(x)
        if x.name in self.sums and not np.any(offset) and self.arrays.by_channel(x, scale) is None:
            return self._averaged(x, self.sums[x.name], scale)
        return self.arrays.affine(x, scale, offset)

    def _averaged(self, x: Tensor, sums: Sums, scale: Numbers) -> Tensor:
        """Sums times one over how many values of the image are in each window."""
        window, stride, padding = sums.sides
        high, wide, channels = self.builder.shapes[x.name]
        read = self.builder.shapes[sums.of]
        counts = np.multiply.outer(*(
            np.minimum((starts := np.arange(n) * step - before) + reach, side) - np.maximum(starts, 0)
            for n, side, reach, step, (before, _) in zip(
                (high, wide), read, window, stride, padding, strict=False)
        ))  # fmt: skip
        scale = np.broadcast_to(np.asarray(scale, np.float64), x.shape)
        factors = (scale.reshape(-1) * counts.reshape(-1)[x.places.reshape(-1) // channels]).ravel()
        if not np.allclose(factors, factors[0], rtol=1e-6):
            raise self.fault(BY_PIXEL)
        made = self.builder.avg_pool(sums.of, *sums.sides, counted=False)
        return Tensor(self.builder.affine(made, float(factors[0])), x.places)

    def compared(self, equation: Equation, x: Operand, y: Operand) -> Positive:
        """Whether values are above zero, or below."""
        tensor, other = (x, y) if isinstance(x, Tensor) else (y, x)
        if not isinstance(tensor, Tensor) or isinstance(other, Tensor) or np.asarray(other).any():
            raise self.fault(CHOICE)
        return Positive(tensor, below=tensor is y)

    def chosen(
        self, equation: Equation, which: Positive | Operand, no: Operand, yes: Operand
    ) -> Tensor:
        """A leaky ReLU, or a plain one, by the sign of what it reads."""
        if not isinstance(which, Positive):
            raise self.fault(CHOICE)
        above, below = (no, yes) if which.below else (yes, no)
        x = self.arrays.settled(which.of)
        if not isinstance(above, Tensor) or not above.same(which.of):
            raise self.fault(CHOICE)
        if not isinstance(below, Tensor):
            if np.asarray(below).any():
                raise self.fault(CHOICE)
            return self.arrays.relu(x)
        multiple = self.builder.multiple(below.name)
        if multiple is None or not x.same(Tensor(multiple[0], below.places)):
            raise self.fault(CHOICE)
        return Tensor(self.builder.leaky_relu(*multiple), x.places)

    def sum(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """Of a tensor and a constant, or of two tensors in the same order."""
        if not isinstance(y, Tensor):
            x, y = y, x
        if not isinstance(x, Tensor):
            assert isinstance(y, Tensor)
            return self.affine(equation, y, offset=x)
        assert isinstance(y, Tensor)
        return self.arrays.sum(x, y)

    def difference(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """Of a tensor and a constant, or of two tensors."""
        if not isinstance(y, Tensor):
            assert isinstance(x, Tensor)
            return self.affine(equation, x, offset=-y)
        if not isinstance(x, Tensor):
            return self.affine(equation, y, -1.0, x)
        if x.shape == y.shape:
            y = self.affine(equation, y, -1.0)
        return self.sum(equation, x, y)

    def scaled(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """Products of which one factor is constant."""
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            raise self.fault(MOMENTS if x.same(y) else GATE)
        if not isinstance(x, Tensor):
            x, y = y, x
        assert isinstance(x, Tensor) and not isinstance(y, Tensor)
        return self.affine(equation, x, scale=y)

    def divided(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """Quotients by a constant."""
        if isinstance(y, Tensor) or not isinstance(x, Tensor):
            raise self.fault(
                "it divides by what depends on the input (softmax inside, norms of the input itself): "
                f"only constants can divide; {AT_THE_END}"
            )
        return self.affine(equation, x, scale=1 / np.asarray(y, np.float64))

    def bounded(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """The larger or lesser of a tensor and a constant."""
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            raise self.fault(
                "the larger or smaller of two tensors (maxout): only pools and ReLUs compare; "
                "max(x, y) is x + relu(y - x)"
            )
        x, y = (x, y) if isinstance(x, Tensor) else (y, x)
        assert isinstance(x, Tensor)
        return self.arrays.clip(x, y) if equation.name == "max" else self.arrays.clip(x, high=y)

    # Windows.

    def pooled(self, equation: Equation, x: Tensor) -> Tensor:
        """A max pool, or the sums of windows: an average times their area."""
        params = equation.params
        if any(step != 1 for step in (*params["base_dilation"], *params["window_dilation"])):
            raise self.fault("a dilated pool: the window's values must lie side by side")
        name, found = self.arrays.made(x)
        window, stride, padding = [1, 1], [1, 1], [(0, 0), (0, 0)]
        windows = zip(
            params["window_dimensions"], params["window_strides"], params["padding"], strict=True
        )
        for axis, (side, step, margins) in enumerate(windows):
            place = found.axes.index(axis) if axis in found.axes else None
            if place is None or place == 2:
                if side != 1 or any(margins) or (place == 2 and step != 1):
                    raise self.fault(
                        "a pool over channels or pictures: over rows and columns expected"
                    )
                continue
            window[place], stride[place], padding[place] = side, step, tuple(margins)
        geometry = (window[0], window[1]), (stride[0], stride[1]), (padding[0], padding[1])
        if equation.name == "reduce_window_max":
            made = self.builder.max_pool(name, *geometry)
        else:
            made = self.builder.affine(self.builder.avg_pool(name, *geometry), math.prod(window))
            self.sums[made] = Sums(name, geometry)
        return self.arrays.laid(made, found.axes, x.places.ndim)

    def reduced(self, equation: Equation, x: Tensor) -> Tensor:
        """Sums and largest values over rows, columns or both."""
        axes, largest = equation.params["axes"], equation.name == "reduce_max"
        made = self.arrays.over(x, axes, largest)
        count = x.places.size // made.places.size
        return made if largest or count == 1 else self.arrays.affine(made, count)
