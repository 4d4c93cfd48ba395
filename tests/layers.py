"""Linear layers of every shape, and what they come to by plain loops."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from pqjax.graph.ir import TensorType
from pqjax.linear import Job, LinearMap

ALIKE = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))


def slow_conv(x, w, m):
    """Plain loops over outputs, of Python's integers, image by image."""
    if m.images > 1:
        one = dataclasses.replace(m, images=1)
        return np.stack([slow_conv(image, w, one) for image in x])
    padded = np.pad(x, (*m.padding, (0, 0)))
    high, wide = ((m.kernel[i] - 1) * m.dilation[i] + 1 for i in (0, 1))
    y = np.zeros(m.out_shape, object)
    for o, p, k in np.ndindex(y.shape):
        top, left, g = o * m.stride[0], p * m.stride[1], k // m.fan_out
        seen = padded[top : top + high : m.dilation[0], left : left + wide : m.dilation[1]]
        part = seen[:, :, g * m.fan_in : (g + 1) * m.fan_in].astype(object)
        y[o, p, k] = (part * w[:, :, :, k].astype(object)).sum()
    return y


@st.composite
def maps(draw, most_groups=4, most_images=3):
    """Kernels, strides, dilation and margins that differ by side; outputs that read something."""
    pair = lambda most: draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    kernel, stride, dilation = pair(3), pair(3), pair(2)
    padding = draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2))
    groups = draw(st.integers(1, most_groups))
    inputs, outputs = (groups * n for n in pair(3))
    sides = pair(6)
    least = [(kernel[i] - 1) * dilation[i] + 1 - sum(padding[i]) for i in (0, 1)]
    image = max(sides[0], least[0]), max(sides[1], least[1])
    images = draw(st.integers(1, most_images))
    made = LinearMap(image, kernel, stride, padding, dilation, groups, inputs, outputs, images)
    if not made.taps:
        made = LinearMap((5, 5), kernel, stride, NONE, dilation, groups, inputs, outputs, images)
    return made


def random_layer(rng, m, full=False, kind="signed", widths=None):
    """A job with room for its sum, and its operands in the clear: job, weights, image."""
    w_bits, x_bits = widths or (int(rng.integers(2, 6)), int(rng.integers(2, 7)))
    bits = w_bits + x_bits + m.terms.bit_length()
    low, high = {
        "signed": (-(2 ** (x_bits - 1)), 2 ** (x_bits - 1)),
        "unsigned": (0, 2**x_bits),
        "nonnegative": (0, 2 ** (x_bits - 1)),
    }[kind]
    half = 2 ** (w_bits - 1)
    w, x = rng.integers(-half, half, m.weight_shape), rng.integers(low, high, m.in_shape)
    w.reshape(-1, m.outputs)[:, 0], x[0, 0] = -half, high - 1
    return Job(m, w_bits, operand(m, bits if full else x_bits, kind), bits), w, x


def operand(m, bits, kind):
    """Its format."""
    return TensorType(m.in_shape, bits, 0, kind != "unsigned", kind == "nonnegative")
