"""A network of four pixels with one layer of every kind, and thousands of its runs take minutes."""

import numpy as np

from pqjax.graph import (
    Add,
    Conv,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Relu,
    Requantize,
    TensorType,
)

SHAPE = (2, 2, 1)
ANSWER = (5, -3)  # of any weights and any input: the last layer multiplies by 0


def _image(bits, scale, **fields):
    return TensorType((2, 2, 2), bits, scale, **fields)


def _conv(name, source):
    return Conv(name, (source,), _image(8, 5 if name == "conv1" else 4), (1, 1), (1, 1),
                ((0, 0), (0, 0)), 3, 2)  # fmt: skip


def tiny_graph():
    """Convolution, ReLU, requantization, a residual sum, a maximum, and a dense layer."""
    pooled = TensorType((1, 1, 2), 5, 1)
    flat = TensorType((2,), 5, 1)
    return Graph(
        (
            Input("image", (), TensorType(SHAPE, 4, 3)),
            _conv("conv1", "image"),
            Relu("relu1", ("conv1",), _image(8, 5, nonnegative=True)),
            Requantize("low", ("relu1",), _image(4, 2, nonnegative=True)),
            _conv("conv2", "low"),
            Requantize("wide", ("low",), _image(8, 4, nonnegative=True), rule="wrap"),
            Add("sum", ("conv2", "wide"), _image(8, 4)),
            Requantize("cut", ("sum",), _image(5, 1)),
            MaxPool("pool", ("cut",), pooled, (2, 2), (2, 2)),
            Flatten("flat", ("pool",), flat),
            Dense("last", ("flat",), TensorType((2,), 8, 3), 3, 2),
        )
    )


def tiny_weights(weight=3, bias=-4, last=0):
    """Weights that are all one number, but for signs; the last layer's another."""
    signs = np.array([1, -1])
    return {
        "conv1/weight": weight * signs.reshape(1, 1, 1, 2),
        "conv1/bias": bias * signs,
        "conv2/weight": np.array([[weight, 1], [-1, -weight]]).reshape(1, 1, 2, 2),
        "conv2/bias": bias * signs[::-1],
        "last/weight": np.full((2, 2), last),
        "last/bias": np.array(ANSWER),
    }


def tiny_input(value=5):
    """One pixel as large as said, and its neighbours smaller by 1, 2 and 3."""
    return (value - np.arange(4)).reshape(SHAPE)
