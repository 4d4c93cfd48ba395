"""Quantization after training: channel factors, ranges, and layers fitted by least squares.

Nothing here needs labels: a float network, its quantized form and a few hundred pictures. Formats
have one power-of-two scale a tensor; what channels and tensors need beyond that is folded into the
weights around them first (`nets.equalization`), exactly. Then every layer, in order, is fitted to what
the float network says with what its already quantized predecessors give it (`nets.rounding`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nets.data import INPUT_SCALE_BITS
from nets.equalization import channel_factors, observed
from nets.folded import FoldedNet, streams
from nets.ops import INPUT, Add, AvgPool, walk
from nets.quantized import QuantNet, Scaled, Widths, input_values
from nets.quantizer import best_activation_scale, best_weight_scale, power_of_two
from nets.rounding import fitted, moments
from nets.steps import Block, Fit, Joined, blocks

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
    fits = {b.fit.layer: b.fit for b in blocks(architecture) if b.fit is not None}
    chosen = channel_factors(net, student, observed(net, values))
    for stream, factors in zip(streams(architecture), chosen, strict=True):
        made = [fits[layer] for layer in sorted(stream.writers)]
        bits = min(student.magnitude(fit) for fit in made)
        if any(fit.role == "residual" for fit in made):
            bits = max(bits - student.widths.cut, 2)
        sample = [sampled(np.asarray(values[fit.name]) * factors) for fit in made]
        signed = any(fit.negative for fit in made)
        best = _best_range(np.concatenate(sample), bits, signed)
        net = net.scaled(stream, factors * np.float32(2.0 ** np.round(np.log2(best)) / best))
    return net


_STEP = 7  # of the values that ranges are searched on; divides no side or channel count
_FEW = 1 << 13  # so many values are all looked at: of a narrow layer's, some would miss the largest


def sampled(values: Float[np.ndarray, "*s"]) -> Float[np.ndarray, " n"]:
    """The values that a range is searched on."""
    flat = np.ravel(values)
    return flat if flat.size <= _FEW else flat[::_STEP]


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
    """
    ours: dict[str, Scaled] = input_values(jnp.asarray(x))
    theirs = {INPUT: jnp.asarray(x).astype(jnp.float32) * 2.0**-INPUT_SCALE_BITS}
    order = blocks(net.architecture)
    last_use = {source: at for at, block in enumerate(order) for source in block.sources}
    for at, block in enumerate(order):
        if block.layer is None:
            walk(block.steps, {**student.rules(), Joined: student.choosing}, ours)
            walk(block.steps, net.rules, theirs)
        else:
            _fit_weights(student, net, block, ours, theirs, recipe)
            run = functools.partial(walk, block.steps, net.rules)
            theirs[block.name] = _of_parts(run, {name: theirs[name] for name in block.sources})
            if block.fit is not None:
                few = theirs[block.name][: recipe.images]
                _choose_format(student, net, block, block.fit, few, ours)
                ours[block.name] = _output(student, block, block.fit, ours)
            say(f"{block.layer.name}: fitted")
        for name in [name for name, end in last_use.items() if end == at]:
            ours.pop(name, None)
            theirs.pop(name, None)


_PART = 16  # pictures at a time


def _parts(arrays: typing.Any) -> Iterator[typing.Any]:
    """Some pictures at a time of all arrays of a tree."""
    for i in range(0, len(jax.tree.leaves(arrays)[0]), _PART):
        yield jax.tree.map(lambda each: each[i : i + _PART], arrays)  # noqa: B023  used at once


def _of_parts(run: Callable[..., jax.Array], arrays: typing.Any) -> typing.Any:
    """A function of pictures, made of some at a time."""
    compiled, made, done = jax.jit(run), None, 0
    for part in _parts(arrays):
        some = np.asarray(compiled(part))
        if (
            made is None
        ):  # filled as it comes: the first layers' values take gigabytes, once is enough
            made = np.empty((len(jax.tree.leaves(arrays)[0]), *some.shape[1:]), some.dtype)
        made[done : done + len(some)] = some
        done += len(some)
    assert made is not None
    return made


def _fit_weights(
    student: QuantNet, net: FoldedNet, block: Block, ours: dict[str, Scaled],
    theirs: dict[str, jax.Array], recipe: Recipe,
) -> None:  # fmt: skip
    """Weights that are integers, and biases, for the least squared error of the layer's sums."""
    assert block.layer is not None
    op, layer = block.layer, student.layer(block.layer.name)
    kernel, _ = net.by_name[op.name]
    read, plus = ours[op.sources[0]], ours[block.plus] if block.plus else None

    @jax.jit
    def pair(operand, summand, float_values):
        aim = walk(block.linear, net.rules, float_values)
        if plus is not None:
            aim = aim - summand.astype(jnp.float32) * power_of_two(-plus.scale)
        inputs = operand.astype(jnp.float32) * power_of_two(-read.scale)
        return inputs, aim if aim.ndim == 4 else aim[:, None, None]

    summand = None if plus is None else plus.integers
    parts = _parts((read.integers, summand, {name: theirs[name] for name in block.sources}))
    found = moments(op, (pair(*part) for part in parts), recipe.seed)
    near = best_weight_scale(kernel, layer.bits)
    scales = [near - 1, near, near + 1]
    integers, bias, scale = fitted(kernel, op, found, layer.bits, scales, recipe.damp)
    layer.weight_scale[...] = jnp.float32(scale)
    layer.kernel[...] = jnp.asarray(integers * 2.0**-scale, jnp.float32)
    layer.bias[...] = jnp.asarray(bias, jnp.float32)


def _choose_format(
    student: QuantNet, net: FoldedNet, block: Block, fit: Fit, wanted: jax.Array,
    ours: dict[str, Scaled],
) -> None:  # fmt: skip
    """The scale of a layer's output, from values that the float network has there, and its cap.

    That is the cap of the channels of the largest range: others, scaled up, do not reach theirs.
    """
    layer = student.layer(fit.layer)
    scale = int(ours[block.sources[0]].scale + layer.weight_scale[...])
    for step in block.steps:
        if isinstance(step, Add):
            scale = max(scale, int(ours[step.sources[1]].scale))
        elif isinstance(step, AvgPool):
            scale += int(math.log2(step.area))
    bits = student.magnitude(fit)
    best = best_activation_scale(
        sampled(np.asarray(wanted)), bits, "saturate", negative=fit.negative
    )
    layer.out_scale[...] = jnp.float32(min(best, scale))
    layer.cap = None if fit.capped is None else float(net.caps[fit.capped.name].min())


def _output(student: QuantNet, block: Block, fit: Fit, ours: dict[str, Scaled]) -> Scaled:
    """A layer's output, some pictures at a time."""

    def run(integers: dict[str, jax.Array]) -> jax.Array:
        values = {name: Scaled(each, ours[name].scale) for name, each in integers.items()}
        return walk(block.steps, student.rules(), values).integers

    integers = _of_parts(run, {name: ours[name].integers for name in block.sources})
    return Scaled(integers, student.layer(fit.layer).out_scale[...])
