"""What every ONNX operator is in our terms: the table that the importer walks with.

What computes nothing (reshapes, splits, shuffles) moves places; see `nets.importing.layout`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nets.importing.layout import Tensor, natural
from nets.importing.onnx.step import AXES, Step
from nets.importing.refusals import GATE

Made = Tensor | Sequence[Tensor]


def _conv(at: Step) -> Made:
    x, weight = at.tensor(), at.weights(1, "kernel")
    bias = None if at.constant(2, "bias") is None else at.weights(2, "bias").ravel()
    rank = len(x.shape)
    if weight.ndim not in (3, 4) or rank != weight.ndim:
        raise at.fault(
            f"a kernel {weight.shape} on {x.shape}: convolutions over 1 or 2 sides are read, with as "
            "many as their image has"
        )
    if bias is not None and len(bias) != len(weight):
        raise at.fault(f"{len(weight)} biases expected, got {len(bias)}")
    found = at.windows(weight.shape[2:])
    kernel = weight.reshape(*weight.shape[:2], *found.window).transpose(2, 3, 1, 0)
    return at.arrays.conv(
        x, AXES[rank], kernel, bias, made=AXES[rank], stride=found.stride, padding=found.padding,
        groups=int(at.attribute("group", 1)), dilation=found.dilation,
    )  # fmt: skip


def _matrix(at: Step, x: Tensor, weight: np.ndarray, bias: np.ndarray | None) -> Made:
    """A dense layer: our order of what it reads goes into its weights."""
    if x.places.size != x.shape[-1]:
        raise at.fault(
            f"multiplies {x.shape} with a matrix along the last side; one vector is read at a time: "
            "for every pixel of an image use a 1x1 convolution"
        )
    if weight.ndim != 2 or len(weight) != x.places.size:
        raise at.fault(f"weights of ({x.places.size}, ...) expected, got {weight.shape}")
    if bias is not None:
        bias = np.broadcast_to(bias.ravel(), weight.shape[1:]) if bias.size == 1 else bias.ravel()
        if len(bias) != weight.shape[1]:
            raise at.fault(f"{weight.shape[1]} biases expected, got {len(bias)}")
    return natural(at.arrays.dense(x, weight, bias), (*x.shape[:-1], weight.shape[1]))


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
    return _matrix(at, at.tensor(), weight, bias)


def _matmul(at: Step) -> Made:
    if isinstance(at.operands[0], np.ndarray):
        raise at.fault("constants times the input's tensor: transpose both (x W, not W x)")
    return _matrix(at, at.tensor(), at.weights(1, "matrix"), None)


def _affine(
    at: Step, x: Tensor, scale: np.ndarray | float = 1.0, offset: np.ndarray | float = 0.0
) -> Tensor:
    """A constant factor and summand, one for all or one for each channel."""
    for given in (np.shape(scale), np.shape(offset)):
        try:
            fits = np.prod(given) == 1 or np.broadcast_shapes(given, x.shape) == x.shape
        except ValueError:
            fits = False
        if not fits:
            raise at.fault(f"a constant of {given} does not fit a tensor of {x.shape}")
    return at.arrays.affine(x, scale, offset)


def _arithmetic(at: Step) -> Made:
    """Add, Sub, Mul and Div, of two tensors or of one and constants."""
    kind, (a, b) = at.node.op_type, at.operands[:2]
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if kind in ("Mul", "Div"):
            raise at.fault(GATE)
        return at.arrays.sum(a, b if kind == "Add" else at.arrays.affine(b, -1.0))
    if isinstance(b, Tensor):
        number = at.weights(0, "constant")
        if kind == "Div":
            raise at.fault("divides a constant by the input's tensor; only constants can divide")
        if kind == "Mul":
            return _affine(at, b, number)
        return _affine(at, b, -1.0 if kind == "Sub" else 1.0, number)
    x, number = at.tensor(), at.weights(1, "constant")
    if kind in ("Add", "Sub"):
        return _affine(at, x, offset=number if kind == "Add" else -number)
    if kind == "Div" and not number.all():
        raise at.fault("divides by 0")
    return _affine(at, x, number if kind == "Mul" else 1.0 / number)


def _several(at: Step) -> Made:
    """Sum and Mean of any number of tensors."""
    tensors = [at.tensor(i) for i in range(len(at.operands))]
    total = functools.reduce(at.arrays.sum, tensors)
    return total if at.node.op_type == "Sum" else at.arrays.affine(total, 1 / len(tensors))


def _norm(at: Step) -> Made:
    if at.attribute("training_mode", 0) or len([name for name in at.node.output if name]) > 1:
        raise at.fault("a batch norm in training mode; export the model in inference mode (eval)")
    x, eps = at.tensor(), at.attribute("epsilon", 1e-5)
    names = ("scale", "bias", "mean", "variance")
    scale, bias, mean, variance = (at.weights(i + 1, name).ravel() for i, name in enumerate(names))
    if (variance + eps <= 0).any():
        raise at.fault("a variance below 0")
    gain = scale / np.sqrt(variance + eps)
    sides = (1, -1, *[1] * (len(x.shape) - 2))
    return _affine(at, x, gain.reshape(sides), (bias - mean * gain).reshape(sides))


def _clip(at: Step) -> Made:
    return _clipped(at, at.tensor(), at.scalar(1, "min", -3.4e38), at.scalar(2, "max", 3.4e38))


def _maximum(at: Step) -> Made:
    """Max and Min of a tensor and constants."""
    tensors = [each for each in at.operands if isinstance(each, Tensor)]
    numbers = [at.weights(i, "limit") for i, each in enumerate(at.operands) if each is not None
               and not isinstance(each, Tensor)]  # fmt: skip
    if len(tensors) != 1 or len(numbers) != 1 or numbers[0].size != 1:
        raise at.fault(
            "of several tensors, or of limits by channel; one tensor and one limit are imported: "
            "pool the largest with MaxPool"
        )
    limit = float(numbers[0].ravel()[0])
    ends = (limit, np.inf) if at.node.op_type == "Max" else (-np.inf, limit)
    return _clipped(at, tensors[0], *ends)


def _clipped(at: Step, x: Tensor, low: float, high: float) -> Tensor:
    """Between two ends: the largest numbers of 32 bits are none."""
    return at.arrays.clip(x, low if low > -3.4e38 else -np.inf, high if high < 3.4e38 else np.inf)


def _leaky(at: Step) -> Made:
    slope = at.attribute("alpha", 0.01)
    return at.arrays.leaky_relu(
        at.tensor(), at.weights(1, "slope") if at.node.op_type == "PRelu" else slope
    )


def _hard_sigmoid(at: Step) -> Made:
    slope, offset = at.attribute("alpha", 0.2), at.attribute("beta", 0.5)
    return at.arrays.clip(at.arrays.affine(at.tensor(), slope, offset), 0.0, 1.0)


def _pool(at: Step) -> Made:
    x, builder = at.tensor(), at.arrays.builder
    if len([name for name in at.node.output if name]) > 1:
        raise at.fault("the places of the largest values are wanted, too; only the values are made")
    found, tensor = at.windows(at.attribute("kernel_shape")), at.image(x)
    if found.dilation != (1, 1):
        raise at.fault("windows with gaps (dilations): pools of neighbouring pixels are imported")
    geometry = found.window, found.stride, found.around
    if at.node.op_type == "MaxPool":
        return at.laid(builder.max_pool(tensor, *geometry), len(x.shape))
    counted = bool(at.attribute("count_include_pad", 0)) or not any(map(any, found.around))
    if counted and any(found.over):
        raise at.fault(
            "its last windows reach over the padding that counts: leave out ceil_mode or "
            "count_include_pad"
        )
    return at.laid(builder.avg_pool(tensor, *geometry, counted), len(x.shape))


def _reduce(at: Step) -> Made:
    """Means, sums and largest values over rows and columns, wherever their axes are."""
    x, kind = at.tensor(), at.node.op_type
    every = kind.startswith("Global")
    axes = tuple(range(2, len(x.shape))) if every else at.axes(1, len(x.shape))
    if not axes or 0 in axes:
        raise at.fault(
            f"over the axes {axes} of {x.shape}: rows and columns expected; nothing is reduced over "
            "channels"
        )
    made = at.arrays.over(x, axes, "Max" in kind)
    if kind == "ReduceSum":
        made = at.arrays.affine(made, np.prod([x.shape[axis] for axis in axes]))
    if every or at.attribute("keepdims", 1):
        made = Tensor(made.name, np.expand_dims(made.places, axes))
    return made


def _concat(at: Step) -> Made:
    tensors = [at.tensor(i) for i in range(len(at.operands))]
    return at.arrays.concat(tensors, int(at.attribute("axis", 1)))


def _pad(at: Step) -> Made:
    x, mode = at.tensor(), at.attribute("mode", "constant")
    given = at.constant(1, "margins")
    margins = at.attribute("pads", at.attribute("paddings")) if given is None else given.tolist()
    value, rank = at.scalar(2, "value", 0.0), len(x.shape)
    axes = at.axes(3, rank) if len(at.operands) > 3 else tuple(range(rank))
    if margins is None or axes is None or len(margins) != 2 * len(axes):
        raise at.fault(f"margins before and after {rank} sides expected, got {margins}")
    found = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        found[axis] = int(margins[i]), int(margins[i + len(axes)])
    if min(map(min, found)) < 0:
        raise at.fault("margins below 0 cut rows or columns off; crop before the network")
    if mode not in ("constant", "edge") or found[0] != (0, 0):
        raise at.fault(f"padding by {mode!r}: zeros, or what stands at the edge, are imported")
    if mode == "constant" and value:
        raise at.fault(
            f"padding with {value:g}: zeros are padded; what pools the largest is to pad by itself"
        )
    rows = found[2] if rank == 4 else (0, 0)
    name = at.arrays.builder.pad(at.image(x), (rows, found[-1]), found[1], mode == "edge")
    return at.laid(name, rank)


def _dropout(at: Step) -> Made:
    training = at.constant(2, "training mode")
    if training is not None and training.any():
        raise at.fault("a dropout in training mode; export the model in inference mode (eval)")
    return at.tensor()


def _cast(at: Step) -> Made:
    from onnx import TensorProto

    to = at.attribute("to", TensorProto.FLOAT)
    if to not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        raise at.fault("casts to integers, which rounds; floats alone are cast")
    return at.tensor()


_MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather",
           "DepthToSpace", "SpaceToDepth", "Expand")  # fmt: skip

OPERATORS: Mapping[str, Callable[[Step], Made]] = {
    **dict.fromkeys(_MOVING, Step.relabelled),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Sum", "Mean"), _several),
    **dict.fromkeys(("Max", "Min"), _maximum),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(
        ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax"), _reduce
    ),
    **dict.fromkeys(("LeakyRelu", "PRelu"), _leaky),
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _norm,
    "Relu": lambda at: at.arrays.relu(at.tensor()),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Neg": lambda at: at.arrays.affine(at.tensor(), -1.0),
    "Concat": _concat,
    "Pad": _pad,
    "Dropout": _dropout,
    "Cast": _cast,
    "Identity": Step.tensor,
}
