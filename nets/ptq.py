"""Quantization after training: channel factors, ranges, and layers fitted by least squares.

Nothing here needs labels: a float network, its quantized form and a few hundred pictures. Formats
have one power-of-two scale a tensor; what channels and tensors need beyond that is folded into the
weights around them first (`nets.equalization`), exactly. Then every layer, in order, is fitted to what
the float network says with what its already quantized predecessors give it (`nets.rounding`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from nets.architecture import INPUT, Average, Layer
from nets.data import INPUT_SCALE_BITS
from nets.equalization import channel_factors, observed
from nets.folded import FoldedNet, layer_value, streams
from nets.quantized import QuantLayer, QuantNet, Scaled, Widths
from nets.quantizer import best_activation_scale, best_weight_scale, power_of_two
from nets.rounding import fitted, moments
from pqjax.errors import GraphError

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is quantized.

    Attributes:
      images: pictures that channel factors and ranges are chosen on.
      pool: pictures that layers are fitted to, those among them.
      damp: how much every weight is held to its float value, see `rounding.fitted`.
      seed: of the choice of pixels.
    """

    images: int = 32
    pool: int = 256
    damp: float = 0.1
    seed: int = 0


def quantized(
    net: FoldedNet, widths: Widths, x: np.ndarray, recipe: Recipe, say: Say = lambda text: None
) -> QuantNet:
    """A quantized network.

    Args:
      net: in floating point.
      widths: bits of every tensor.
      x: integer pictures (n, side, side, 3) to calibrate on; none is asked for its label.
      recipe: how.
      say: told of every layer.
    """
    student = QuantNet(net.architecture, widths)
    net = ranged(net, student, x[: recipe.images])
    fit(student, net, x[: recipe.pool], recipe, say)
    return student


def ranged(net: FoldedNet, student: QuantNet, x: np.ndarray) -> FoldedNet:
    """Scales every stream: its channels for the least noise, and all of them to what its format holds.

    The best range is the one of least squared error among 40, on the values of the float network; for
    residuals, which convolutions read cut short, that of the error of what is read.
    """
    architecture, values = net.architecture, net.values(x)
    layers = {layer.name: layer for layer in architecture.layers}
    chosen = channel_factors(net, student, observed(net, values))
    for stream, factors in zip(streams(architecture), chosen, strict=True):
        names = sorted(stream.writers)
        bits = min(student.magnitude(layers[name]) for name in names)
        if stream.writers & architecture.residuals - architecture.averaged:
            bits = max(bits - student.cut, 2)
        sample = [np.ravel(np.asarray(values[name]) * factors)[::_STEP] for name in names]
        signed = any(not layers[name].relu for name in names)
        best = _best_range(np.concatenate(sample), bits, signed)
        net = net.scaled(stream, factors * np.float32(2.0 ** np.round(np.log2(best)) / best))
    return net


_STEP = 7  # of the values that ranges are searched on; divides no side or channel count


def _best_range(real: np.ndarray, bits: int, negative: bool) -> float:
    """The largest value of a format, as a real number, for the least squared error."""
    top = float(np.abs(real).max())
    high = 2**bits - 1
    low = -high - 1 if negative else 0
    errors = {}
    for part in np.geomspace(0.05, 1.0, 40):
        unit = part * top / (high + 1)
        fitted = np.clip(np.floor(real / unit + 0.5), low, high) * unit
        errors[unit * (high + 1)] = float(np.square(fitted - real, dtype=np.float64).mean())
    return min(errors, key=errors.__getitem__)


def fit(
    student: QuantNet, net: FoldedNet, x: np.ndarray, recipe: Recipe = Recipe(),
    say: Say = lambda text: None,
) -> None:  # fmt: skip
    """Chooses weights, biases and scales of `student`, layer by layer.

    Each layer sees its already quantized predecessors and aims at what it adds to in the float network:
    for a sum that includes what the other summand is off by.

    Raises:
      GraphError: a residual has a finer scale than the accumulator it is added to.
    """
    ours, theirs = _inputs(x)
    nodes = net.architecture.nodes
    last_use = {n.source: i for i, n in enumerate(nodes)}
    last_use |= {n.plus: i for i, n in enumerate(nodes) if isinstance(n, Layer) and n.plus}
    layers = zip(student.layers, net.weights, net.caps, strict=True)
    for at, node in enumerate(nodes):
        if isinstance(node, Layer):
            layer, weights, cap = next(layers)
            _fit_weights(student, layer, weights, ours, theirs, recipe)
            run = functools.partial(layer_value, node, *weights, cap)
            plus = theirs[node.plus] if node.plus else None
            theirs[node.name] = _of_parts(run, theirs[node.source], plus)
            if node.window:
                few = theirs[node.name][: recipe.images]
                ours[node.name] = _fit_output(student, layer, few, cap, ours)
            say(f"{node.name}: fitted")
        else:
            ours[node.name] = student.between(node, ours)
            theirs[node.name] = _between(node, theirs)
        for name in [name for name, end in last_use.items() if end == at]:
            ours.pop(name, None)
            theirs.pop(name, None)


_PART = 16  # pictures at a time


def _parts(*arrays: jax.Array | None) -> Iterator[tuple[jax.Array | None, ...]]:
    """Some pictures at a time of each."""
    assert arrays[0] is not None
    for i in range(0, len(arrays[0]), _PART):
        yield tuple(None if each is None else each[i : i + _PART] for each in arrays)


def _of_parts(run: Callable[..., jax.Array], *arrays: jax.Array | None) -> jax.Array:
    """A function of pictures, made of some at a time."""
    compiled = jax.jit(run)
    return jnp.concatenate([compiled(*part) for part in _parts(*arrays)])


def _fit_weights(
    student: QuantNet, layer: QuantLayer, weights: tuple[np.ndarray, np.ndarray],
    ours: dict[str, Scaled], theirs: dict[str, jax.Array], recipe: Recipe,
) -> None:  # fmt: skip
    """Weights that are integers, and biases, for the least squared error of the layer's sums."""
    node, (kernel, bias) = layer.layer, weights
    linear = dataclasses.replace(node, relu=False, pool=1)
    read = student.operand(node.source, ours)
    plus = ours[node.plus] if node.plus else None

    @jax.jit
    def pair(operand, source, plus_integers, other):
        aim = layer_value(linear, kernel, bias, None, source, other)
        if plus is not None:
            aim = aim - plus_integers.astype(jnp.float32) * power_of_two(-plus.scale)
        inputs = operand.astype(jnp.float32) * power_of_two(-read.scale)
        return inputs, aim if node.window else aim[:, None, None]

    pairs = _parts(
        read.integers, theirs[node.source],
        None if plus is None else plus.integers, theirs[node.plus] if node.plus else None,
    )  # fmt: skip
    found = moments(node, (pair(*part) for part in pairs), recipe.seed)
    near = best_weight_scale(kernel, layer.bits)
    scales = [near - 1, near, near + 1]
    integers, bias, scale = fitted(kernel, node, found, layer.bits, scales, recipe.damp)
    layer.weight_scale[...] = jnp.float32(scale)
    layer.kernel[...] = jnp.asarray(integers * 2.0**-scale, jnp.float32)
    layer.bias[...] = jnp.asarray(bias, jnp.float32)


def _fit_output(
    student: QuantNet, layer: QuantLayer, wanted: jax.Array, cap: np.ndarray | None,
    ours: dict[str, Scaled],
) -> Scaled:  # fmt: skip
    """The format of a layer's output, from values that the float network has there; the output."""
    node = layer.layer
    source, plus = ours[node.source], ours[node.plus] if node.plus else None
    acc = int(student.operand(node.source, ours).scale + layer.weight_scale[...])
    if plus is not None and acc < plus.scale:
        raise GraphError(
            f"{node.name}: the residual {node.plus} has scale {int(plus.scale)}, finer than the "
            f"accumulator's {acc}: use more weight bits or fewer residual bits"
        )
    bits = student.magnitude(node)
    best = best_activation_scale(
        np.ravel(wanted)[::_STEP], bits, "saturate", negative=not node.relu
    )
    scale = min(best, acc)
    layer.out_scale[...] = jnp.float32(scale)
    layer.cap = _cap(cap, scale, bits)

    def run(integers: jax.Array, plus_integers: jax.Array | None) -> jax.Array:
        values = {node.source: Scaled(integers, source.scale)}
        if plus is not None and node.plus:
            assert plus_integers is not None
            values[node.plus] = Scaled(plus_integers, plus.scale)
        return student.step(layer, values).integers

    integers = _of_parts(run, source.integers, None if plus is None else plus.integers)
    return Scaled(integers, jnp.float32(scale))


def _cap(cap: np.ndarray | None, scale: int, bits: int) -> int | None:
    """A ReLU's cap as an integer, if it lies within its format.

    It is that of the channels of the largest range; others, which were scaled up, do not reach theirs.
    """
    if cap is None:
        return None
    high = round(float(cap.min()) * 2.0**scale)
    return high if high < 2**bits - 1 else None


def _inputs(x: np.ndarray) -> tuple[dict[str, Scaled], dict[str, jax.Array]]:
    real = jnp.asarray(x).astype(jnp.float32)
    integers = Scaled(real.astype(jnp.bfloat16), jnp.float32(INPUT_SCALE_BITS))
    return {INPUT: integers}, {INPUT: real * 2.0**-INPUT_SCALE_BITS}


def _between(node, values: dict[str, jax.Array]) -> jax.Array:
    if not isinstance(node, Average):
        raise GraphError(f"{node.name}: nothing but averages lies between the layers here")
    return values[node.source].mean((1, 2), keepdims=True)
