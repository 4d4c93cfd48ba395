"""MiniONN with quantized weights and activations, computed on integers exactly as inference does.

Block:  conv -> + bias -> ReLU -> [2x2 sum, scale + 2] -> requantize to unsigned activations.
All tensors are integers held in floats; the logits are divided by their scale only for the loss.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from nets.conv import conv, dense
from nets.data import INPUT_SCALE_BITS
from nets.minionn import LAYERS, Layer, pool_sum
from nets.quantizer import (
    Rule,
    best_activation_scale,
    best_weight_scale,
    power_of_two,
    quantize_weight,
    requantize,
    round_half_up,
)


@dataclasses.dataclass(frozen=True)
class Widths:
    """Signed weight bits of every layer, unsigned activation bits, and what happens at overflow."""

    weights: tuple[int, ...]
    activations: int = 4
    rule: Rule = "saturate"
    learn_scales: bool = False

    def __post_init__(self):
        if len(self.weights) != len(LAYERS) or not all(2 <= b <= 8 for b in self.weights):
            raise ValueError(f"{len(LAYERS)} weight widths in 2..8 expected, got {self.weights}")
        if not 1 <= self.activations <= 8:
            raise ValueError(f"activation bits must be in 1..8, got {self.activations}")
        if self.rule not in ("saturate", "wrap"):
            raise ValueError(f"rule must be saturate or wrap, got {self.rule!r}")

    @staticmethod
    def parse(text: str, rule: Rule = "saturate", learn_scales: bool = False) -> "Widths":
        """Reads "W4A4", "W2A4" (first layer and FC then keep 4 bits) or "4,2,2,2,2,2,2,4/A4"."""
        try:
            head, activations = text.upper().removeprefix("W").split("A")
            bits = [int(b) for b in head.rstrip("/").split(",")]
            if len(bits) == 1:
                ends = max(bits[0], 4)
                bits = [ends] + bits * (len(LAYERS) - 2) + [ends]
            return Widths(tuple(bits), int(activations), rule, learn_scales)
        except ValueError as error:
            raise ValueError(
                f"widths like W4A4 or 4,2,2,2,2,2,2,4/A4 expected, got {text!r}: {error}"
            ) from error


class QuantLayer(nnx.Module):
    """Weights, bias and scales of one layer; real-valued parameters, integer forward pass."""

    def __init__(self, layer: Layer, bits: int):
        shape = (layer.window, layer.window, layer.in_channels, layer.out_channels)
        self.kernel = nnx.Param(jnp.zeros(shape if layer.window else shape[2:], jnp.float32))
        self.bias = nnx.Param(jnp.zeros(layer.out_channels, jnp.float32))
        self.weight_scale = nnx.Param(jnp.zeros((), jnp.float32))
        self.out_scale = nnx.Param(jnp.zeros((), jnp.float32))
        self.layer, self.bits = layer, bits

    def integers(
        self, in_scale: Float[Array, ""], learn: bool
    ) -> tuple[Float[Array, "..."], Float[Array, " k"], Float[Array, ""]]:
        """Integer kernel, integer bias at the accumulator's scale, and that scale."""
        scale = whole(self.weight_scale[...], learn)
        acc_scale = in_scale + scale
        kernel = quantize_weight(self.kernel[...], scale, self.bits)
        return kernel, round_half_up(self.bias[...] * power_of_two(acc_scale)), acc_scale

    def __call__(
        self, x: Float[Array, "b ..."], in_scale: Float[Array, ""], learn: bool
    ) -> tuple[Float[Array, "b ..."], Float[Array, ""]]:
        """The accumulator after ReLU and pooling (raw for the FC), and its scale."""
        kernel, bias, scale = self.integers(in_scale, learn)
        if not self.layer.window:
            return dense(x.reshape(x.shape[0], -1), kernel) + bias, scale
        x = nnx.relu(conv(x, kernel) + bias)
        return (pool_sum(x), scale + 2.0) if self.layer.pool else (x, scale)


class QuantMiniONN(nnx.Module):
    """The integer network; trainable because its quantizers pass gradients straight through."""

    def __init__(self, widths: Widths):
        self.layers = nnx.List(
            [QuantLayer(layer, bits) for layer, bits in zip(LAYERS, widths.weights, strict=True)]
        )
        self.widths = widths

    def __call__(self, x: Int[Array, "b 32 32 3"]) -> Float[Array, "b 10"]:
        """Real-valued logits: the integer accumulator over its scale."""
        logits, scale = self.accumulate(x)
        return logits * power_of_two(-scale)

    def accumulate(
        self, x: Int[Array, "b 32 32 3"]
    ) -> tuple[Float[Array, "b 10"], Float[Array, ""]]:
        """The last layer's integer accumulator and its scale."""
        learn, widths = self.widths.learn_scales, self.widths
        x, scale = x.astype(jnp.bfloat16), jnp.float32(INPUT_SCALE_BITS)
        for layer in self.layers:
            x, acc_scale = layer(x, scale, learn)
            if layer.layer.window:
                scale = whole(layer.out_scale[...], learn)
                x = requantize(x, acc_scale - scale, widths.activations, widths.rule)
                x = x.astype(jnp.bfloat16)  # exact: at most 8 bits
        return x, acc_scale


def whole(scale: Float[Array, ""], learn: bool) -> Float[Array, ""]:
    """The integer nearest to a log2 scale, with the identity's gradient if scales are learned."""
    nearest = lax.stop_gradient(jnp.round(scale))
    return nearest + (scale - lax.stop_gradient(scale)) if learn else nearest


def calibrate(
    net: QuantMiniONN, folded: list[tuple[np.ndarray, np.ndarray]], x: Int[Array, "b 32 32 3"]
) -> None:
    """Puts folded float weights into `net` and chooses scales by least squared error.

    Args:
      net: changed in place.
      folded: (kernel, bias) of every layer, see `fold.fold_batch_norm`.
      x: integer calibration images; every layer sees its already quantized predecessors.
    """
    value, scale = jnp.asarray(x).astype(jnp.bfloat16), jnp.float32(INPUT_SCALE_BITS)
    for layer, (kernel, bias) in zip(net.layers, folded, strict=True):
        layer.kernel[...], layer.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
        layer.weight_scale[...] = jnp.float32(best_weight_scale(kernel, layer.bits))
        value, acc_scale = layer(value, scale, False)
        if layer.layer.window:
            real = np.asarray(value * power_of_two(-acc_scale))
            best = best_activation_scale(real, net.widths.activations, net.widths.rule)
            scale = layer.out_scale[...] = jnp.float32(min(best, int(acc_scale)))
            value = requantize(value, acc_scale - scale, net.widths.activations, net.widths.rule)
            value = value.astype(jnp.bfloat16)
