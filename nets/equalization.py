"""Channel factors: where in a network its freedom of scale is best spent before rounding.

Tensors and weights have one scale each, their channels have ranges of their own; what a channel is
multiplied by where it is written and divided by where it is read changes the rounding of both layers and
nothing else (`nets.folded`). Nagel et al. (arXiv 1906.04721, section 4.1) make the ranges of two
neighbouring kernels equal; here the rounding noise of all layers, as pictures make it felt, is written
down and its least sum is looked for.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nets.architecture import Layer
from nets.folded import FoldedNet, streams
from nets.quantized import QuantNet

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
    weights = {n.name: k for n, (k, _) in zip(net.architecture.layers, net.weights, strict=True)}
    for node in reversed(net.architecture.nodes):
        if not isinstance(node, Layer):
            felt[node.source] = felt.get(node.source, 0.0) + felt[node.name]
            continue
        kernel = np.asarray(weights[node.name], np.float64) ** 2
        kernel = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)
        felt[node.source] = felt.get(node.source, 0.0) + kernel.sum(0 if node.groups > 1 else 1)
        felt.setdefault(node.name, np.ones(node.out_channels))  # the logits
        if node.plus:
            felt[node.plus] = felt.get(node.plus, 0.0) + felt[node.name]
    found = {}
    for name, value in values.items():
        flat = np.asarray(value).reshape(-1, value.shape[-1])
        square = np.square(flat).mean(0, dtype=np.float64)
        found[name] = Channels(square, flat.var(0), np.abs(flat).max(0), felt[name])
    return found


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
    kernels = {n.name: k for n, (k, _) in zip(architecture.layers, net.weights, strict=True)}
    weight_bits = {layer.layer.name: layer.bits for layer in student.layers}
    rooms, start = [], []
    for stream in found:
        writers = [layer for layer in architecture.layers if layer.name in stream.writers]
        rooms.append(_room([layer for layer in writers if layer.cap is not None], channels))
        start.append(jnp.zeros(writers[0].out_channels, jnp.float32))

    def factors(free: list[jax.Array]) -> list[jax.Array]:
        return [
            jnp.exp(f if room is None else room * jax.nn.sigmoid(f))
            for f, room in zip(free, rooms, strict=True)
        ]

    def noise(free: list[jax.Array]) -> jax.Array:
        scaled = factors(free)
        total = jnp.float32(0)
        for layer in architecture.layers:
            at, to = place.get(layer.source), place.get(layer.name)
            into = jnp.ones(layer.in_channels) if at is None else scaled[at]
            out = jnp.ones(layer.out_channels) if to is None else scaled[to]
            depthwise = layer.groups > 1
            kernel = jnp.asarray(kernels[layer.name]) * out
            kernel = kernel / (into if depthwise else into[:, None])
            step = (
                _WEIGHT_RANGE * _norm(kernel, _WEIGHT_NORM) * 2.0 ** (1 - weight_bits[layer.name])
            )
            read = into**2 * jnp.asarray(channels[layer.source].square, jnp.float32)
            read = max(layer.window, 1) ** 2 * (read if depthwise else read.sum())
            made = step**2 * read
            if layer.window:
                reach = _norm(out * jnp.asarray(channels[layer.name].top, jnp.float32), _VALUE_NORM)
                made = made + (reach * 2.0 ** -student.magnitude(layer)) ** 2
            felt = jnp.asarray(channels[layer.name].felt, jnp.float32)
            signal = (felt * jnp.asarray(channels[layer.name].variance)).sum()
            total += (felt * made / out**2).sum() / signal / 12
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


def _room(capped: list[Layer], channels: dict[str, Channels]) -> jax.Array | None:
    """Logarithms of what channels may be multiplied by until they reach the cap; None without one."""
    if not capped:
        return None
    cap = min(layer.cap for layer in capped if layer.cap is not None)
    tops = np.max([channels[layer.name].top for layer in capped], axis=0)
    return jnp.asarray(np.log(np.clip(cap / np.maximum(tops, 1e-9), 1, _MOST)), jnp.float32)


def _norm(values: jax.Array, p: int) -> jax.Array:
    return jnp.mean(values**p) ** (1 / p)
