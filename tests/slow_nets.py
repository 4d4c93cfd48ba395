"""The plain twin of every float network: numpy, one operation after the other, norms folded."""

import itertools

import numpy as np

from nets import ops


def convolution(op, x, kernel):
    """(b, h, w, k) by loops over pixels, taps and groups."""
    x = np.pad(x, ((0, 0), *op.padding, (0, 0)))
    _, high, wide, channels = (len(x), *x.shape[1:])
    reach = [(n - 1) * d + 1 for n, d in zip(op.window, op.dilation, strict=True)]
    rows, cols = ((s - r) // t + 1 for s, r, t in zip((high, wide), reach, op.stride, strict=True))
    found = np.zeros((len(x), rows, cols, op.channels))
    inputs, outputs = channels // op.groups, op.channels // op.groups
    for i, j, g in itertools.product(range(rows), range(cols), range(op.groups)):
        own, made = slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)
        for a, b in itertools.product(range(op.window[0]), range(op.window[1])):
            pixel = x[
                :, i * op.stride[0] + a * op.dilation[0], j * op.stride[1] + b * op.dilation[1]
            ]
            found[:, i, j, made] += pixel[:, own] @ kernel[a, b, :, made]
    return found


def pooled(op, x, reduce):
    """Every window's `reduce`."""
    (a, b), (s, t) = op.window, op.stride
    if isinstance(op, ops.AvgPool):  # what is no number is not counted
        around = ((0, 0), *op.padding, (0, 0))
        x, reduce = np.pad(x, around, constant_values=np.nan), np.nanmean
    rows, cols = (x.shape[1] - a) // s + 1, (x.shape[2] - b) // t + 1
    found = np.empty((len(x), rows, cols, x.shape[3]))
    for i, j in itertools.product(range(rows), range(cols)):
        found[:, i, j] = reduce(x[:, i * s : i * s + a, j * t : j * t + b], axis=(1, 2))
    return found


def every_tensor(architecture, folded, x):
    """Every operation's tensor for integer inputs, float64."""
    values = {ops.INPUT: np.asarray(x, np.float64) / 256}
    weights = iter(folded)
    for op in architecture.ops:
        x, *more = (values[source] for source in op.sources)
        match op:
            case ops.Conv():
                kernel, bias = next(weights)
                y = convolution(op, x, kernel.astype(np.float64)) + bias
            case ops.Dense():
                kernel, bias = next(weights)
                y = x @ kernel.astype(np.float64) + bias
            case ops.Norm():
                y = x
            case ops.Relu():
                y = np.clip(x, 0, op.cap)
            case ops.Add():
                y = x + more[0]
            case ops.MaxPool():
                y = pooled(op, x, np.max)
            case ops.AvgPool():
                y = pooled(op, x, np.mean)
            case ops.GlobalAverage():
                y = x.mean((1, 2), keepdims=True)
            case ops.Flatten():
                y = x.reshape(len(x), -1)
            case ops.Subsample():
                y = x[:, :: op.stride[0], :: op.stride[1]]
            case ops.Pad():
                y = np.pad(x, ((0, 0), *op.margins), "edge" if op.edge else "constant")
            case ops.Take():
                y = x[..., list(op.channels)]
            case ops.Concat():
                y = np.concatenate([x, *more], -1)
            case _:
                raise AssertionError(op)
        values[op.name] = y
    return values


def logits(architecture, folded, x):
    """(n, classes)."""
    return every_tensor(architecture, folded, x)[architecture.ops[-1].name]
