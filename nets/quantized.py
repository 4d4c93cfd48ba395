"""Any architecture with quantized weights and activations, on integers exactly as inference does.

Layer:  conv -> + bias -> [+ residual at the accumulator's scale] -> ReLU -> [sum of the pool's windows]
        -> requantize (`nets.steps.Fit`).

A tensor that is added later is a residual: it keeps more bits, and convolutions read its top bits. All
tensors are integers held in floats; the logits are divided by their scale only for the loss.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from nets import ops
from nets.conv import dense, layer_conv
from nets.data import INPUT_SCALE_BITS
from nets.floating import CARRIERS, window_sum
from nets.fold import Folded
from nets.ops import INPUT, Architecture, Op, Rules, rule_of, walk
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
from nets.steps import Average, Capped, Cut, Fit, Joined, Role, steps

RESIDUAL_BITS = 8
EXACT = 1 << 24  # integers up to here are exact in f32


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
            bits = ([ends] + bits * (layers - 2) + [ends])[:layers]
        if len(bits) != layers:
            raise ValueError(
                f"{architecture.name} has {layers} weight layers, got {len(bits)} widths in {text!r}"
            )
        residual = int(found[3]) if found[3] else max(RESIDUAL_BITS, int(found[2]))
        head = 8 if architecture.signed else 0
        return Widths(tuple(bits), int(found[2]), rule, learn_scales, residual, head)

    def bits(self, role: Role) -> int:
        """Of a tensor, a sign bit included."""
        return {
            "input": 8,
            "activations": self.activations,
            "residual": self.residual,
            "averaged": self.head or min(self.residual, 8),
            "head": self.head or self.activations,
        }[role]

    @property
    def cut(self) -> int:
        """Bits of a residual that layers do not read."""
        return self.residual - self.activations


class QuantLayer(nnx.Module):
    """Weights, bias and scales of one layer; real-valued parameters, integer forward pass."""

    def __init__(self, architecture: Architecture, op: ops.Linear, bits: int, fit: Fit | None):
        self.kernel = nnx.Param(jnp.zeros(architecture.kernel(op), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(op.channels, jnp.float32))
        self.weight_scale = nnx.Param(jnp.zeros((), jnp.float32))
        self.out_scale = nnx.Param(jnp.zeros((), jnp.float32))
        self.op, self.bits = op, bits
        # The largest value that its ReLU lets through, before quantization.
        self.cap = fit.capped.cap if fit and fit.capped else None

    def integers(
        self, in_scale: Float[Array, ""], learn: bool
    ) -> tuple[Float[Array, "..."], Float[Array, " k"], Float[Array, ""]]:
        """Integer kernel, integer bias at the accumulator's scale, and that scale."""
        scale = whole(self.weight_scale[...], learn)
        acc_scale = in_scale + scale
        kernel = quantize_weight(self.kernel[...], scale, self.bits)
        return kernel, round_half_up(self.bias[...] * power_of_two(acc_scale)), acc_scale

    def high(self, scale: Float[Array, ""], bits: int) -> float | Float[Array, ""]:
        """The largest integer of its output: its format's, or the ReLU's cap if that lies below."""
        top = 2**bits - 1
        if self.cap is None:
            return top
        return jnp.minimum(round_half_up(self.cap * power_of_two(scale)), top)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scaled:
    """Integers held in floats; the real values are integers / 2^scale."""

    integers: Float[Array, "b ..."]
    scale: Float[Array, ""]


class QuantNet(nnx.Module):
    """The integer network; trainable because its quantizers pass gradients straight through.

    Raises:
      GraphError: an average is of so many values, or a sum of so few bits, that these widths do not
        serve.
    """

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
        fits = {step.layer: step for step in steps(architecture) if isinstance(step, Fit)}
        layers = zip(architecture.layers, widths.weights, strict=True)
        self.layers = nnx.List(
            [QuantLayer(architecture, op, bits, fits.get(op.name)) for op, bits in layers]
        )
        self.architecture, self.widths = architecture, widths
        joins = [step.name for step in self.steps if isinstance(step, Joined)]
        self.joined_names = tuple(joins)
        self.join_scales = nnx.List([nnx.Param(jnp.zeros((), jnp.float32)) for _ in joins])
        for step in self.steps:
            self._check(step)

    def _check(self, step: Op) -> None:
        rule_of(step, self.rules())
        if isinstance(step, Average):
            bits = self.magnitude(step.fit)
            if (step.growth << bits) + (1 << step.shift >> 1) > EXACT:
                raise step.fault(
                    f"it averages {step.area} values of {bits} bits: their sum does not fit the "
                    f"{EXACT.bit_length() - 1} bits in which training is exact; average smaller windows "
                    "(of 2^k values if possible) before"
                )
        if isinstance(step, Joined) and self.magnitude(step.fit) <= step.spare:
            raise step.fault(
                f"a sum of {self.magnitude(step.fit)} bits without its sign leaves its summands none: "
                "give residuals more bits"
            )

    @property
    def steps(self) -> tuple[Op, ...]:
        """What it computes, in order."""
        return steps(self.architecture)

    def layer(self, name: str) -> QuantLayer:
        """Of a convolution or dense layer."""
        return next(layer for layer in self.layers if layer.op.name == name)

    def join_scale(self, op: Joined) -> nnx.Param:
        """Of the format of a sum or concatenation."""
        return self.join_scales[self.joined_names.index(op.name)]

    def __call__(self, x: Int[Array, "b h w c"]) -> Float[Array, "b n"]:
        """Real-valued logits: the integer accumulator over its scale."""
        logits, scale = self.accumulate(x)
        return logits * power_of_two(-scale)

    def accumulate(self, x: Int[Array, "b h w c"]) -> tuple[Float[Array, "b n"], Float[Array, ""]]:
        """The last layer's integer accumulator and its scale."""
        last = walk(self.steps, self.rules(), input_values(x))
        return last.integers, last.scale

    def rules(self) -> Rules[Scaled]:
        """What every kind of step does."""
        return {
            **{kind: _carried(rule) for kind, rule in CARRIERS.items() if kind is not ops.Concat},
            ops.Conv: self.product,
            ops.Dense: self.product,
            ops.Add: aligned_sum,
            ops.Relu: lambda op, x: Scaled(nnx.relu(x.integers), x.scale),
            ops.AvgPool: self.total,
            Average: self.average,
            Capped: capped,
            Joined: self.joined,
            Fit: self.fitted,
            Cut: self.top_bits,
        }

    def product(self, op: ops.Linear, x: Scaled) -> Scaled:
        """Weights times operand plus bias: the accumulator before anything is done to it."""
        kernel, bias, scale = self.layer(op.name).integers(x.scale, self.widths.learn_scales)
        product = dense if isinstance(op, ops.Dense) else functools.partial(layer_conv, op=op)
        return Scaled(product(x.integers, kernel) + bias, scale)

    def total(self, op: ops.AvgPool, x: Scaled) -> Scaled:
        """Averages of 2^k values: sums, whose scale is k more."""
        return Scaled(window_sum(x.integers, op.window, op.stride), x.scale + math.log2(op.area))

    def average(self, op: Average, x: Scaled) -> Scaled:
        """Averages in the format of their source."""
        total = window_sum(x.integers.astype(jnp.float32), op.window, op.stride, op.padding)
        total = total * op.factors(x.integers.shape[1:]).astype(np.float32)
        bits, shift = self.magnitude(op.fit), jnp.float32(op.shift)
        y = requantize(total, shift, bits, negative=op.fit.negative)
        return Scaled(_narrow(y, bits), x.scale)

    def joined(self, op: Joined, *x: Scaled) -> Scaled:
        """The tensors in one format, of which a sum leaves a bit free, then the sum or all of them."""
        bits = self.magnitude(op.fit)
        room = bits - op.spare
        scale = whole(self.join_scale(op)[...], self.widths.learn_scales)
        fits = functools.partial(requantize, bits=room, negative=op.fit.negative)
        parts = [fits(each.integers.astype(jnp.float32), each.scale - scale) for each in x]
        made = functools.reduce(jnp.add, parts) if op.spare else jnp.concatenate(parts, -1)
        return Scaled(_narrow(made, bits), scale)

    def choosing(self, op: Joined, *x: Scaled) -> Scaled:
        """The same, at the scale of least squared error for these values, which it keeps."""
        real = [
            np.asarray(each.integers.astype(jnp.float32)) / 2.0 ** int(each.scale) for each in x
        ]
        flat = np.concatenate([each.ravel() for each in real])
        room = self.magnitude(op.fit) - op.spare
        best = best_activation_scale(flat, room, negative=op.fit.negative)
        self.join_scale(op)[...] = jnp.float32(best)
        return self.joined(op, *x)

    def fitted(self, fit: Fit, acc: Scaled) -> Scaled:
        """A layer's accumulator in the format of its output."""
        layer, bits = self.layer(fit.layer), self.magnitude(fit)
        scale = whole(layer.out_scale[...], self.widths.learn_scales)
        cap = None if layer.cap is None else layer.high(scale, bits)
        rule = self.widths.rule
        y = requantize(acc.integers, acc.scale - scale, bits, rule, fit.negative, cap)
        return Scaled(_narrow(y, bits), scale)

    def top_bits(self, cut: Cut, x: Scaled) -> Scaled:
        """What layers read of a residual."""
        short = floor_shift(x.integers.astype(jnp.float32), self.widths.cut)
        return Scaled(short.astype(jnp.bfloat16), x.scale - self.widths.cut)

    def magnitude(self, fit: Fit) -> int:
        """Bits of a tensor without its sign bit."""
        return self.widths.bits(fit.role) - (self.architecture.signed or fit.negative)


def _carried(rule: Callable[..., jax.Array]) -> Callable[..., Scaled]:
    """A rule that moves values, for integers with a scale."""
    return lambda op, x: Scaled(rule(op, x.integers), x.scale)


def _narrow(y: jax.Array, bits: int) -> jax.Array:
    """Exact either way."""
    return y.astype(jnp.bfloat16) if bits <= 8 else y


def capped(op: Capped, x: Scaled) -> Scaled:
    """A ReLU whose cap is rounded to the tensor's scale."""
    top = round_half_up(jnp.asarray(op.cap) * power_of_two(x.scale))
    return Scaled(jnp.minimum(nnx.relu(x.integers), top.astype(x.integers.dtype)), x.scale)


def aligned_sum(op: ops.Add, acc: Scaled, plus: Scaled) -> Scaled:
    """An accumulator and a tensor at the finer of their scales: nothing is lost."""
    scale = jnp.maximum(acc.scale, plus.scale)
    parts = [x.integers.astype(jnp.float32) * power_of_two(scale - x.scale) for x in (acc, plus)]
    return Scaled(parts[0] + parts[1], scale)


def input_values(x: Int[Array, "b h w c"]) -> dict[str, Scaled]:
    """The input, by its name."""
    return {INPUT: Scaled(jnp.asarray(x).astype(jnp.bfloat16), jnp.float32(INPUT_SCALE_BITS))}


def whole(scale: Float[Array, ""], learn: bool) -> Float[Array, ""]:
    """The integer nearest to a log2 scale, with the identity's gradient if scales are learned."""
    nearest = lax.stop_gradient(jnp.round(scale))
    return nearest + (scale - lax.stop_gradient(scale)) if learn else nearest


def calibrate(net: QuantNet, folded: Folded, x: Int[Array, "b h w c"]) -> None:
    """Puts folded float weights into `net` and chooses scales by least squared error.

    Args:
      net: changed in place.
      folded: (kernel, bias) of every layer, see `fold.fold_batch_norm`.
      x: integer calibration images; every layer sees its already quantized predecessors.
    """
    of = dict(zip((layer.op.name for layer in net.layers), folded, strict=True))

    def product(op: ops.Linear, x: Scaled) -> Scaled:
        layer, (kernel, bias) = net.layer(op.name), of[op.name]
        layer.kernel[...], layer.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
        layer.weight_scale[...] = jnp.float32(best_weight_scale(kernel, layer.bits))
        return net.product(op, x)

    def fitted(fit: Fit, acc: Scaled) -> Scaled:
        layer = net.layer(fit.layer)
        real = np.asarray(acc.integers * power_of_two(-acc.scale))
        real = real if layer.cap is None else np.minimum(real, layer.cap)
        best = best_activation_scale(real, net.magnitude(fit), net.widths.rule, fit.negative)
        layer.out_scale[...] = jnp.float32(min(best, int(acc.scale)))
        return net.fitted(fit, acc)

    chosen = {ops.Conv: product, ops.Dense: product, Fit: fitted, Joined: net.choosing}
    walk(net.steps, {**net.rules(), **chosen}, input_values(x))
