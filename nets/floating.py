"""Any architecture in floating point: bf16 values, f32 sums and f32 batch-norm statistics.

Real inputs are (pixel - 128) / 256, so the convolutions' zero padding is mid-grey and nothing else has
to be normalised.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from nets.architecture import INPUT, Architecture, Average, Largest, Layer, Shortcut
from nets.conv import dense, rounded_conv


class ConvBlock(nnx.Module):
    """A convolution's kernel (no bias) and its batch norm."""

    def __init__(self, layer: Layer, rngs: nnx.Rngs):
        init = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), layer.kernel, jnp.float32))
        self.norm = nnx.BatchNorm(layer.out_channels, momentum=0.9, dtype=jnp.bfloat16, rngs=rngs)
        self.layer = layer

    def __call__(
        self, x: Float[Array, "b h w c"], plus: Float[Array, "b h2 w2 k"] | None = None
    ) -> Float[Array, "b h3 w3 k"]:
        """The layer's tensor, bf16."""
        x = self.norm(rounded_conv(x, self.kernel[...], self.layer))
        x = x if plus is None else x + plus
        x = nnx.relu(x) if self.layer.relu else x
        x = x if self.layer.cap is None else jnp.minimum(x, self.layer.cap)
        if self.layer.pool == 1:
            return x
        area = self.layer.pool**2
        return (pool_sum(x.astype(jnp.float32), self.layer.pool) / area).astype(jnp.bfloat16)


class FloatNet(nnx.Module):
    """The float network: (b, side, side, 3) integer inputs in [-128, 128) to (b, classes) logits."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs):
        self.architecture = architecture
        self.blocks = nnx.List([ConvBlock(layer, rngs) for layer in architecture.convs])
        fc = architecture.layers[-1]
        init = jax.nn.initializers.he_normal()
        shape = (fc.in_channels, fc.out_channels)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(fc.out_channels, jnp.float32))

    def __call__(self, x: Int[Array, "b h w 3"]) -> Float[Array, "b n"]:
        """Logits in f32."""
        values = {INPUT: x.astype(jnp.bfloat16) / 256}
        blocks = iter(self.blocks)
        for node in self.architecture.nodes[:-1]:
            source = values[node.source]
            if isinstance(node, Shortcut):
                values[node.name] = shortcut(source, node)
            elif isinstance(node, Largest):
                values[node.name] = largest(source, node)
            elif isinstance(node, Average):
                mean = source.astype(jnp.float32).mean((1, 2), keepdims=True)
                values[node.name] = mean.astype(jnp.bfloat16)
            else:
                plus = values[node.plus] if node.plus else None
                values[node.name] = next(blocks)(source, plus)
        last = values[self.architecture.nodes[-1].source]
        return dense(last.reshape(last.shape[0], -1), self.kernel[...]) + self.bias[...]


def shortcut(x: Float[Array, "b h w c"], node: Shortcut) -> Float[Array, "b h2 w2 k"]:
    """Subsampled, with zero channels on both sides."""
    x = x[:, :: node.stride, :: node.stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (node.margin, node.margin)))


def largest(x: Float[Array, "b h w c"], node: Largest) -> Float[Array, "b h2 w2 c"]:
    """Max pool of values that are not negative, zeros at the edges."""
    margin = (node.window // 2, node.window // 2)
    window, stride = (1, node.window, node.window, 1), (1, node.stride, node.stride, 1)
    zero = jnp.zeros((), x.dtype)
    return lax.reduce_window(x, zero, lax.max, window, stride, ((0, 0), margin, margin, (0, 0)))


def pool_sum(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b h2 w2 c"]:
    """Sums every side x side window."""
    b, h, w, c = x.shape
    return x.reshape(b, h // side, side, w // side, side, c).sum((2, 4))
