"""Any architecture in floating point: bf16 values, f32 sums and f32 batch-norm statistics.

Real inputs are (pixel - 128) / 256, so the convolutions' zero padding is mid-grey and nothing else has
to be normalised.
"""

from __future__ import annotations

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from nets import ops
from nets.conv import dense, rounded_conv, window_taps
from nets.ops import INPUT, Architecture, Rules, walk
from pqjax.graph.nodes import window_counts


class Weighted(nnx.Module):
    """A layer's kernel, and its batch norm or its bias."""

    def __init__(self, architecture: Architecture, layer: ops.Linear, rngs: nnx.Rngs):
        init = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), architecture.kernel(layer), jnp.float32))
        normed = any(isinstance(reader, ops.Norm) for reader in architecture.readers[layer.name])
        norm = functools.partial(nnx.BatchNorm, momentum=0.9, dtype=jnp.bfloat16, rngs=rngs)
        self.norm = norm(layer.channels) if normed else None
        self.bias = None if normed else nnx.Param(jnp.zeros(layer.channels, jnp.float32))

    def biased(self, y: Float[Array, "*s k"]) -> Float[Array, "*s k"]:
        """A product plus the bias, if it has one."""
        return y if self.bias is None else y + self.bias[...]


class FloatNet(Weighted):
    """The float network: (b, H, W, C) integer inputs in [-128, 128) to (b, classes) logits.

    The last layer's parameters are its own, those of the others are in `blocks`, in order.
    """

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs):
        self.architecture = architecture
        *layers, last = architecture.layers
        self.blocks = nnx.List([Weighted(architecture, layer, rngs) for layer in layers])
        super().__init__(architecture, last, rngs)

    @property
    def weighted(self) -> list[Weighted]:
        """What holds every layer's parameters, in order."""
        return [*self.blocks, self]

    def rules(self) -> Rules[Float[Array, "b ..."]]:
        """What every kind of operation does."""
        layers = self.architecture.layers
        of = {op.name: held for op, held in zip(layers, self.weighted, strict=True)}

        def product(op: ops.Conv, x: jax.Array) -> jax.Array:
            held = of[op.name]
            return held.biased(rounded_conv(x, held.kernel[...], op)).astype(jnp.bfloat16)

        def matrix_product(op: ops.Dense, x: jax.Array) -> jax.Array:
            held = of[op.name]
            return held.biased(dense(x, held.kernel[...]))

        def average(op: ops.AvgPool, x: jax.Array) -> jax.Array:
            return window_mean(x.astype(jnp.float32), op).astype(jnp.bfloat16)

        return {
            **CARRIERS,
            ops.Conv: product,
            ops.Dense: matrix_product,
            ops.Norm: lambda op, x: typing.cast(nnx.BatchNorm, of[op.sources[0]].norm)(x),
            ops.Add: lambda op, x, plus: x + plus,
            ops.Relu: relu,
            ops.AvgPool: average,
            ops.GlobalAverage: lambda op, x: (
                x.astype(jnp.float32).mean((1, 2), keepdims=True).astype(jnp.bfloat16)
            ),
        }

    def __call__(self, x: Int[Array, "b h w c"]) -> Float[Array, "b n"]:
        """Logits in f32."""
        values = {INPUT: x.astype(jnp.bfloat16) / 256}
        return walk(self.architecture.ops, self.rules(), values).astype(jnp.float32)


def relu(op: ops.Relu, x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """max(x, 0), up to the cap."""
    x = nnx.relu(x)
    return x if op.cap is None else jnp.minimum(x, op.cap)


def largest(
    x: Float[Array, "b h w c"], window: tuple[int, int], stride: tuple[int, int]
) -> Float[Array, "b h2 w2 c"]:
    """Largest of every window, of pieces that both modes of differentiation know."""
    return functools.reduce(jnp.maximum, window_taps(x, window, stride))


def window_mean(x: Float[Array, "b h w c"], op: ops.AvgPool) -> Float[Array, "b h2 w2 c"]:
    """Averages every window's pixels."""
    counts = window_counts(x.shape[1:], op.window, op.stride, op.padding)
    return window_sum(x, op.window, op.stride, op.padding) / counts.astype(x.dtype)


def window_sum(
    x: Float[Array, "b h w c"], window: tuple[int, int], stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]] = ops.NO_MARGINS,
) -> Float[Array, "b h2 w2 c"]:  # fmt: skip
    """Sums every window."""
    if padding != ops.NO_MARGINS:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    b, h, w, c = x.shape
    if window != stride or h % window[0] or w % window[1]:
        zero = np.zeros((), x.dtype)
        return lax.reduce_window(x, zero, lax.add, (1, *window, 1), (1, *stride, 1), "VALID")
    return x.reshape(b, h // window[0], window[0], w // window[1], window[1], c).sum((2, 4))


# Kinds that move values and make none: their rules fit floats and integers alike.
CARRIERS: Rules[Float[Array, "b ..."]] = {
    ops.MaxPool: lambda op, x: largest(x, op.window, op.stride),
    ops.Flatten: lambda op, x: x.reshape(x.shape[0], -1),
    ops.Subsample: lambda op, x: x[:, :: op.stride[0], :: op.stride[1]],
    ops.Pad: lambda op, x: jnp.pad(x, ((0, 0), *op.margins), "edge" if op.edge else "constant"),
    ops.Take: lambda op, x: x[..., np.array(op.channels)],
    ops.Concat: lambda op, *x: jnp.concatenate(x, -1),
}
