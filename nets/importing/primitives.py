"""What primitives of JAX mean as operations of ours, and why those that mean none cannot be done."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nets.importing.builder import Builder, Sides
from nets.importing.layout import ZERO, Layouts, Tensor, grid, natural
from nets.importing.trace import Equation
from pqjax.errors import GraphError
from pqjax.graph.bounds import Shape

Operand = Tensor | jax.Array
Constant = jax.Array | np.ndarray | float

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
_SMOOTH = (
    "exp", "exp2", "log", "log1p", "expm1", "tanh", "logistic", "erf", "erfc", "erf_inv", "sqrt",
    "rsqrt", "cbrt", "pow", "sin", "cos", "tan", "atan2", "sinh", "cosh",
)  # fmt: skip
_CHOICES = ("eq", "ne", "abs", "sign", "floor", "ceil", "round", "and", "or", "not")
_LOOPS = ("scan", "while", "cond", "cumsum", "cumprod", "cummax", "cumlogsumexp")
_ORDERS = ("argmax", "argmin", "sort", "top_k", "reduce_min", "reduce_prod", "reduce_window_min")

_AT_THE_END = (
    "at the end of a network softmax, log_softmax, sigmoid and argmax are left to the client"
)
_CHOSEN = (
    "it chooses between values by what they are (hard swish, masks): of such only max(x, 0), "
    "min(x, cap) and leaky ReLUs can be done; write nnx.relu, nnx.relu6, nnx.leaky_relu or "
    "jnp.clip(x, 0, cap)"
)
_REASONS: Mapping[str, str] = {
    **dict.fromkeys(
        _SMOOTH,
        "a smooth function of a tensor (SiLU, GELU, ELU, tanh, softmax inside): train with ReLU or "
        f"ReLU6 instead; {_AT_THE_END}",
    ),
    **dict.fromkeys(_CHOICES, _CHOSEN),
    **dict.fromkeys(
        _LOOPS,
        "a loop or a choice that depends on the input (recurrent networks): only loops over layers of "
        "known weights can be unrolled; write the layers out",
    ),
    **dict.fromkeys(
        _ORDERS,
        f"values are ranked: only max pools and ReLUs can compare; {_AT_THE_END}",
    ),
    **dict.fromkeys(
        ("square", "integer_pow"),
        "powers of a tensor (a layer, group or instance norm, or a batch norm that takes statistics of "
        "its own batch): use batch norm with running averages (model.eval(), use_running_average=True)",
    ),
}  # fmt: skip


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
      multiples: of tensors that are others times a factor by channel, these.
      sums: of tensors that are sums of windows, of what.
    """

    def __init__(self, builder: Builder):
        self.builder, self.layouts = builder, Layouts(builder)
        self.multiples: dict[str, tuple[str, np.ndarray]] = {}
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
            "neg": lambda equation, x: self.affine(equation, x, scale=-1.0),
            "mul": self.scaled,
            "div": self.divided,
            **dict.fromkeys(("gt", "ge"), self.compared),
            **dict.fromkeys(("lt", "le"), lambda equation, x, y: self.compared(equation, y, x)),
            "select_n": self.chosen,
            "max": self.maximum,
            "min": self.minimum,
            "clamp": lambda e, low, x, high: self.minimum(e, self.maximum(e, x, low), high),
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
        name = equation.name
        if name.startswith(("random_", "rng_", "threefry")):
            raise self.fault(
                "random numbers are drawn: turn dropout and noise off (model.eval(), "
                "deterministic=True, training=False)"
            )
        if name in _REASONS:
            raise self.fault(_REASONS[name])
        if name != "select_n" and any(isinstance(each, Positive) for each in inputs):
            raise self.fault(_CHOSEN)
        if name not in self.rules:
            raise self.fault(
                "no operation here does this; convolutions, dense layers, norms with running "
                "averages, ReLUs, pools, sums, concatenations and reshapes can be read"
            )
        made = self.rules[name](equation, *inputs)
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
        builder, found = self.builder, []
        for part in parts:
            if isinstance(part, Tensor):
                found.append(self.layouts.settled(part))
            elif np.asarray(part).any():
                raise self.fault("it joins a tensor and constants other than zero: use zeros")
        names = [part.name for part in found]
        if len({builder.shapes[name][:-1] for name in names}) > 1:
            names = [builder.flatten(name) for name in names]
        made, before, moved = builder.concat(*names), 0, iter(zip(names, found, strict=True))
        total, arrays = builder.shapes[made][-1], []
        for part in parts:
            if not isinstance(part, Tensor):
                arrays.append(np.full(part.shape, ZERO, np.int32))
                continue
            name, array = next(moved)
            channels = builder.shapes[name][-1]
            pixels, at = np.divmod(array.places, channels)
            arrays.append((pixels * total + at + before).astype(np.int32))
            before += channels
        joined = Tensor(made, np.concatenate(arrays, equation.params["dimension"]))
        if not self.layouts.flat(joined):
            self.layouts.made(joined)  # or says that these are no channels
        return joined

    # Layers.

    def convolution(self, equation: Equation, x: Operand, kernel: Operand) -> Tensor:
        """A convolution of one or two sides, whatever the order of its axes."""
        params, spec = equation.params, equation.params["dimension_numbers"]
        if not isinstance(x, Tensor) or isinstance(kernel, Tensor):
            raise self.fault("its kernel is computed from the input: a constant one expected")
        sides = len(spec.lhs_spec) - 2
        if sides not in (1, 2):
            raise self.fault(
                f"it has {sides} sides: images (n, H, W, C) or signals (n, W, C) expected"
            )
        if any(step != 1 for step in params["lhs_dilation"]):
            raise self.fault(
                "a transposed convolution (zeros between its inputs): not among the operations here; "
                "classifiers do without"
            )
        if params["batch_group_count"] != 1 or min(map(min, params["padding"])) < 0:
            raise self.fault("groups of pictures or negative padding: plain convolutions expected")
        batch, channel, *places = spec.lhs_spec
        weights = np.transpose(np.asarray(kernel), (*spec.rhs_spec[2:], *spec.rhs_spec[1::-1]))
        padding, stride, dilation = (
            tuple(params[name]) for name in ("padding", "window_strides", "rhs_dilation")
        )
        if sides == 1:  # a signal is an image of one row
            places, weights = [batch, *places], weights[None]
            padding, stride, dilation = ((0, 0), *padding), (1, *stride), (1, *dilation)
        groups = params["feature_group_count"]
        name, weights = self._read_by(x, (places[0], places[1], channel), weights, groups)
        made = self.builder.conv(
            name, weights, stride=stride, padding=padding, groups=groups, dilation=dilation
        )
        out = spec.out_spec
        order = [out[0], *out[2:], out[1]]
        shape = [equation.outputs[0].shape[axis] for axis in order]
        return Tensor(made, natural(made, tuple(shape)).places.transpose(np.argsort(order)))

    def _read_by(
        self, x: Tensor, axes: tuple[int, int, int], kernel: np.ndarray, groups: int
    ) -> tuple[str, np.ndarray]:
        """An image for a convolution; another order of its channels goes into the kernel."""
        channels = self.builder.shapes[x.name][-1]
        if groups == 1 and x.shape[axes[2]] == channels and len(self.builder.shapes[x.name]) == 3:
            order = np.moveaxis(x.places, axes[2], -1).reshape(-1, channels)[0] % channels
            if np.array_equal(np.sort(order), np.arange(channels)):
                places = np.take(x.places, np.argsort(order), axes[2])
                x, kernel = Tensor(x.name, places), kernel[..., np.argsort(order), :]
        return self.layouts.made(x, axes)[0], kernel

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
            name = self._dense(tensor.name, places.reshape(-1), matrix)
        else:
            places = places.reshape(*(side for side in free if side > 1), count)
            name = self._pixelwise(Tensor(tensor.name, places), matrix)
        found = natural(name, (pixels, made)).places.reshape(*free, *outputs)
        order = range(found.ndim) if left else np.roll(range(found.ndim), len(outputs))
        return Tensor(name, found.transpose(order))

    def _dense(self, name: str, places: np.ndarray, matrix: np.ndarray) -> str:
        """Rows of the weights go to where the tensor has the elements that they read."""
        size = math.prod(self.builder.shapes[name])
        rows = np.zeros((size, matrix.shape[1]), matrix.dtype)
        read = places != ZERO
        np.add.at(rows, places[read], matrix[read])
        return self.builder.dense(name, rows)

    def _pixelwise(self, x: Tensor, matrix: np.ndarray) -> str:
        """A 1x1 convolution, of an array (pixels, channels) or (rows, columns, channels)."""
        image = self.builder.shapes[x.name]
        if x.places.ndim == 2 and x.places.size == math.prod(image) and len(image) == 3:
            x = Tensor(x.name, x.places.reshape(*image[:2], -1))
        if x.places.ndim != 3 or grid(x.places, image, (0, 1, 2)) is None:
            raise self.fault(
                "it sums over something else than all values or the channels of an image (resizing, "
                "mixing of pixels): a dense layer or a convolution expected"
            )
        return self.builder.conv(*self._read_by(x, (0, 1, 2), matrix[None, None], 1))

    # Values of tensors, each for itself.

    def affine(
        self, equation: Equation, x: Tensor, scale: Constant = 1.0, offset: Constant = 0.0
    ) -> Tensor:  # fmt: skip
        """Scales and shifts: x * scale + offset, by constants that may differ by channel."""
        if x.shape != equation.outputs[0].shape:
            raise self.fault(
                f"a tensor of shape {x.shape} is repeated to {equation.outputs[0].shape}: the shape of "
                "constants may grow, not that of tensors"
            )
        x = self.layouts.settled(x)
        arrays = [
            np.broadcast_to(np.asarray(each, np.float64), x.shape) for each in (scale, offset)
        ]
        name = x.name
        found = [_by_channel(x, self.builder.shapes[name][-1], each) for each in arrays]
        if any(each is None for each in found) and self.layouts.flat(x):
            name = self.builder.flatten(name)
            found = [_by_channel(x, self.builder.shapes[name][-1], each) for each in arrays]
        first, second = found
        if first is None and name in self.sums and not arrays[1].any():
            return self._averaged(x, self.sums[name], arrays[0])
        if first is None or second is None:
            raise self.fault(
                "constants that differ by row or column (a position's embedding, a mask): one for each "
                "channel expected"
            )
        if not np.isfinite([first, second]).all():
            raise self.fault("constants that are not finite: the network's weights must be")
        made = self.builder.affine(name, first, second)
        if not second.any():
            self.multiples[made] = name, first
        return Tensor(made, x.places)

    def _averaged(self, x: Tensor, sums: Sums, scale: np.ndarray) -> Tensor:
        """Sums times one over how many values of the image are in each window."""
        window, stride, padding = sums.sides
        high, wide, channels = self.builder.shapes[x.name]
        read = self.builder.shapes[sums.of]
        counts = np.multiply.outer(*(
            np.minimum((starts := np.arange(n) * step - before) + reach, side) - np.maximum(starts, 0)
            for n, side, reach, step, (before, _) in zip(
                (high, wide), read, window, stride, padding, strict=False)
        ))  # fmt: skip
        factors = (scale.reshape(-1) * counts.reshape(-1)[x.places.reshape(-1) // channels]).ravel()
        if not np.allclose(factors, factors[0], rtol=1e-6):
            raise self.fault(
                "constants that differ by row or column: one for each channel expected"
            )
        made = self.builder.avg_pool(sums.of, *sums.sides, counted=False)
        return Tensor(self.builder.affine(made, float(factors[0])), x.places)

    def compared(self, equation: Equation, x: Operand, y: Operand) -> Positive:
        """Whether values are above zero, or below."""
        tensor, other = (x, y) if isinstance(x, Tensor) else (y, x)
        if not isinstance(tensor, Tensor) or isinstance(other, Tensor) or np.asarray(other).any():
            raise self.fault(_CHOSEN)
        return Positive(tensor, below=tensor is y)

    def chosen(
        self, equation: Equation, which: Positive | Operand, no: Operand, yes: Operand
    ) -> Tensor:
        """A leaky ReLU, or a plain one, by the sign of what it reads."""
        if not isinstance(which, Positive):
            raise self.fault(_CHOSEN)
        above, below = (no, yes) if which.below else (yes, no)
        x = self.layouts.settled(which.of)
        if not isinstance(above, Tensor) or not above.same(which.of):
            raise self.fault(_CHOSEN)
        if not isinstance(below, Tensor):
            if np.asarray(below).any():
                raise self.fault(_CHOSEN)
            return self._relu(x)
        name, slope = self.multiples.get(below.name, ("", np.zeros(())))
        if name != x.name or not np.array_equal(below.places, x.places):
            raise self.fault(_CHOSEN)
        return Tensor(self.builder.leaky_relu(name, slope), x.places)

    def sum(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """Of a tensor and a constant, or of two tensors in the same order."""
        if not isinstance(y, Tensor):
            x, y = y, x
        if not isinstance(x, Tensor):
            assert isinstance(y, Tensor)
            return self.affine(equation, y, offset=x)
        assert isinstance(y, Tensor)
        if x.shape != y.shape:
            raise self.fault(
                f"a sum of tensors of shapes {x.shape} and {y.shape}: only of one shape, or of a tensor "
                "and constants; repeat no tensor"
            )
        x, y = self.layouts.settled(x), self.layouts.settled(y)
        names = [x.name, y.name]
        if len({self.builder.shapes[name] for name in names}) > 1:
            names = [self.builder.flatten(name) for name in names]
        if not np.array_equal(x.places, y.places):
            raise self.fault(
                "a sum of tensors whose elements are in different orders (one was transposed or its "
                "channels shuffled): bring both into one order"
            )
        return Tensor(self.builder.add(*names), x.places)

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
            if x.same(y):
                raise self.fault(_REASONS["square"])
            raise self.fault(
                "two tensors are multiplied (SiLU, gates, squeeze-and-excitation): layers multiply by "
                "constants alone; leave the gate out, or train with ReLU"
            )
        if not isinstance(x, Tensor):
            x, y = y, x
        assert isinstance(x, Tensor) and not isinstance(y, Tensor)
        return self.affine(equation, x, scale=y)

    def divided(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """Quotients by a constant."""
        if isinstance(y, Tensor) or not isinstance(x, Tensor):
            raise self.fault(
                "it divides by what depends on the input (softmax inside, norms of the input itself): "
                f"only constants can divide; {_AT_THE_END}"
            )
        return self.affine(equation, x, scale=1 / np.asarray(y, np.float64))

    def maximum(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """max(x, t) is a ReLU: max(x - t, 0) + t."""
        x, least = self._bounded(x, y)
        if np.isneginf(least).all():
            return x
        if least.any():
            return self.affine(
                equation, self._relu(self.affine(equation, x, offset=-least)), offset=least
            )
        return self._relu(x)

    def _relu(self, x: Tensor) -> Tensor:
        x = self.layouts.settled(x)
        return Tensor(self.builder.relu(x.name), x.places)

    def minimum(self, equation: Equation, x: Operand, y: Operand) -> Tensor:
        """The cap of a ReLU, before or after it."""
        x, most = self._bounded(x, y)
        if np.isposinf(most).all():
            return x
        if (most != most.flat[0]).any():
            raise self.fault("a cap for each channel: one for all expected, as in ReLU6")
        x = self.layouts.settled(x)
        return Tensor(self.builder.minimum(x.name, float(most.flat[0])), x.places)

    def _bounded(self, x: Operand, y: Operand) -> tuple[Tensor, np.ndarray]:
        """A tensor and the constant that bounds it."""
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            raise self.fault(
                "the larger or smaller of two tensors (maxout): only pools and ReLUs compare; "
                "max(x, y) is x + relu(y - x)"
            )
        x, y = (x, y) if isinstance(x, Tensor) else (y, x)
        assert isinstance(x, Tensor)
        return x, np.asarray(y, np.float64)

    # Windows.

    def pooled(self, equation: Equation, x: Tensor) -> Tensor:
        """A max pool, or the sums of windows: an average times their area."""
        params = equation.params
        if any(step != 1 for step in (*params["base_dilation"], *params["window_dilation"])):
            raise self.fault("a dilated pool: the window's values must lie side by side")
        name, found = self.layouts.made(x)
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
        sides = (window[0], window[1]), (stride[0], stride[1]), (padding[0], padding[1])
        if equation.name == "reduce_window_max":
            made = self.builder.max_pool(name, *sides)
        else:
            made = self.builder.affine(self.builder.avg_pool(name, *sides), math.prod(window))
            self.sums[made] = Sums(name, sides)
        return self.layouts.laid(made, found.axes, equation.outputs[0].shape)

    def reduced(self, equation: Equation, x: Tensor) -> Tensor:
        """Sums and largest values over rows, columns or both."""
        axes, shape = equation.params["axes"], equation.outputs[0].shape
        if math.prod(shape) == x.places.size:
            return Tensor(x.name, x.places.reshape(shape))
        x = self.layouts.settled(x)
        name, total = x.name, equation.name == "reduce_sum"
        image: Shape = self.builder.shapes[name]
        rows = np.moveaxis(x.places, axes, range(-len(axes), 0)).reshape(*shape, -1)
        of = rows % image[-1]
        if len(image) == 3 and math.prod(shape) == image[2] and (of == of[..., :1]).all():
            if total:
                made = self.builder.affine(self.builder.global_average(name), math.prod(image[:2]))
            else:
                made = self.builder.max_pool(name, (image[0], image[1]), (1, 1))
            return Tensor(made, of[..., 0].astype(np.int32))
        name, found = self.layouts.made(x)
        places = [found.axes.index(axis) for axis in axes if axis in found.axes]
        if 2 in places:
            raise self.fault(
                "sums or largest values over channels (layer norm, attention, softmax inside): over "
                f"rows and columns expected; norms need running averages; {_AT_THE_END}"
            )
        window = (image[0] if 0 in places else 1), (image[1] if 1 in places else 1)
        if total:
            made = self.builder.affine(
                self.builder.avg_pool(name, window, (1, 1)), math.prod(window)
            )
        else:
            made = self.builder.max_pool(name, window, (1, 1))
        kept = [axis for axis in range(x.places.ndim) if axis not in axes]
        roles = tuple(kept.index(axis) if axis in kept else None for axis in found.axes)
        return self.layouts.laid(made, roles, shape)


def _by_channel(x: Tensor, channels: int, numbers: np.ndarray) -> np.ndarray | None:
    """One number for each channel, where an array has the same at all its pixels."""
    found, at = np.zeros(channels), x.places % channels
    found[at.reshape(-1)] = numbers.reshape(-1)
    return found if np.array_equal(found[at], numbers) else None
