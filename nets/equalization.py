"""Channel factors: where in a network its freedom of scale is best spent before rounding.

Tensors and weights have one scale each, their channels have ranges of their own; what a channel is
multiplied by where it is written and divided by where it is read changes the rounding of both layers and
nothing else (`nets.folded`). Nagel et al. (arXiv 1906.04721, section 4.1) make the ranges of two
neighbouring kernels equal; here the rounding noise of all layers, as pictures make it felt, is written
down and its least sum is looked for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nets.folded import FoldedNet, spread, streams, tiled
from nets.ops import Concat, Linear, Op, Pad, Take
from nets.quantized import QuantNet
from nets.steps import Block, Cut, Joined, blocks, shapes, steps
from pqjax.graph.bounds import Shape

_STEPS, _RATE = 600, 0.05
_WEIGHT_NORM = 4  # mean fourth powers: between the mean square and the largest weight
_WEIGHT_RANGE = 2.5  # a format's range in those norms
_VALUE_NORM = 8
_MOST = 64.0  # the largest factor under a cap: a channel that never speaks keeps a small bias


@dataclasses.dataclass(frozen=True)
class Channels:
    """What pictures show of a tensor's channels, each (channels,).

    Attributes:
      square: means of squares.
      variance: variances.
      top: largest magnitudes.
      felt: by how much noise in a channel is magnified where it is read: squares of all weights that
        read it, and as much as what it is added to.
    """

    square: np.ndarray
    variance: np.ndarray
    top: np.ndarray
    felt: np.ndarray


def observed(net: FoldedNet, values: dict[str, jax.Array]) -> dict[str, Channels]:
    """Channels of all tensors of some pictures, see `FoldedNet.values`."""
    felt: dict[str, np.ndarray] = {}
    architecture = net.architecture
    weights = net.by_name
    order, shape = steps(architecture), shapes(architecture)
    for step in reversed(order):
        mine = felt.setdefault(step.name, np.ones(architecture.classes))  # the logits
        if isinstance(step, Linear):
            kernel = np.asarray(weights[step.name][0], np.float64) ** 2
            inputs, outputs = kernel.shape[-2:]
            kernel = kernel.reshape(-1, inputs, step.groups, outputs // step.groups)
            mine = kernel.sum(0).sum(2).T.reshape(-1)
        for source, part in zip(step.sources, _parts(step, mine, shape), strict=True):
            # A channel of an image is felt in all pixels of a flat one.
            each = part.reshape(-1, shape[source][-1]).sum(0)
            felt[source] = felt.get(source, 0.0) + each
    found = {}
    for name, value in values.items():
        flat = np.asarray(value).reshape(-1, value.shape[-1])
        square = np.square(flat).mean(0, dtype=np.float64)
        found[name] = Channels(square, flat.var(0), np.abs(flat).max(0), felt[name])
    return found | {step.name: found[step.sources[0]] for step in order if isinstance(step, Cut)}


def _parts(step: Op, made: np.ndarray, shape: Mapping[str, Shape]) -> list[np.ndarray]:
    """Of numbers of the channels that a step makes those of each source's."""
    if isinstance(step, Joined) and isinstance(step.op, Concat):
        ends = np.cumsum([shape[source][-1] for source in step.sources])
        return np.split(made, ends[:-1])
    if isinstance(step, Pad):
        before, after = step.margins[2]
        return [made[before : made.size - after]]
    if isinstance(step, Take):
        found = np.zeros(shape[step.sources[0]][-1])
        np.add.at(found, list(step.channels), made)
        return [found]
    return [made] * len(step.sources)


def channel_factors(
    net: FoldedNet, student: QuantNet, channels: dict[str, Channels]
) -> list[np.ndarray]:
    """Factors of every stream, in the order of `streams`, for the least sum of relative noise.

    The noise of a layer is that of its rounded weights and of its rounded output, in the units of the
    unscaled network, weighted by `felt` and divided by its output's variance weighted alike. A format's
    step follows from the norm of what it holds, which makes the sum differentiable. Channels of a capped
    ReLU move up only, and no further than to the cap: one cap serves them all.

    Args:
      net: unscaled.
      student: for the bits of weights and tensors.
      channels: see `observed`.
    """
    architecture = net.architecture
    found = streams(architecture)
    place = {name: i for i, stream in enumerate(found) for name in stream.tensors}
    weights = net.by_name
    layers = [(block, block.layer) for block in blocks(architecture) if block.layer]
    rooms, start = [], []
    for stream in found:
        writers = [block for block, layer in layers if layer.name in stream.writers]
        rooms.append(_room(net, writers, channels))
        start.append(jnp.zeros(channels[writers[0].name].top.size, jnp.float32))

    def factors(free: list[jax.Array]) -> list[jax.Array]:
        return [
            jnp.exp(f if room is None else room * jax.nn.sigmoid(f))
            for f, room in zip(free, rooms, strict=True)
        ]

    def noise(free: list[jax.Array]) -> jax.Array:
        scaled = factors(free)
        total = jnp.float32(0)
        for block, layer in layers:
            read, made = channels[block.sources[0]], channels[block.name]
            at, to = place.get(block.sources[0]), place.get(block.name)
            kernel = jnp.asarray(weights[layer.name][0])
            into = jnp.ones(1) if at is None else scaled[at]
            out = jnp.ones(layer.channels) if to is None else scaled[to]
            kernel = kernel * out / spread(layer, into, kernel.shape)
            bits = student.layer(layer.name).bits
            step = _WEIGHT_RANGE * _norm(kernel, _WEIGHT_NORM) * 2.0 ** (1 - bits)
            square = jnp.asarray(read.square, jnp.float32)
            felt = tiled(into, square.size) ** 2 * square
            lost = step**2 * (math.prod(kernel.shape[:-2]) * _by_output(layer, felt))
            if block.fit is not None:
                reach = _norm(out * jnp.asarray(made.top, jnp.float32), _VALUE_NORM)
                lost = lost + (reach * 2.0 ** -student.magnitude(block.fit)) ** 2
            felt = jnp.asarray(made.felt, jnp.float32)
            signal = (felt * jnp.asarray(made.variance)).sum()
            total += (felt * lost / out**2).sum() / signal / 12
        return total

    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

    @jax.jit
    def step(free, state):
        updates, state = optimizer.update(jax.grad(noise)(free), state)
        return optax.apply_updates(free, updates), state

    free, state = start, optimizer.init(start)
    for _ in range(_STEPS):
        free, state = step(free, state)
    return [np.asarray(f) for f in factors(free)]


def _room(net: FoldedNet, writers: list[Block], channels: dict[str, Channels]) -> jax.Array | None:
    """Logarithms of what channels may be multiplied by until they reach the cap; None without one."""
    capped = {b.name: net.caps[b.fit.capped.name].min() for b in writers if b.fit and b.fit.capped}
    if not capped:
        return None
    cap, tops = min(capped.values()), np.max([channels[name].top for name in capped], axis=0)
    return jnp.asarray(np.log(np.clip(cap / np.maximum(tops, 1e-9), 1, _MOST)), jnp.float32)


def _by_output(layer: Linear, read: jax.Array) -> jax.Array:
    """Sums of what channels (inputs,) bring over those that an output reads: (outputs,), or ()."""
    if layer.groups == 1:
        return read.sum()
    return jnp.repeat(read.reshape(layer.groups, -1).sum(1), layer.channels // layer.groups)


def _norm(values: jax.Array, p: int) -> jax.Array:
    return jnp.mean(values**p) ** (1 / p)
