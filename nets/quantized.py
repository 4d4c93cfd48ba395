"""Any architecture with quantized weights and activations, on integers exactly as inference does.

Layer:  conv -> + bias -> [+ residual at the accumulator's scale] -> ReLU -> [sum of the pool's windows]
        -> requantize.

A tensor that is added later is a residual: it keeps more bits, and convolutions read its top bits. All
tensors are integers held in floats; the logits are divided by their scale only for the loss.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from nets.architecture import INPUT, AnyNode, Architecture, Average, Largest, Layer, Shortcut
from nets.conv import dense, layer_conv
from nets.data import INPUT_SCALE_BITS
from nets.floating import largest, pool_sum, shortcut
from nets.quantizer import (
    Rule,
    best_activation_scale,
    best_weight_scale,
    floor_shift,
    power_of_two,
    quantize_weight,
    requantize,
    round_half_up,
)
from pqjax.errors import GraphError

RESIDUAL_BITS = 8


@dataclasses.dataclass(frozen=True)
class Widths:
    """Bits of every tensor, and what happens at overflow.

    Attributes:
      weights: signed weight bits of every layer.
      activations: bits of what convolutions read, the sign bit (known to be 0) included where the
        architecture's formats are signed.
      rule: at overflow.
      learn_scales: whether log2 scales are trained.
      residual: bits of tensors that are added later.
      head: bits of what the FC reads; 0 for as many as `activations`.
    """

    weights: tuple[int, ...]
    activations: int = 4
    rule: Rule = "saturate"
    learn_scales: bool = False
    residual: int = RESIDUAL_BITS
    head: int = 0

    def __post_init__(self):
        if not self.weights or not all(2 <= b <= 8 for b in self.weights):
            raise ValueError(f"weight widths in 2..8 expected, got {self.weights}")
        if not 1 <= self.activations <= 8:
            raise ValueError(f"activation bits must be in 1..8, got {self.activations}")
        if not self.activations <= self.residual <= 16:
            raise ValueError(
                f"residual bits from {self.activations} (as activations) to 16 expected, got "
                f"{self.residual}"
            )
        if not 0 <= self.head <= 8:
            raise ValueError(f"bits of what the FC reads must be in 0..8, got {self.head}")
        if self.rule not in ("saturate", "wrap"):
            raise ValueError(f"rule must be saturate or wrap, got {self.rule!r}")

    @staticmethod
    def parse(
        text: str, architecture: Architecture, rule: Rule = "saturate", learn_scales: bool = False
    ) -> "Widths":
        """Reads "W4A4", "W3A6R8" (first layer and FC keep at least 4 bits) or "4,2,...,4/A4"."""
        layers = len(architecture.layers)
        found = re.fullmatch(r"W?([\d,]+)/?A(\d+)(?:R(\d+))?", text.upper())
        if found is None:
            raise ValueError(f"widths like W4A4, W3A6R8 or 4,2,...,4/A4 expected, got {text!r}")
        bits = [int(b) for b in found[1].split(",") if b]
        if len(bits) == 1:
            ends = max(bits[0], 4)
            bits = [ends] + bits * (layers - 2) + [ends]
        if len(bits) != layers:
            raise ValueError(
                f"{architecture.name} has {layers} weight layers, got {len(bits)} widths in {text!r}"
            )
        residual = int(found[3]) if found[3] else max(RESIDUAL_BITS, int(found[2]))
        head = 8 if architecture.signed else 0
        return Widths(tuple(bits), int(found[2]), rule, learn_scales, residual, head)

    @property
    def averaged(self) -> int:
        """Bits of what is averaged into what the FC reads."""
        return self.head or min(self.residual, 8)

    def out_bits(self, architecture: Architecture, layer: Layer) -> int:
        """Bits that a layer's requantization leaves, a sign bit included."""
        if layer.name in architecture.averaged:
            return self.averaged
        if layer.name in architecture.residuals:
            return self.residual
        reader = architecture.only_reader(layer.name)
        if reader is not None and not reader.window and self.head:
            return self.head
        return self.activations


class QuantLayer(nnx.Module):
    """Weights, bias and scales of one layer; real-valued parameters, integer forward pass."""

    def __init__(self, layer: Layer, bits: int):
        self.kernel = nnx.Param(jnp.zeros(layer.kernel, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(layer.out_channels, jnp.float32))
        self.weight_scale = nnx.Param(jnp.zeros((), jnp.float32))
        self.out_scale = nnx.Param(jnp.zeros((), jnp.float32))
        self.layer, self.bits = layer, bits
        self.cap: int | None = None  # where the ReLU stops below the top of its format

    def integers(
        self, in_scale: Float[Array, ""], learn: bool
    ) -> tuple[Float[Array, "..."], Float[Array, " k"], Float[Array, ""]]:
        """Integer kernel, integer bias at the accumulator's scale, and that scale."""
        scale = whole(self.weight_scale[...], learn)
        acc_scale = in_scale + scale
        kernel = quantize_weight(self.kernel[...], scale, self.bits)
        return kernel, round_half_up(self.bias[...] * power_of_two(acc_scale)), acc_scale

    def product(self, x: "Scaled", learn: bool) -> "Scaled":
        """Weights times operand plus bias: the accumulator before anything is done to it."""
        kernel, bias, scale = self.integers(x.scale, learn)
        if not self.layer.window:
            flat = x.integers.reshape(x.integers.shape[0], -1)
            return Scaled(dense(flat, kernel) + bias, scale)
        return Scaled(layer_conv(x.integers, kernel, self.layer) + bias, scale)

    def __call__(self, x: "Scaled", plus: "Scaled | None", learn: bool) -> "Scaled":
        """The accumulator after addition, ReLU and pooling (raw for the FC), with its scale."""
        product = self.product(x, learn)
        y, scale = product.integers, product.scale
        if not self.layer.window:
            return product
        if plus is not None:
            y = y + plus.integers.astype(jnp.float32) * power_of_two(scale - plus.scale)
        y = nnx.relu(y) if self.layer.relu else y
        if self.layer.pool == 1:
            return Scaled(y, scale)
        area_bits = 2.0 * np.log2(self.layer.pool)
        return Scaled(pool_sum(y, self.layer.pool), scale + area_bits)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scaled:
    """Integers held in floats; the real values are integers / 2^scale."""

    integers: Float[Array, "b ..."]
    scale: Float[Array, ""]


class QuantNet(nnx.Module):
    """The integer network; trainable because its quantizers pass gradients straight through."""

    def __init__(self, architecture: Architecture, widths: Widths):
        if len(widths.weights) != len(architecture.layers):
            raise ValueError(
                f"{architecture.name} has {len(architecture.layers)} weight layers, got "
                f"{len(widths.weights)} widths"
            )
        if architecture.signed and widths.rule == "wrap":
            raise ValueError(
                f"{architecture.name}'s activations are formats with a known sign bit: values that wrap "
                "would lose it; use the rule saturate"
            )
        self.layers = nnx.List(
            [QuantLayer(*pair) for pair in zip(architecture.layers, widths.weights, strict=True)]
        )
        self.architecture, self.widths = architecture, widths

    def __call__(self, x: Int[Array, "b h w 3"]) -> Float[Array, "b n"]:
        """Real-valued logits: the integer accumulator over its scale."""
        logits, scale = self.accumulate(x)
        return logits * power_of_two(-scale)

    def accumulate(self, x: Int[Array, "b h w 3"]) -> tuple[Float[Array, "b n"], Float[Array, ""]]:
        """The last layer's integer accumulator and its scale."""
        values = _input(x)
        layers = iter(self.layers)
        for node in self.architecture.nodes:
            if isinstance(node, Layer):
                values[node.name] = self.step(next(layers), values)
            else:
                values[node.name] = self.between(node, values)
        last = values[self.architecture.nodes[-1].name]
        return last.integers, last.scale

    def step(self, layer: QuantLayer, values: dict[str, Scaled]) -> Scaled:
        """A layer's output from the tensors that it reads."""
        learn, node = self.widths.learn_scales, layer.layer
        plus = values[node.plus] if node.plus else None
        acc = layer(self.operand(node.source, values), plus, learn)
        if not node.window:
            return acc
        return self.fitted(layer, acc, whole(layer.out_scale[...], learn))

    def between(self, node: AnyNode, values: dict[str, Scaled]) -> Scaled:
        """A node without weights, on the integers that it reads."""
        if isinstance(node, Average):
            source = values[node.source]
            total = source.integers.astype(jnp.float32).sum((1, 2), keepdims=True)
            bits = self.widths.averaged - self.architecture.signed
            y = requantize(total * node.multiplier, jnp.float32(node.shift), bits)
            return Scaled(y.astype(jnp.bfloat16), source.scale)  # at most 8 bits
        source = values[node.source]
        if isinstance(node, Largest):
            return Scaled(largest(source.integers, node), source.scale)
        assert isinstance(node, Shortcut)
        return Scaled(shortcut(source.integers, node), source.scale)

    def fitted(self, layer: QuantLayer, acc: Scaled, scale: Float[Array, ""]) -> Scaled:
        """A layer's accumulator in the format of its output."""
        bits = self.magnitude(layer.layer)
        negative = not layer.layer.relu
        rule, cap = self.widths.rule, layer.cap
        y = requantize(acc.integers, acc.scale - scale, bits, rule, negative, cap)
        return Scaled(y.astype(jnp.bfloat16) if bits <= 8 else y, scale)  # exact either way

    def magnitude(self, layer: Layer) -> int:
        """Bits of a layer's output without its sign bit."""
        signed = self.architecture.signed or not layer.relu
        return self.widths.out_bits(self.architecture, layer) - signed

    def operand(self, name: str, values: dict[str, Scaled]) -> Scaled:
        """What a weight layer reads: of a residual the top bits."""
        value = values[name]
        if name not in self.architecture.residuals:
            return value
        short = floor_shift(value.integers.astype(jnp.float32), self.cut)
        return Scaled(short.astype(jnp.bfloat16), value.scale - self.cut)

    @property
    def cut(self) -> int:
        """Bits of a residual that convolutions do not read."""
        return self.widths.residual - self.widths.activations


def _input(x: Int[Array, "b h w 3"]) -> dict[str, Scaled]:
    return {INPUT: Scaled(jnp.asarray(x).astype(jnp.bfloat16), jnp.float32(INPUT_SCALE_BITS))}


def whole(scale: Float[Array, ""], learn: bool) -> Float[Array, ""]:
    """The integer nearest to a log2 scale, with the identity's gradient if scales are learned."""
    nearest = lax.stop_gradient(jnp.round(scale))
    return nearest + (scale - lax.stop_gradient(scale)) if learn else nearest


def calibrate(
    net: QuantNet, folded: list[tuple[np.ndarray, np.ndarray]], x: Int[Array, "b h w 3"]
) -> None:
    """Puts folded float weights into `net` and chooses scales by least squared error.

    Args:
      net: changed in place.
      folded: (kernel, bias) of every layer, see `fold.fold_batch_norm`.
      x: integer calibration images; every layer sees its already quantized predecessors.

    Raises:
      GraphError: a residual has a finer scale than the accumulator it is added to.
    """
    values = _input(x)
    layers = iter(zip(net.layers, folded, strict=True))
    for node in net.architecture.nodes:
        if not isinstance(node, Layer):
            values[node.name] = net.between(node, values)
            continue
        layer, (kernel, bias) = next(layers)
        layer.kernel[...], layer.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
        layer.weight_scale[...] = jnp.float32(best_weight_scale(kernel, layer.bits))
        plus = values[node.plus] if node.plus else None
        acc = layer(net.operand(node.source, values), plus, False)
        if plus is not None and acc.scale - 2 * np.log2(node.pool) < plus.scale:
            raise GraphError(
                f"{node.name}: the residual {node.plus} has scale {int(plus.scale)}, finer than the "
                f"accumulator's {int(acc.scale)}, and cannot be aligned: use more weight bits or "
                "fewer residual bits"
            )
        if node.window:
            real = np.asarray(acc.integers * power_of_two(-acc.scale))
            bits, rule = net.magnitude(node), net.widths.rule
            best = best_activation_scale(real, bits, rule, negative=not node.relu)
            scale = layer.out_scale[...] = jnp.float32(min(best, int(acc.scale)))
            values[node.name] = net.fitted(layer, acc, scale)
