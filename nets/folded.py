"""The folded network in f32: plain kernels and biases, caps of ReLUs, and freedom of scale.

What is computed does not change if a tensor's channels are multiplied by positive factors where they are
written and divided where they are read: convolutions are linear, ReLU and averages are homogeneous, and
a cap moves along. Tensors that are added share their factors: they are one *stream*. This freedom is
where a quantizer with one power-of-two scale a tensor gets its ranges from.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nets import ops
from nets.conv import plain_conv
from nets.data import INPUT_SCALE_BITS
from nets.floating import CARRIERS, window_mean
from nets.fold import Folded
from nets.ops import INPUT, Architecture, Linear, Rules, walk
from nets.steps import Average, Capped, Cut, Fit, Joined, blocks, steps

Value = jax.Array | np.ndarray


def folded_rules(
    weights: Mapping[str, tuple[Value, Value]], caps: Mapping[str, Value]
) -> Rules[jax.Array]:
    """What every kind of step does in f32.

    Args:
      weights: kernel and bias of every layer, by name.
      caps: of ReLUs that have one, by name: the largest value, for each channel or one for all.
    """

    def product(op: ops.Conv, x: jax.Array) -> jax.Array:
        kernel, bias = weights[op.name]
        return plain_conv(x, jnp.asarray(kernel), op) + bias

    def matrix_product(op: ops.Dense, x: jax.Array) -> jax.Array:
        kernel, bias = weights[op.name]
        return jnp.dot(x, kernel, precision=lax.Precision.HIGHEST) + bias

    def relu(op: ops.Relu, x: jax.Array) -> jax.Array:
        return jnp.minimum(jax.nn.relu(x), caps[op.name]) if op.name in caps else jax.nn.relu(x)

    def average(op: ops.AvgPool | Average, x: jax.Array) -> jax.Array:
        if op.window == x.shape[1:3] and op.padding == ops.NO_MARGINS:
            return x.mean((1, 2), keepdims=True)
        return window_mean(x, op)

    plain: Rules[jax.Array] = {**CARRIERS, ops.Add: lambda op, x, plus: x + plus}
    return {
        **plain,
        Joined: lambda op, *x: plain[type(op.op)](op.op, *x),
        ops.Conv: product,
        ops.Dense: matrix_product,
        ops.Relu: relu,
        Capped: relu,
        ops.AvgPool: average,
        Average: average,
        Fit: lambda op, x: x,
        Cut: lambda op, x: x,
    }


@dataclasses.dataclass(frozen=True)
class FoldedNet:
    """A float network without norms.

    Attributes:
      architecture: its shape.
      weights: (kernel, bias) of every layer, in order.
      caps: of every ReLU that has one, by name: the largest value by channel.
    """

    architecture: Architecture
    weights: Folded
    caps: Mapping[str, np.ndarray]

    @staticmethod
    def of(architecture: Architecture, weights: Folded) -> FoldedNet:
        """With the caps that the architecture states."""
        return FoldedNet(architecture, weights, stated_caps(architecture))

    @property
    def by_name(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Kernel and bias of every layer."""
        names = (layer.name for layer in self.architecture.layers)
        return dict(zip(names, self.weights, strict=True))

    @property
    def rules(self) -> Rules[jax.Array]:
        """What every kind of step does."""
        return folded_rules(self.by_name, self.caps)

    def scaled(self, stream: Stream, factors: np.ndarray | np.floating) -> FoldedNet:
        """The same function, the stream's channels times positive factors (one, or one each)."""
        weights, caps = self.by_name, dict(self.caps)
        for step in steps(self.architecture):
            if isinstance(step, Linear):
                kernel, bias = weights[step.name]
                if step.name in stream.writers:
                    kernel, bias = kernel * factors, bias * factors
                if step.sources[0] in stream.tensors:
                    inverse = np.broadcast_to(1 / factors, np.size(factors))
                    kernel = kernel * np.asarray(spread(step, inverse, kernel.shape))
                weights[step.name] = kernel.astype(np.float32), bias.astype(np.float32)
        for name in stream.tensors & caps.keys():
            caps[name] = (caps[name] * factors).astype(np.float32)
        return dataclasses.replace(self, weights=list(weights.values()), caps=caps)

    def values(self, x: np.ndarray | jax.Array) -> dict[str, jax.Array]:
        """Every block's tensor by name for integer inputs (b, H, W, C); the last one is the logits."""
        return _values(self.architecture, self.weights, self.caps, jnp.asarray(x))

    def logits(self, x: np.ndarray, batch: int = 50) -> np.ndarray:
        """(n, classes) for integer inputs (n, H, W, C)."""
        parts = [x[i : i + batch] for i in range(0, len(x), batch)]
        run = functools.partial(_logits, self.architecture)
        return np.concatenate(
            [np.asarray(run(self.weights, self.caps, jnp.asarray(p))) for p in parts]
        )


def stated_caps(architecture: Architecture) -> dict[str, np.ndarray]:
    """Of every ReLU that has one, by name: the largest value, the same for all channels."""
    return {
        op.name: np.full(architecture.shapes[op.name][-1], op.cap, np.float32)
        for op in architecture.ops
        if isinstance(op, ops.Relu) and op.cap is not None
    }


def tiled(numbers, inputs: int):
    """One number for all channels, or one for each: (inputs,); pixels of a flat image are alike."""
    if len(numbers) == inputs:
        return numbers
    return jnp.tile(numbers, inputs // len(numbers))


def spread(layer: ops.Linear, numbers, kernel: tuple[int, ...]):
    """Numbers of the channels that a layer reads, see `tiled`, as its kernel reads them.

    Args:
      layer: the reader.
      numbers: (1,), or one for each channel of what it reads.
      kernel: shape of its weights (..., channels / groups, outputs).

    Returns:
      (channels / groups, 1), or (channels / groups, outputs) where there are groups.
    """
    each = tiled(numbers, kernel[-2] * layer.groups)
    if layer.groups == 1:
        return each[:, None]
    return each.reshape(layer.groups, -1).T.repeat(kernel[-1] // layer.groups, 1)


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
    """All streams of an architecture, in the order of their first tensors.

    Not those of the input and of the logits, whose scales are given, nor those in which channels are
    padded, taken or concatenated, or capped in a format that is not the cap's own.
    """
    joined: dict[str, set[str]] = {INPUT: {INPUT}}
    order = steps(architecture)
    fixed = {INPUT, order[-1].name}
    for step in order:
        mine = {step.name}
        padded = isinstance(step, ops.Pad) and step.margins[2] != (0, 0)
        concatenated = isinstance(step, Joined) and isinstance(step.op, ops.Concat)
        if padded or concatenated or isinstance(step, (Capped, ops.Take)):
            fixed.add(step.name)
        if not isinstance(step, Linear):
            mine = mine.union(*(joined[source] for source in step.sources))
        for name in mine:
            joined[name] = mine
    unique = {id(each): each for each in joined.values()}.values()
    names = {layer.name for layer in architecture.layers}
    return [Stream(frozenset(s), frozenset(s & names)) for s in unique if not s & fixed]


def _run(architecture, weights, caps, x) -> dict[str, jax.Array]:
    values = {INPUT: x.astype(jnp.float32) * 2.0**-INPUT_SCALE_BITS}
    walk(steps(architecture), FoldedNet(architecture, weights, caps).rules, values)
    kept = {block.name for block in blocks(architecture) if not isinstance(block.steps[0], Cut)}
    return {name: value for name, value in values.items() if name in kept | {INPUT}}


_values = functools.partial(jax.jit, static_argnums=0)(_run)


@functools.partial(jax.jit, static_argnums=0)
def _logits(architecture, weights, caps, x):
    return _run(architecture, weights, caps, x)[steps(architecture)[-1].name]
