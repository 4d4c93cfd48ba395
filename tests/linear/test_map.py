"""What a kernel reads, counted and laid out as its protocols take it."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from layers import ALIKE, NONE, maps

from pqjax.errors import InputError
from pqjax.linear import LinearMap


def one_channel(image, kernel, stride=(1, 1), padding=NONE, dilation=(1, 1)):
    return LinearMap(image, kernel, stride, padding, dilation, 1, 1, 1)


@pytest.mark.parametrize("kernel,stride,padding", [
    ((3, 3), (1, 1), ALIKE), ((5, 2), (2, 3), ((0, 4), (7, 0))), ((1, 1), (2, 2), NONE),
    ((9, 9), (1, 1), ((8, 8), (8, 8))), ((2, 2), (5, 5), ((3, 3), (3, 3))),
])  # fmt: skip
@pytest.mark.parametrize("dilation", [(1, 1), (1, 2), (2, 1)])
def test_a_kernels_price_counts_the_taps_that_its_protocol_makes(kernel, stride, padding, dilation):
    m = one_channel((9, 8), kernel, stride, padding, dilation)

    assert m.reading == len(m.taps)
    assert m.uses == sum(math.prod(tap.sides) for tap in m.taps)


@settings(max_examples=100, deadline=None)
@given(maps(most_images=1))
def test_taps_read_what_outputs_sum_and_those_of_a_slot_never_meet_in_a_pixel(m):
    pixels = np.arange(m.image[0] * m.image[1]).reshape(m.image) + 1
    padded = np.pad(pixels, m.padding)
    slots = {}

    for tap in m.taps:
        seen = np.zeros(m.out_image, int)
        seen[tap.outputs] = pixels[tap.pixels]
        top, left = (tap.at[i] * m.dilation[i] for i in (0, 1))
        slow = padded[top :: m.stride[0], left :: m.stride[1]]
        np.testing.assert_array_equal(seen, slow[: m.out_image[0], : m.out_image[1]])
        assert math.prod(tap.sides) == np.count_nonzero(seen) and 0 <= tap.slot < m.slots
        slots.setdefault(tap.slot, []).append(set(pixels[tap.pixels].flat))

    for taps in slots.values():
        assert not any(a & b for a, b in itertools.combinations(taps, 2))


def test_what_lies_in_the_padding_is_not_counted():
    m = one_channel((7, 7), (3, 3), padding=ALIKE)

    assert m.uses == (3 * 7 - 2) ** 2
    assert one_channel((224, 224), (3, 3), (2, 2), ((0, 1), (0, 1))).uses == (3 * 112 - 1) ** 2
    assert one_channel((9, 9), (1, 1), (2, 2)).uses == 25
    assert m.slots == 9 and dataclasses.replace(m, stride=(2, 2)).slots == 4
    assert dataclasses.replace(m, stride=(2, 2), dilation=(2, 1)).slots == 6


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("padding", [NONE, ALIKE, ((0, 1), (2, 0))])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_columns_are_what_a_kernel_sees(stride, padding, dilation):
    m = LinearMap((6, 7), (3, 2), stride, padding, dilation, 1, 2, 4)
    x = np.random.default_rng(0).integers(0, 99, m.in_shape).astype(np.uint16)

    columns = m.im2col(x)

    padded = np.pad(x, (*padding, (0, 0)))
    for o, p in np.ndindex(m.out_image):
        rows, cols = (
            slice(o * stride[0], o * stride[0] + 2 * dilation[0] + 1, dilation[0]),
            slice(p * stride[1], p * stride[1] + dilation[1] + 1, dilation[1]),
        )
        np.testing.assert_array_equal(columns[o, p], padded[rows, cols].reshape(-1))
    assert columns.shape == m.columns.in_shape and m.columns.out_shape == m.out_shape
    np.testing.assert_array_equal(m.columns.im2col(columns), columns)


@pytest.mark.parametrize("inputs,outputs,dilation", [(4, 6, 1), (6, 4, 1), (4, 4, 3)])
def test_maps_that_do_not_hold_together_are_refused(inputs, outputs, dilation):
    with pytest.raises(InputError, match=r"fit padded images, got LinearMap\(image=\(5, 5\)"):
        LinearMap((5, 5), (3, 3), (1, 1), NONE, (dilation, 1), 4, inputs, outputs)
