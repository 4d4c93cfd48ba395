"""What every ONNX operator is in our terms: the table that the importer walks with.

What computes nothing (reshapes, splits, shuffles) makes views; see `nets.importing.views`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nets.importing.onnx_step import Step
from nets.importing.views import View

Made = View | Sequence[View]


def _like(x: View, tensor: str) -> View:
    """What is done to every element alike stands where it stood."""
    return dataclasses.replace(x, tensor=tensor)


def _image(at: Step, x: View, tensor: str) -> View:
    """An image of ours, or a vector, in the source's usual order; with as many sides as `x`."""
    shape = at.builder.shapes[tensor]
    high, wide, channels = shape if len(shape) == 3 else (1, 1, *shape)
    return View(tensor, (1, channels, *(high, wide)[4 - len(x.shape) :]))


def _conv(at: Step) -> Made:
    x, weight = at.view(), at.weights(1, "kernel")
    bias = None if at.constant(2, "bias") is None else at.weights(2, "bias").ravel()
    if weight.ndim not in (3, 4) or len(x.shape) != weight.ndim:
        raise at.fault(
            f"a kernel {weight.shape} on {x.shape}: convolutions over 1 or 2 sides are read, with as "
            "many as their image has"
        )
    tensor, groups = x.image(at.builder), int(at.attribute("group", 1))
    shape = at.builder.shapes[tensor]
    sides = shape[:2] if len(shape) == 3 else (1, 1)
    at_windows = at.windows(weight.shape[2:], (sides[0], sides[1]))
    kernel = weight.reshape(*weight.shape[:2], *at_windows.window).transpose(2, 3, 1, 0)
    if len(shape) == 1:  # an image of one pixel
        if at_windows.window != (1, 1) or groups != 1 or any(map(any, at_windows.padding)):
            raise at.fault(
                "a window over what is a vector: 1x1 without groups and padding expected"
            )
        return _image(at, x, at.builder.dense(tensor, kernel[0, 0], bias))
    if bias is not None and len(bias) != kernel.shape[3]:
        raise at.fault(f"{kernel.shape[3]} biases expected, got {len(bias)}")
    made = at.builder.conv(
        tensor, kernel, bias, stride=at_windows.stride, padding=at_windows.padding, groups=groups,
        dilation=at_windows.dilation,
    )  # fmt: skip
    return _image(at, x, made)


def _matrix(at: Step, x: View, weight: np.ndarray, bias: np.ndarray | None) -> Made:
    """A dense layer: our order of what it reads goes into its weights."""
    count = int(np.prod(x.shape))
    if count != x.shape[-1]:
        raise at.fault(
            f"multiplies {x.shape} with a matrix along the last side; one vector is read at a time: "
            "for every pixel of an image use a 1x1 convolution"
        )
    if weight.ndim != 2 or len(weight) != count:
        raise at.fault(f"weights of ({count}, ...) expected, got {weight.shape}")
    tensor, places = x.vector(at.builder)
    size = at.builder.shapes[tensor][0]
    if size != count or not np.array_equal(places, np.arange(size)):
        kernel = np.zeros((size, weight.shape[1]), weight.dtype)
        np.add.at(kernel, places, weight)
        weight = kernel
    if bias is not None:
        bias = np.broadcast_to(bias.ravel(), weight.shape[1:]) if bias.size == 1 else bias.ravel()
        if len(bias) != weight.shape[1]:
            raise at.fault(f"{weight.shape[1]} biases expected, got {len(bias)}")
    made = at.builder.dense(tensor, weight, bias)
    return View(made, (*x.shape[:-1], weight.shape[1])) if len(x.shape) == 2 else View.of(
        at.builder, made, np.arange(weight.shape[1]).reshape(*x.shape[:-1], -1)
    )  # fmt: skip


def _gemm(at: Step) -> Made:
    weight = at.weights(1, "matrix")
    if (alpha := at.attribute("alpha", 1.0)) != 1:
        weight = weight * alpha
    weight = weight.T if at.attribute("transB", 0) else weight
    if at.attribute("transA", 0):
        raise at.fault("reads its operand transposed, which is a vector; leave out transA")
    bias = None
    if at.constant(2, "bias") is not None:
        bias = at.weights(2, "bias") * at.attribute("beta", 1.0)
    return _matrix(at, at.view(), weight, bias)


def _matmul(at: Step) -> Made:
    if isinstance(at.operands[0], np.ndarray):
        raise at.fault("constants times the input's tensor: transpose both (x W, not W x)")
    return _matrix(at, at.view(), at.weights(1, "matrix"), None)


def _affine(at: Step, x: View, scale: np.ndarray, offset: np.ndarray) -> Made:
    """A constant factor and summand, one for all or one for each channel."""
    count = at.builder.shapes[x.tensor][-1]
    made = [_by_channel(at, x, each, count, i) for i, each in enumerate((scale, offset))]
    return _like(x, at.builder.affine(x.tensor, made[0], made[1]))


def _by_channel(
    at: Step, x: View, given: np.ndarray, count: int, neutral: int
) -> np.ndarray | float:
    if given.size == 1:
        return float(given.ravel()[0])
    try:
        fits = np.broadcast_shapes(given.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise at.fault(f"a constant of {given.shape} does not fit a tensor of {x.shape}")
    channels, every = x.channels(at.builder), np.broadcast_to(given, x.shape)
    found = np.full(count, 1.0 - neutral)
    found[channels.ravel()] = every.ravel()
    if not np.array_equal(found[channels], every):
        raise at.fault("a constant for every pixel; one for each channel, or for all, expected")
    return found


def _arithmetic(at: Step) -> Made:
    """Add, Sub, Mul and Div, of two tensors or of one and constants."""
    kind, (a, b) = at.node.op_type, at.operands[:2]
    one, none = np.ones(()), np.zeros(())
    if isinstance(a, View) and isinstance(b, View):
        if kind == "Add":
            return _sum(at, a, b)
        if kind == "Sub":
            return _sum(at, a, _like(b, at.builder.affine(b.tensor, -1.0)))
        raise at.fault(
            "both factors come from the input: gates, attention and squeeze-and-excitation are not "
            "imported; take a network without them (ReLU for swish, no SE blocks)"
        )
    if isinstance(b, View):
        number = at.weights(0, "constant")
        if kind == "Div":
            raise at.fault("divides a constant by the input's tensor; only constants can divide")
        if kind == "Sub":
            return _affine(at, b, -one, number)
        return _affine(at, b, *((number, none) if kind == "Mul" else (one, number)))
    x, number = at.view(), at.weights(1, "constant")
    if kind == "Div" and not number.all():
        raise at.fault("divides by 0")
    return _affine(at, x, *{
        "Add": (one, number), "Sub": (one, -number), "Mul": (number, none),
        "Div": (1.0 / np.where(number == 0, 1, number), none),
    }[kind])  # fmt: skip


def _sum(at: Step, a: View, b: View) -> View:
    if a.shape != b.shape:
        raise at.fault(f"two tensors of one shape expected, got {a.shape} and {b.shape}")
    shapes, same = at.builder.shapes, a.places is None and b.places is None
    if not same:
        same = np.array_equal(a.all_places(at.builder), b.all_places(at.builder))
    if shapes[a.tensor] == shapes[b.tensor] and same:
        return _like(a, at.builder.add(a.tensor, b.tensor))
    return _image(at, a, at.builder.add(a.image(at.builder), b.image(at.builder)))


def _several(at: Step) -> Made:
    """Sum and Mean of any number of tensors."""
    views = [at.view(i) for i in range(len(at.operands))]
    total = functools.reduce(functools.partial(_sum, at), views)
    if at.node.op_type == "Sum":
        return total
    return _like(total, at.builder.affine(total.tensor, 1 / len(views)))


def _norm(at: Step) -> Made:
    if at.attribute("training_mode", 0) or len([name for name in at.node.output if name]) > 1:
        raise at.fault("a batch norm in training mode; export the model in inference mode (eval)")
    x, eps = at.view(), at.attribute("epsilon", 1e-5)
    names = ("scale", "bias", "mean", "variance")
    scale, bias, mean, variance = (at.weights(i + 1, name).ravel() for i, name in enumerate(names))
    if (variance + eps <= 0).any():
        raise at.fault("a variance below 0")
    gain = scale / np.sqrt(variance + eps)
    sides = (1, -1, *[1] * (len(x.shape) - 2))
    return _affine(at, x, gain.reshape(sides), (bias - mean * gain).reshape(sides))


def _clip(at: Step) -> Made:
    """Of [0, cap] a ReLU with a cap; of [a, b] one of x - a, plus a."""
    lowest, highest = -3.4e38, 3.4e38
    low, high = at.scalar(1, "min", lowest), at.scalar(2, "max", highest)
    return _clipped(at, at.view(), low, high)


def _clipped(at: Step, x: View, low: float, high: float) -> Made:
    if low >= high:
        raise at.fault(f"a clip to [{low:g}, {high:g}], where nothing is left")
    builder, tensor = at.builder, x.tensor
    if low <= -3.4e38:
        return x if high >= 3.4e38 else _like(x, builder.minimum(tensor, high))
    cap = None if high >= 3.4e38 else high - low
    tensor = builder.affine(tensor, 1.0, -low) if low else tensor
    tensor = builder.relu(tensor, cap)
    return _like(x, builder.affine(tensor, 1.0, low) if low else tensor)


def _leaky(at: Step) -> Made:
    x = at.view()
    slope = np.array(at.attribute("alpha", 0.01))
    if at.node.op_type == "PRelu":
        slope = at.weights(1, "slope")
    found = _by_channel(at, x, slope, at.builder.shapes[x.tensor][-1], 1)
    return _like(x, at.builder.leaky_relu(x.tensor, found))


def _hard_sigmoid(at: Step) -> Made:
    x = at.view()
    slope, offset = at.attribute("alpha", 0.2), at.attribute("beta", 0.5)
    return _like(x, at.builder.relu(at.builder.affine(x.tensor, slope, offset), 1.0))


def _pool(at: Step) -> Made:
    x = at.view()
    if len([name for name in at.node.output if name]) > 1:
        raise at.fault("the places of the largest values are wanted, too; only the values are made")
    tensor = x.image(at.builder)
    if len(at.builder.shapes[tensor]) != 3:
        raise at.fault(f"a pool over {x.shape}, which has no rows and columns")
    high, wide, _ = at.builder.shapes[tensor]
    found = at.windows(at.attribute("kernel_shape"), (high, wide))
    if found.dilation != (1, 1):
        raise at.fault("windows with gaps (dilations): pools of neighbouring pixels are imported")
    geometry = found.window, found.stride, found.around
    if at.node.op_type == "MaxPool":
        return _image(at, x, at.builder.max_pool(tensor, *geometry))
    counted = bool(at.attribute("count_include_pad", 0)) or not any(map(any, found.around))
    if counted and any(found.over):
        raise at.fault(
            "its last windows reach over the padding that counts: leave out ceil_mode or "
            "count_include_pad"
        )
    return _image(at, x, at.builder.avg_pool(tensor, *geometry, counted))


def _global(at: Step) -> Made:
    x = at.view()
    rank = len(x.shape)
    return _over(at, x, tuple(range(2, rank)), True, "Max" in at.node.op_type, 1.0)


def _reduce(at: Step) -> Made:
    """ReduceMean, ReduceSum and ReduceMax over rows and columns, wherever their axes are."""
    x = at.view()
    axes, rank = at.axes(1, len(x.shape)), len(x.shape)
    kept = [axis for axis in range(1, rank) if axis not in (axes or ())]
    if not axes or 0 in axes or len(kept) != 1 or len(axes) != rank - 2:
        raise at.fault(
            f"over the axes {axes} of {x.shape}: all rows and columns of every channel expected; "
            "nothing is reduced over channels"
        )
    keep, largest = bool(at.attribute("keepdims", 1)), at.node.op_type == "ReduceMax"
    count = float(np.prod([x.shape[axis] for axis in axes])) if "Sum" in at.node.op_type else 1.0
    return _over(at, x, axes, keep, largest, count)


def _over(
    at: Step, x: View, axes: tuple[int, ...], keep: bool, largest: bool, factor: float
) -> View:
    builder = at.builder
    (kept,) = [axis for axis in range(1, len(x.shape)) if axis not in axes]
    tensor = x.moved(builder, kept).image(builder)
    shape = builder.shapes[tensor]
    if len(shape) == 3:
        high, wide, _ = shape
        whole = (high, wide), (1, 1)
        tensor = builder.max_pool(tensor, *whole) if largest else builder.global_average(tensor)
    tensor = builder.affine(tensor, factor) if factor != 1 else tensor
    sides = [n if axis == kept else 1 for axis, n in enumerate(x.shape) if keep or axis not in axes]
    return View.of(builder, tensor, np.arange(x.shape[kept]).reshape(sides))


def _concat(at: Step) -> Made:
    builder, views = at.builder, [at.view(i) for i in range(len(at.operands))]
    rank = len(views[0].shape)
    axis = int(at.attribute("axis", 1)) % rank
    others = {tuple(n for i, n in enumerate(v.shape) if i != axis) for v in views}
    if len(others) != 1 or axis == 0:
        raise at.fault(f"tensors of one height and width expected, got {[v.shape for v in views]}")
    images = all(len(builder.shapes[v.tensor]) == 3 for v in views)
    if rank > 2 and images:
        tensor = builder.concat(*(v.moved(builder, axis).image(builder) for v in views))
        shape = (
            1,
            builder.shapes[tensor][-1],
            *(n for i, n in enumerate(views[0].shape) if i not in (0, axis)),
        )
        places = View(tensor, shape).all_places(builder)
        return View.of(builder, tensor, np.moveaxis(places, 1, axis))
    flat, places, first = [], [], 0
    for v in views:
        flat.append(builder.flatten(v.tensor))
        places.append(v.all_places(builder) + first)
        first += builder.shapes[flat[-1]][0]
    return View.of(builder, builder.concat(*flat), np.concatenate(places, axis))


def _pad(at: Step) -> Made:
    x, mode = at.view(), at.attribute("mode", "constant")
    given = at.constant(1, "margins")
    margins = at.attribute("pads", at.attribute("paddings")) if given is None else given.tolist()
    value, rank = at.scalar(2, "value", 0.0), len(x.shape)
    axes = at.axes(3, rank) if len(at.operands) > 3 else tuple(range(rank))
    if margins is None or axes is None or len(margins) != 2 * len(axes):
        raise at.fault(f"margins before and after {rank} sides expected, got {margins}")
    found: dict[int, tuple[int, int]] = dict.fromkeys(range(rank), (0, 0))
    for i, axis in enumerate(axes):
        found[axis] = int(margins[i]), int(margins[i + len(axes)])
    if min(map(min, found.values())) < 0:
        raise at.fault("margins below 0 cut rows or columns off; crop before the network")
    if mode not in ("constant", "edge") or found[0] != (0, 0):
        raise at.fault(f"padding by {mode!r}: zeros, or what stands at the edge, are imported")
    if mode == "constant" and value:
        raise at.fault(
            f"padding with {value:g}: zeros are padded; what pools the largest is to pad by itself"
        )
    tensor = x.image(at.builder)
    if rank not in (3, 4) or len(at.builder.shapes[tensor]) != 3:
        raise at.fault(f"margins around {x.shape}: an image of 1 or 2 sides expected")
    sides = (found[2], found[3]) if rank == 4 else ((0, 0), found[2])
    return _image(at, x, at.builder.pad(tensor, sides, found[1], mode == "edge"))


def _dropout(at: Step) -> Made:
    training = at.constant(2, "training mode")
    if training is not None and training.any():
        raise at.fault("a dropout in training mode; export the model in inference mode (eval)")
    return at.view()


def _cast(at: Step) -> Made:
    from onnx import TensorProto

    to = at.attribute("to", TensorProto.FLOAT)
    if to not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        raise at.fault("casts to integers, which rounds; floats alone are cast")
    return at.view()


def _maximum(at: Step) -> Made:
    """Max and Min of a tensor and constants."""
    views = [each for each in at.operands if isinstance(each, View)]
    numbers = [at.weights(i, "limit") for i, each in enumerate(at.operands) if each is not None
               and not isinstance(each, View)]  # fmt: skip
    if len(views) != 1 or len(numbers) != 1 or numbers[0].size != 1:
        raise at.fault(
            "of several tensors, or of limits by channel; one tensor and one limit are imported: "
            "pool the largest with MaxPool"
        )
    limit = float(numbers[0].ravel()[0])
    below = at.node.op_type == "Max"
    return _clipped(at, views[0], *((limit, 3.4e38) if below else (-3.4e38, limit)))


_MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather",
           "DepthToSpace", "SpaceToDepth", "Expand")  # fmt: skip

OPERATORS: Mapping[str, Callable[[Step], Made]] = {
    **dict.fromkeys(_MOVING, lambda at: at.relabelled(at.view())),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Sum", "Mean"), _several),
    **dict.fromkeys(("Max", "Min"), _maximum),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax"), _reduce),
    **dict.fromkeys(("LeakyRelu", "PRelu"), _leaky),
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _norm,
    "Relu": lambda at: _like(at.view(), at.builder.relu(at.view().tensor)),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Neg": lambda at: _like(at.view(), at.builder.affine(at.view().tensor, -1.0)),
    "Concat": _concat,
    "Pad": _pad,
    "Dropout": _dropout,
    "Cast": _cast,
    "Identity": lambda at: at.view(),
}
