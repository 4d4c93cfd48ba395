"""MiniONN in floating point: seven convolutions with norm and ReLU, two average pools, one FC.

Training runs in bf16 with f32 sums and f32 batch-norm statistics. Real inputs are (pixel - 128) /
256, so the convolutions' zero padding is mid-grey and nothing else has to be normalised.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from nets.conv import conv, dense


@dataclasses.dataclass(frozen=True)
class Layer:
    """One weight layer of the architecture: a convolution with ReLU, or the closing FC."""

    name: str
    window: int  # side of the square kernel; 0 for the FC
    in_channels: int
    out_channels: int
    pool: bool = False  # 2x2 average pool after the ReLU


LAYERS = (
    Layer("conv1", 3, 3, 64),
    Layer("conv2", 3, 64, 64, pool=True),
    Layer("conv3", 3, 64, 64),
    Layer("conv4", 3, 64, 64, pool=True),
    Layer("conv5", 3, 64, 64),
    Layer("conv6", 1, 64, 64),
    Layer("conv7", 1, 64, 16),
    Layer("fc", 0, 1024, 10),
)


class ConvBlock(nnx.Module):
    """conv (no bias) -> batch norm -> ReLU -> optional 2x2 average pool."""

    def __init__(self, layer: Layer, rngs: nnx.Rngs):
        shape = (layer.window, layer.window, layer.in_channels, layer.out_channels)
        init = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.norm = nnx.BatchNorm(layer.out_channels, momentum=0.9, dtype=jnp.bfloat16, rngs=rngs)
        self.pool = layer.pool

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 k"]:
        """Applies the block; the result is bf16."""
        x = conv(x, self.kernel[...]).astype(jnp.bfloat16)
        x = nnx.relu(self.norm(x))
        return (pool_sum(x.astype(jnp.float32)) / 4).astype(jnp.bfloat16) if self.pool else x


class MiniONN(nnx.Module):
    """The float network: (b, 32, 32, 3) integer inputs in [-128, 128) to (b, 10) logits."""

    def __init__(self, rngs: nnx.Rngs):
        *convs, fc = LAYERS
        self.blocks = nnx.List([ConvBlock(layer, rngs) for layer in convs])
        init = jax.nn.initializers.he_normal()
        shape = (fc.in_channels, fc.out_channels)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(fc.out_channels, jnp.float32))

    def __call__(self, x: Int[Array, "b 32 32 3"]) -> Float[Array, "b 10"]:
        """Logits in f32."""
        x = x.astype(jnp.bfloat16) / 256
        for block in self.blocks:
            x = block(x)
        return dense(x.reshape(x.shape[0], -1), self.kernel[...]) + self.bias[...]


def pool_sum(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Sums every 2x2 window."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).sum((2, 4))
