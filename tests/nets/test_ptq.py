"""Quantization after training: channel factors, and layers fitted with their roundings."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from nets import ptq
from nets.architecture import mobilenet_v2
from nets.data import integer_input
from nets.equalization import channel_factors, observed
from nets.folded import FoldedNet, streams
from nets.ops import INPUT, Architecture, Conv, Dense, Flatten, GlobalAverage, Relu
from nets.ptq import Recipe, quantized
from nets.quantized import QuantNet, Widths
from nets.quantizer import best_weight_scale
from nets.rounding import Moments, fitted, moments
from nets.steps import blocks

TINY = mobilenet_v2("tiny", side=32, classes=5, stages=((1, 4, 1, 1), (2, 6, 2, 2)), ends=(4, 12))
DENSE = Conv("dense", (INPUT,), 4, (1, 1))
WINDOW = Conv("window", (INPUT,), 4, (3, 3), (2, 2), ((1, 1), (1, 1)))
RECTANGLE = Conv("rectangle", (INPUT,), 4, (2, 3), (1, 2), ((0, 1), (1, 0)))
DEPTHWISE = Conv("depthwise", (INPUT,), 4, (3, 3), (2, 2), ((0, 1), (0, 1)), groups=4)
GROUPED = Conv("grouped", (INPUT,), 6, (3, 3), (1, 1), ((1, 1), (1, 1)), groups=2, dilation=(2, 1))
FC = Dense("fc", (INPUT,), 4)
LAYERS = [DENSE, WINDOW, RECTANGLE, DEPTHWISE, GROUPED, FC]
INPUTS = {DENSE: 6, WINDOW: 2, RECTANGLE: 2, DEPTHWISE: 4, GROUPED: 4, FC: 6}
RNG_SEED = 5


def net_of(architecture, spread):
    """Random kernels whose depthwise channels differ by up to `spread` powers of two either way."""
    rng = np.random.default_rng(RNG_SEED)
    folded = []
    for layer in architecture.layers:
        shape = architecture.kernel(layer)
        kernel = rng.normal(size=shape) * np.sqrt(3 / np.prod(shape[:-1]))
        if layer.groups > 1:
            kernel = kernel * 2.0 ** rng.uniform(-spread, spread, layer.channels)
        folded.append((kernel.astype(np.float32), rng.normal(size=layer.channels) / 4))
    return FoldedNet.of(architecture, [(k, b.astype(np.float32)) for k, b in folded])


@pytest.fixture(scope="module")
def x():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
    return integer_input(pixels)


def shape_of(layer):
    """Of a picture that it reads."""
    return (6, 6, INPUTS[layer]) if isinstance(layer, Conv) else (INPUTS[layer],)


def inputs(layer, rng):
    """Pictures whose neighbouring pixels and channels go together."""
    side, channels = 6 if isinstance(layer, Conv) else 1, INPUTS[layer]
    x = rng.normal(size=(8, side, side, channels))
    x = x.cumsum(1).cumsum(2) @ rng.normal(size=(channels, channels))
    return x.astype(np.float32).reshape(8, *shape_of(layer))


def windows_slowly(layer, x):
    """(groups, pixels, inputs) by loops."""
    if isinstance(layer, Dense):
        return x[None]
    x = np.pad(x, ((0, 0), *layer.padding, (0, 0)))
    rows, cols, _ = layer.shape(shape_of(layer))
    (a, b), (s, t), (d, e) = layer.window, layer.stride, layer.dilation
    found = [
        x[n, i * s : i * s + (a - 1) * d + 1 : d, j * t : j * t + (b - 1) * e + 1 : e]
        for n, i, j in itertools.product(range(len(x)), range(rows), range(cols))
    ]
    split = np.split(np.stack(found), layer.groups, axis=-1)
    return np.stack([each.reshape(len(found), -1) for each in split])


def outputs(layer, y):
    """(groups, pixels, outputs)."""
    return np.stack(np.split(y.reshape(-1, layer.channels), layer.groups, axis=-1))


def aims_of(layer, y):
    """As pictures."""
    sides = layer.shape(shape_of(layer))[:-1] or (1, 1)
    return jnp.asarray(y.reshape(8, *sides, layer.channels))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_moments_are_those_of_all_windows(layer):
    rng = np.random.default_rng(RNG_SEED)
    x = inputs(layer, rng)
    seen = windows_slowly(layer, x)
    aim = rng.normal(size=(seen.shape[1], layer.channels)).astype(np.float32)
    wanted, aim = outputs(layer, aim), aims_of(layer, aim)

    pictures = jnp.asarray(x)
    got = moments(layer, [(pictures[:5], aim[:5]), (pictures[5:], aim[5:])], seed=0)

    for g in range(len(seen)):
        both = np.cov(np.concatenate([seen[g], wanted[g]], 1).T, bias=True)
        d = seen.shape[2]
        np.testing.assert_allclose(got.gram[g], both[:d, :d], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(got.cross[g], both[:d, d:], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got.inputs, seen.mean(1), atol=1e-5)
    np.testing.assert_allclose(got.aims, wanted.mean(1), atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_fitted_weights_beat_the_nearest_integers(layer):
    errors = {"nearest": 0.0, "fitted": 0.0}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = inputs(layer, rng)
        kernel = rng.normal(size=layer.kernel(shape_of(layer))).astype(np.float32)
        seen = windows_slowly(layer, x)

        def run(kernel, seen=seen):
            flat = np.split(kernel.reshape(-1, layer.channels), layer.groups, axis=-1)
            return np.concatenate([s @ k for s, k in zip(seen, flat, strict=True)], -1)

        aim = run(kernel).astype(np.float32)
        found = moments(layer, [(jnp.asarray(x), aims_of(layer, aim))], seed=0)
        scale = best_weight_scale(kernel, 3)

        integers, bias, chosen = fitted(kernel, layer, found, 3, [scale], damp=0.01)

        assert chosen == scale and integers.shape == kernel.shape
        assert np.array_equal(integers, np.round(integers))
        assert integers.min() >= -4 and integers.max() <= 3
        ours = run(integers * 2.0**-scale)
        np.testing.assert_allclose((ours + bias).mean(0), aim.mean(0), atol=1e-3)
        nearest = np.clip(np.floor(kernel * 2.0**scale + 0.5), -4, 3) * 2.0**-scale
        errors["nearest"] += float((run(nearest) - aim).var(0).sum())
        errors["fitted"] += float((ours - aim).var(0).sum())
    assert errors["fitted"] < 0.7 * errors["nearest"], errors


def test_of_several_scales_the_best_is_taken():
    kernel = np.random.default_rng(1).normal(size=(1, 1, 6, 4)).astype(np.float32)
    eye = np.eye(6)[None]
    found = Moments(eye, kernel[0].astype(float), np.zeros((1, 6)), np.zeros((1, 4)))
    best = best_weight_scale(kernel, 4)

    *_, scale = fitted(kernel, DENSE, found, 4, [best - 3, best, best + 3], damp=0.01)

    assert scale == best


def test_channel_factors_keep_the_function_and_the_caps(x):
    net = net_of(TINY, 4)
    student = QuantNet(TINY, Widths.parse("W4A6", TINY))
    seen = observed(net, net.values(x))

    chosen = channel_factors(net, student, seen)

    scaled = net
    fits = {block.layer.name: block.fit for block in blocks(TINY) if block.layer and block.fit}
    for stream, factors in zip(streams(TINY), chosen, strict=True):
        assert (factors > 0).all()
        capped = [fits[name].name for name in stream.writers if fits[name].capped]
        if capped:
            tops = np.max([seen[name].top for name in capped], 0)
            assert (factors >= 1 - 1e-6).all() and (factors * tops <= 6.0001).all()
        scaled = scaled.scaled(stream, factors)
    np.testing.assert_allclose(scaled.logits(x), net.logits(x), rtol=1e-3, atol=1e-3)
    uneven, even = (
        [np.abs(k).max((0, 1, 2)) for (k, _), layer in zip(n.weights, TINY.layers, strict=True)
         if layer.groups > 1]
        for n in (net, scaled)
    )  # fmt: skip
    spread = [np.log2(top.max() / top.min()) for top in uneven]
    assert sum(np.log2(top.max() / top.min()) for top in even) < 0.7 * sum(spread)


def test_noise_in_a_channel_is_felt_where_it_is_read(x):
    net = net_of(TINY, 0)
    seen = observed(net, net.values(x))
    kernels = {n.name: k.astype(float) for n, (k, _) in zip(TINY.layers, net.weights, strict=True)}

    np.testing.assert_allclose(seen["fc"].felt, 1)
    np.testing.assert_allclose(seen["last.res"].felt, (kernels["fc"] ** 2).sum(1), rtol=1e-6)
    read = (kernels["s2b2.expand"][0, 0] ** 2).sum(1)
    wanted = read + seen["s2b2.project.act"].felt  # added to
    np.testing.assert_allclose(seen["s2b1.project.res"].felt, wanted, rtol=1e-6)
    wanted = (kernels["s2b1.depthwise"] ** 2).sum((0, 1, 2))
    np.testing.assert_allclose(seen["s2b1.expand.act"].felt, wanted, rtol=1e-6)


def test_fitting_brings_the_network_nearer_than_the_nearest_integers_would(x):
    net = net_of(TINY, 3)
    wanted = net.logits(x)
    widths = Widths.parse("W3A8", TINY)

    def error(student):
        off = np.asarray(student(x)) - wanted
        return float(np.square(off - off.mean(0)).mean())

    student = quantized(net, widths, x, Recipe(images=16, pool=16))
    held = quantized(net, widths, x, dataclasses.replace(Recipe(images=16, pool=16), damp=1e6))

    assert error(student) < 0.8 * error(held)


NARROW = Architecture(
    "narrow", "cifar10", (32, 32, 3), 4,
    (
        Conv("conv", (INPUT,), 6, (3, 3), (4, 4)), Relu("relu", ("conv",)),
        GlobalAverage("mean", ("relu",)), Flatten("flat", ("mean",)), Dense("hidden", ("flat",), 12),
        Relu("act", ("hidden",)), Dense("fc", ("act",), 4),
    ),
    signed=False,
)  # fmt: skip


def test_the_range_of_a_narrow_layer_is_chosen_on_all_its_values():
    """Every seventh of 48 values is none of channel 5's, which has the largest."""
    rng = np.random.default_rng(RNG_SEED)
    few = integer_input(rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8))
    net = net_of(NARROW, 0)
    kernel, bias = net.by_name["hidden"]
    bias[5] = 8.0
    net = FoldedNet.of(NARROW, [net.by_name["conv"], (kernel, bias), net.by_name["fc"]])
    student = QuantNet(NARROW, Widths.parse("W8A8", NARROW))

    ptq.fit(student, net, few, Recipe(images=4, pool=4))

    (fit,) = (b.fit for b in blocks(NARROW) if b.fit is not None and b.fit.layer == "hidden")
    top = np.asarray(net.values(few)[fit.name]).max()
    unit = 2.0 ** -float(student.layer("hidden").out_scale[...])
    assert 8 < top + unit <= unit * 2 ** student.magnitude(fit)


def test_channels_that_lie_apart_are_brought_together(x, monkeypatch):
    net, rng = net_of(TINY, 0), np.random.default_rng(2)
    fits = {block.layer.name: block.fit for block in blocks(TINY) if block.layer and block.fit}
    for stream in streams(TINY):
        if not any(fits[name].capped for name in stream.writers):
            (channels,) = {x.channels for x in TINY.layers if x.name in stream.writers}
            net = net.scaled(stream, 2.0 ** rng.uniform(-4, 4, channels).astype(np.float32))
    wanted = net.logits(x)
    recipe = Recipe(images=16, pool=16)

    def error():
        off = np.asarray(quantized(net, Widths.parse("W6A6", TINY), x, recipe)(x)) - wanted
        return float(np.square(off - off.mean(0)).mean())

    ours = error()
    monkeypatch.setattr(
        ptq, "channel_factors", lambda *_: [np.ones(1, np.float32)] * len(streams(TINY))
    )

    assert ours < 0.5 * error()
