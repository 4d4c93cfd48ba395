"""Steps that importers read: affines go where they cost nothing, and the function stays the same."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nets import ops
from nets.data import integer_input
from nets.folded import FoldedNet
from nets.importing.builder import Builder
from nets.importing.imported import Pixels
from nets.ops import INPUT
from pqjax.errors import GraphError

PLAIN = Pixels((0.0,) * 3, (1.0,) * 3)
SAME = ((1, 1), (1, 1))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv(x, kernel, padding="VALID", groups=1):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups, precision="highest",
    )  # fmt: skip


X = normal(2, 6, 5, 3, seed=9)
KERNEL, BIAS = normal(3, 3, 3, 4, seed=1), normal(4, seed=2)
SCALE, OFFSET = normal(4, seed=3), normal(4, seed=4)


def made(builder, at):
    return builder.imported(at, pixels=PLAIN, source={})


def kinds(net):
    return [op.kind for op in net.architecture.ops]


def check(net, wanted):
    wanted = np.asarray(wanted).reshape(len(X), -1)
    np.testing.assert_allclose(net.outputs(X), wanted, rtol=1e-4, atol=1e-4)


def closed(builder, at):
    """Logits of an image (n, h, w, c): all its numbers' sums by fixed weights."""
    size = int(np.prod(builder.shapes[at]))
    return builder.dense(
        at, normal(size, 2, seed=7)
    ), lambda y: y.reshape(len(y), -1) @ normal(size, 2, seed=7)


def test_affines_go_into_the_layer_that_they_alone_read():
    builder = Builder("net", (6, 5, 3))
    at = builder.conv(INPUT, KERNEL, BIAS, padding=SAME)
    at = builder.affine(builder.affine(at, 1.0, -OFFSET), SCALE, 0.5)
    at, head = closed(builder, builder.relu(at))

    net = made(builder, builder.affine(at, 0.5, 1.0))

    assert kinds(net) == ["Conv", "Relu", "Flatten", "Dense"]
    y = (conv(X, KERNEL, "SAME") + BIAS - OFFSET) * SCALE + 0.5
    check(net, head(np.maximum(y, 0)) * 0.5 + 1)


@pytest.mark.parametrize("groups", [1, 2])
def test_affines_go_into_the_layers_behind_where_nothing_is_padded(groups):
    builder = Builder("net", (6, 5, 3))
    at = builder.max_pool(builder.conv(INPUT, KERNEL), (2, 2), (1, 1))
    at = builder.affine(at, SCALE, OFFSET)
    kernel = normal(1, 2, 4 // groups, 6, seed=5)
    at, head = closed(builder, builder.conv(at, kernel, groups=groups))

    net = made(builder, at)

    assert kinds(net) == ["Conv", "MaxPool", "Conv", "Flatten", "Dense"]
    y = conv(X, KERNEL)
    y = lax.reduce_window(y, -np.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
    check(net, head(conv(y * SCALE + OFFSET, kernel, groups=groups)))


def test_affines_that_go_nowhere_are_layers():
    builder = Builder("net", (6, 5, 3))
    first = builder.conv(INPUT, KERNEL)
    at = builder.add(builder.affine(first, SCALE, OFFSET), first)  # two read the layer
    at = builder.flatten(builder.relu(at))
    at = builder.relu(builder.affine(at, 2.0, -1.0))
    at, head = closed(builder, at)

    net = made(builder, at)

    assert kinds(net) == ["Conv", "Conv", "Add", "Relu", "Flatten", "Dense", "Relu", "Dense"]
    assert isinstance(found := net.architecture.ops[1], ops.Conv) and found.groups == 4
    y = conv(X, KERNEL)
    y = np.maximum(y * SCALE + OFFSET + y, 0).reshape(len(X), -1)
    check(net, head(np.maximum(y * 2 - 1, 0)))


def test_an_affine_of_the_input_is_what_pixels_mean():
    def source(x):
        return np.asarray(conv(x / 4 - 1, KERNEL, "SAME") + BIAS).sum((1, 2))

    builder = Builder("net", (6, 5, 3))
    at = builder.conv(builder.affine(INPUT, 0.25, -1.0), KERNEL, BIAS, padding=SAME)
    at = builder.affine(builder.global_average(at), 30.0)
    pixels = Pixels((5.0,) * 3, (2.0,) * 3)

    net = builder.imported(at, pixels=pixels, source={}, runtime=source)

    assert kinds(net) == ["Conv", "GlobalAverage", "Conv", "Flatten"]
    picture = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3))
    found = net.outputs(net.pixels.real(picture))
    np.testing.assert_allclose(found, source((picture - 5) / np.float32(2)), rtol=1e-3)
    assert net.runtime is not None
    np.testing.assert_allclose(found, net.runtime(net.pixels.real(picture)), rtol=1e-3)


def test_zeros_around_what_convolutions_read_are_theirs():
    builder = Builder("net", (6, 5, 3))
    at = builder.pad(INPUT, ((0, 1), (2, 0)))
    at, head = closed(builder, builder.conv(at, KERNEL))

    net = made(builder, at)

    assert kinds(net) == ["Conv", "Flatten", "Dense"]
    check(net, head(conv(jnp.pad(X, ((0, 0), (0, 1), (2, 0), (0, 0))), KERNEL)))


@pytest.mark.parametrize("first", ["relu", "minimum"])
def test_caps_are_those_of_relus(first):
    builder = Builder("net", (6, 5, 3))
    at = builder.conv(INPUT, KERNEL)
    at = builder.relu(builder.minimum(at, 0.5)) if first == "minimum" else builder.minimum(
        builder.relu(builder.relu(at, 0.75)), 0.5
    )  # fmt: skip
    at, head = closed(builder, at)

    net = made(builder, at)

    assert kinds(net) == ["Conv", "Relu", "Flatten", "Dense"]
    check(net, head(np.clip(conv(X, KERNEL), 0, 0.5)))


def test_pools_pad_what_is_never_the_largest_and_what_counts_only_if_it_is_to():
    builder = Builder("net", (6, 5, 3))
    at = builder.max_pool(builder.conv(INPUT, KERNEL), (3, 3), (1, 1), SAME)
    at = builder.avg_pool(builder.avg_pool(at, (2, 2), (1, 1)), (2, 2), (1, 1), SAME, counted=False)
    at, head = closed(builder, at)

    net = made(builder, at)

    y = conv(X, KERNEL)
    y = lax.reduce_window(y, -np.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    y = lax.reduce_window(y, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID") / 4
    sums = [
        lax.reduce_window(each, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), ((0, 0), *SAME, (0, 0)))
        for each in (y, np.ones_like(y))
    ]
    check(net, head(np.asarray(sums[0] / sums[1])))


def test_leaky_relus_and_gathers_of_channels():
    builder = Builder("net", (6, 5, 3))
    slope = np.array([0.1, 0.25, -0.5, 2.0])
    at = builder.leaky_relu(builder.conv(INPUT, KERNEL), slope)
    at, head = closed(builder, builder.take(at, (3, 1, 1)))

    y = np.asarray(conv(X, KERNEL))
    check(made(builder, at), head(np.where(y > 0, y, y * slope)[..., [3, 1, 1]]))
    builder.at = "there"
    with pytest.raises(GraphError, match="there: a slope of 1"):
        builder.leaky_relu(builder.conv(INPUT, KERNEL), 1.0)
    with pytest.raises(GraphError, match="there: .*takes channel 3, but there are 3"):
        builder.take(INPUT, (3,))


def test_what_nothing_needs_is_left_out_and_what_nothing_means_is_refused():
    builder = Builder("net", (6, 5, 3))
    first = builder.conv(INPUT, KERNEL)
    builder.relu(first)
    out = builder.global_average(builder.affine(first, 1.0))

    assert kinds(made(builder, out)) == ["Conv", "GlobalAverage", "Flatten"]
    with pytest.raises(GraphError, match="the output is an image of shape"):
        made(builder, first)
    builder.at = "here"
    below = builder.minimum(first, 3.0)
    with pytest.raises(GraphError, match="here: a minimum with 3 of what may be negative"):
        made(builder, builder.global_average(below))
    with pytest.raises(GraphError, match="reads 5 channels, but there are 4"):
        builder.conv(first, normal(1, 1, 5, 2))
    with pytest.raises(GraphError, match="read 5 values, but there are 48"):
        builder.dense(first, normal(5, 2))
    with pytest.raises(GraphError, match="a cap of -1"):
        builder.minimum(first, -1.0)


@pytest.mark.parametrize("bgr", [False, True])
def test_integers_reach_a_dense_layer_behind_a_flatten(bgr):
    builder = Builder("mlp", (6, 5, 3))
    at = builder.dense(INPUT, normal(90, 2), normal(2))
    pixels = Pixels((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), bgr)
    net = builder.imported(at, pixels=pixels, source={})
    picture = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3))

    ((kernel, bias),) = net.of_integers()

    found = (picture / 256).reshape(2, -1) @ kernel + bias  # 0 is nearer to the means than 128
    np.testing.assert_allclose(found, net.outputs(pixels.real(picture)), rtol=1e-4)


@pytest.mark.parametrize("mean,std", [(0.0, 255.0), (128.0, 128.0)])
def test_zeros_around_the_input_are_what_they_are_in_the_source(mean, std):
    builder = Builder("edges", (6, 5, 3))
    at = builder.conv(INPUT, normal(3, 3, 3, 2), normal(2), padding=((1, 1), (2, 0)))
    net = builder.imported(
        builder.dense(at, normal(60, 2)), pixels=Pixels((mean,) * 3, (std,) * 3), source={}
    )
    picture = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)

    found = FoldedNet.of(net.architecture, net.of_integers()).logits(
        integer_input(picture, net.architecture.zero)
    )

    assert net.architecture.zero == mean
    np.testing.assert_allclose(found, net.outputs(net.pixels.real(picture)), rtol=1e-4, atol=1e-4)
