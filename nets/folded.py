"""The folded network in f32: plain kernels and biases, caps of ReLUs, and freedom of scale.

What is computed does not change if a tensor's channels are multiplied by positive factors where they are
written and divided where they are read: convolutions are linear, ReLU and averages are homogeneous, and
a cap moves along. Tensors that are added share their factors: they are one *stream*. This freedom is
where a quantizer with one power-of-two scale a tensor gets its ranges from.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nets.architecture import INPUT, Architecture, Average, Largest, Layer
from nets.conv import plain_conv
from nets.data import INPUT_SCALE_BITS
from nets.floating import largest, pool_sum
from nets.fold import Folded
from pqjax.errors import GraphError


@dataclasses.dataclass(frozen=True)
class FoldedNet:
    """A float network without norms.

    Attributes:
      architecture: its shape.
      weights: (kernel, bias) of every layer, the FC last.
      caps: of every layer, the largest value by output channel, or None.
    """

    architecture: Architecture
    weights: Folded
    caps: tuple[np.ndarray | None, ...]

    @staticmethod
    def of(architecture: Architecture, weights: Folded) -> FoldedNet:
        """With the caps that the architecture states."""
        caps = tuple(
            None if layer.cap is None else np.full(layer.out_channels, layer.cap, np.float32)
            for layer in architecture.layers
        )
        return FoldedNet(architecture, weights, caps)

    def scaled(self, stream: Stream, factors: np.ndarray | np.floating) -> FoldedNet:
        """The same function, the stream's channels times positive factors (one, or one each)."""
        weights, caps = list(self.weights), list(self.caps)
        layers = self.architecture.layers
        for i, layer in enumerate(layers):
            kernel, bias = weights[i]
            if layer.name in stream.writers:
                kernel, bias = kernel * factors, bias * factors
                cap = caps[i]
                caps[i] = None if cap is None else (cap * factors).astype(np.float32)
            if layer.source in stream.tensors:
                inverse = np.broadcast_to(1 / factors, (layer.in_channels,))
                depthwise = layer.groups > 1  # its one input channel is that of the output
                kernel = kernel * (inverse if depthwise else inverse[:, None])
            weights[i] = kernel.astype(np.float32), bias.astype(np.float32)
        return dataclasses.replace(self, weights=weights, caps=tuple(caps))

    def values(self, x: np.ndarray | jax.Array) -> dict[str, jax.Array]:
        """Every tensor by name for integer inputs (b, h, w, 3); the last one is the logits."""
        caps = tuple(None if cap is None else jnp.asarray(cap) for cap in self.caps)
        return _values(self.architecture, self.weights, caps, jnp.asarray(x))

    def logits(self, x: np.ndarray, batch: int = 50) -> np.ndarray:
        """(n, classes) for integer inputs (n, h, w, 3)."""
        last = self.architecture.nodes[-1].name
        parts = [x[i : i + batch] for i in range(0, len(x), batch)]
        caps = tuple(None if cap is None else jnp.asarray(cap) for cap in self.caps)
        run = functools.partial(_logits, self.architecture, last)
        return np.concatenate([np.asarray(run(self.weights, caps, jnp.asarray(p))) for p in parts])


@dataclasses.dataclass(frozen=True)
class Stream:
    """Tensors whose channels share their factors.

    Attributes:
      tensors: their names.
      writers: the layers that make them.
    """

    tensors: frozenset[str]
    writers: frozenset[str]


def streams(architecture: Architecture) -> list[Stream]:
    """All streams of an architecture, in the order of their first tensors; not the logits.

    Raises:
      GraphError: a shortcut changes channels within one.
    """
    joined: dict[str, set[str]] = {}
    for node in architecture.nodes[:-1]:
        mine = {node.name}
        others: list[str] = []
        if isinstance(node, Layer):
            others = [node.plus] if node.plus else []
        elif isinstance(node, (Average, Largest)):
            others = [node.source]
        else:
            raise GraphError(f"{node.name}: a shortcut's channels have no factors of their own")
        for other in others:
            mine |= joined[other]
        for name in mine:
            joined[name] = mine
    names = {layer.name for layer in architecture.layers}
    unique = {id(each): each for each in joined.values()}
    return [Stream(frozenset(each), frozenset(each & names)) for each in unique.values()]


def _run(architecture, weights, caps, x) -> dict[str, jax.Array]:
    values = {INPUT: x.astype(jnp.float32) * 2.0**-INPUT_SCALE_BITS}
    at = 0
    for node in architecture.nodes:
        source = values[node.source]
        if isinstance(node, Average):
            values[node.name] = source.mean((1, 2), keepdims=True)
        elif isinstance(node, Largest):
            values[node.name] = largest(source, node)
        else:
            assert isinstance(node, Layer)
            plus = values[node.plus] if node.plus else None
            kernel, bias = weights[at]
            values[node.name] = layer_value(node, kernel, bias, caps[at], source, plus)
            at += 1
    return values


def layer_value(layer: Layer, kernel, bias, cap, x, plus=None) -> jax.Array:
    """One layer in f32: product, bias, sum, ReLU with its cap, pool."""
    if not layer.window:
        flat = x.reshape(x.shape[0], -1)
        return jnp.dot(flat, kernel, precision=lax.Precision.HIGHEST) + bias
    y = plain_conv(x, jnp.asarray(kernel), layer) + bias
    y = y if plus is None else y + plus
    y = jnp.maximum(y, 0) if layer.relu else y
    y = y if cap is None else jnp.minimum(y, cap)
    return y if layer.pool == 1 else pool_sum(y, layer.pool) / layer.pool**2


_values = functools.partial(jax.jit, static_argnums=0)(_run)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(architecture, last, weights, caps, x):
    return _run(architecture, weights, caps, x)[last]
