"""Any architecture in floating point: bf16 with f32 sums and f32 batch-norm statistics.

Real inputs are (pixel - 128) / 256, so the convolutions' zero padding is mid-grey and nothing else
has to be normalised.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from nets.architecture import INPUT, Activation, Architecture, Conv, Fc, Halve, Join, Pool
from nets.conv import conv, dense, depthwise


class ConvNorm(nnx.Module):
    """A convolution's kernel and the batch norm that follows."""

    def __init__(self, shape: tuple[int, ...], rngs: nnx.Rngs):
        init = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.norm = nnx.BatchNorm(shape[-1], momentum=0.9, dtype=jnp.bfloat16, rngs=rngs)


class Affine(nnx.Module):
    """Kernel and bias of a fully connected layer."""

    def __init__(self, shape: tuple[int, ...], rngs: nnx.Rngs):
        init = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape[-1], jnp.float32))


class Network(nnx.Module):
    """The float network: integer images in [-128, 128) to logits."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs):
        self.architecture = architecture
        self.layers = nnx.Dict()
        for step in architecture.weighted:
            kind = ConvNorm if isinstance(step, Conv) else Affine
            self.layers[step.name] = kind(architecture.kernel_shape(step), rngs)

    def __call__(self, x: Int[Array, "b h w c"]) -> Float[Array, "b k"]:
        """Logits in f32."""
        values: dict[str, jax.Array] = {INPUT: x.astype(jnp.bfloat16) / 256}
        for step in self.architecture.steps:
            x = values[step.source]
            if isinstance(step, Conv):
                layer = self.layers[step.name]
                product = depthwise if step.depthwise else conv
                y = product(x, layer.kernel[...], step.stride).astype(jnp.bfloat16)
                y = _activated(layer.norm(y), step.activation)
            elif isinstance(step, Join):
                y = _activated(x + values[step.shortcut], step.activation)
            elif isinstance(step, Halve):
                y = halve(x, step.channels)
            elif isinstance(step, Pool):
                windows = tiles(x.astype(jnp.float32), step.window)
                y = windows.mean((2, 4)) if step.kind == "mean" else windows.max((2, 4))
                y = y.astype(jnp.bfloat16)
            else:
                assert isinstance(step, Fc)
                layer = self.layers[step.name]
                y = dense(x.reshape(x.shape[0], -1), layer.kernel[...]) + layer.bias[...]
            values[step.name] = y
        return values[self.architecture.steps[-1].name]


def _activated(x: jax.Array, activation: Activation | None) -> jax.Array:
    if activation is None:
        return x
    return nnx.relu(x) if activation == "relu" else nnx.relu6(x)


def tiles(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b h2 s w2 s c"]:
    """Cuts an image into square windows; axes 2 and 4 run over a window."""
    b, h, w, c = x.shape
    return x.reshape(b, h // side, side, w // side, side, c)


def halve(x: Float[Array, "b h w c"], channels: int) -> Float[Array, "b h2 w2 k"]:
    """Every second row and column, with as many zero channels in front as behind."""
    pad = (channels - x.shape[3]) // 2
    return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (pad, pad)))
