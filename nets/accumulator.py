"""How wide a quantized network's sums may grow, as a differentiable function of its weights.

A filter's largest sum is its positive weights times the operand's largest value plus its negative ones
times the smallest, whatever the image: the bound of A2Q (Colbert et al., 2023, section 3), of both signs
apart and with the bias, a residual, a pool's windows and the rounding addition. It is what `nets.export`
gives an accumulator its bits by, so training that lowers it makes narrower accumulators.
"""

from __future__ import annotations

import dataclasses
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from nets import ops
from nets.data import INPUT_SCALE_BITS
from nets.ops import INPUT, Architecture, Op, Rules, walk
from nets.quantized import QuantLayer, QuantNet, whole
from nets.quantizer import power_of_two
from nets.steps import Average, Capped, Cut, Fit, Joined
from pqjax.errors import GraphError
from pqjax.graph import width_for

NEARLY, SLACK = 0.75, 1.25  # of the filters so many may exceed the range by so much before training


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reach:
    """The integers that a tensor may hold, f32; of an open sum for every channel, else for all.

    Attributes:
      low: the smallest.
      high: the largest.
      scale: log2, as of `quantized.Scaled`.
      least: the smallest that its accumulator has held so far.
      most: the largest.
      top: 2^(l - 1) for the l bits that its accumulator is to have; 0 where nothing is asked.
      layer: whose sum it is.
    """

    low: Float[Array, "*k"]
    high: Float[Array, "*k"]
    scale: Float[Array, ""]
    least: Float[Array, "*k"]
    most: Float[Array, "*k"]
    top: Float[Array, ""]
    layer: str = dataclasses.field(default="", metadata={"static": True})

    def moved(self, low: jax.Array, high: jax.Array, **fields: typing.Any) -> Reach:
        """The same accumulator, holding these."""
        least = jnp.minimum(fields.pop("least", self.least), low)
        most = jnp.maximum(fields.pop("most", self.most), high)
        return dataclasses.replace(self, low=low, high=high, least=least, most=most, **fields)


def parse_bits(text: str, architecture: Architecture) -> tuple[int, ...]:
    """Reads "12" (all layers but the last, which is free) or "14,12,...,0" (0: free).

    Bits are those of a layer's sum and what is added to it; a pool of 2^k values takes k more.
    """
    layers = len(architecture.layers)
    if not all(part.isdigit() for part in text.split(",")):
        raise ValueError(f"accumulator bits like 12 or 14,12,...,0 expected, got {text!r}")
    bits = [int(part) for part in text.split(",")]
    bits = [*bits * (layers - 1), 0] if len(bits) == 1 else bits
    if len(bits) != layers or not all(b == 0 or 4 <= b <= 24 for b in bits):
        raise ValueError(
            f"{architecture.name} has {layers} weight layers, for each of which 4..24 bits or 0 are "
            f"expected, got {text!r}"
        )
    return tuple(bits)


def reaches(net: QuantNet, bits: tuple[int, ...] = ()) -> dict[str, Reach]:
    """What the accumulator of every layer reaches in its whole block, rounding addition included.

    A residual alone may not fit the asked bits; then these are as many as leave it half of the range.

    Args:
      net: the network; jit-compatible, differentiable in its weights and biases.
      bits: asked of every layer, see `parse_bits`; () for none.

    Returns:
      by layer's name; `top` is 2^(l - 1) of the bits asked.
    """
    asked = (
        dict(zip((op.name for op in net.architecture.layers), bits, strict=True)) if bits else {}
    )
    walked = _Walk(net, asked)
    zero = jnp.float32(0)
    low = jnp.float32(-net.architecture.zero)
    high = low + jnp.float32(255)
    first = Reach(low, high, jnp.float32(INPUT_SCALE_BITS), low, high, zero)
    last = walk(net.steps, walked.rules(), {INPUT: first})
    is_open = last.layer and last.layer not in walked.found  # no `Fit` follows the last sum
    return {**walked.found, last.layer: last} if is_open else walked.found


def excess(net: QuantNet, bits: tuple[int, ...]) -> Float[Array, ""]:
    """By how much sums leave the bits asked, over the bits' range, summed over all filters.

    Its gradient moves every nonzero weight of a filter that is too wide towards zero, alike (the
    subgradient of an l1 norm, which is what makes sums narrow), and those of others not at all.
    """
    total = jnp.float32(0)
    for reach in reaches(net, bits).values():
        over = nnx.relu(reach.most + 1 - reach.top) + nnx.relu(-reach.top - reach.least)
        total += jnp.where(reach.top > 0, (over / jnp.maximum(reach.top, 1)).sum(), 0)
    return total


def accumulator_bits(net: QuantNet) -> dict[str, int]:
    """Bits of every layer's accumulator: what `export` gives it."""
    return {
        name: width_for(int(jnp.min(reach.least)), int(jnp.max(reach.most)))
        for name, reach in reaches(net).items()
    }


def coarsen(net: QuantNet, bits: tuple[int, ...]) -> None:
    """Lowers weight scales until most filters nearly fit the bits asked, so that values keep their size.

    Training would else make the weights, and with them all that follows, as many times smaller.

    Args:
      net: calibrated; changed in place.
      bits: see `parse_bits`.
    """
    current = nnx.jit(lambda net: reaches(net, bits))
    for op in net.architecture.layers:  # in order: a layer's range follows from those before
        layer = net.layer(op.name)
        while True:
            reach = current(net)[op.name]
            size = jnp.quantile(jnp.maximum(reach.most + 1, -reach.least), NEARLY)
            shift = reach.scale - layer.out_scale[...]
            if not reach.top or size <= SLACK * reach.top or shift < 1:
                break
            layer.weight_scale[...] -= 1


def narrow(net: QuantNet, bits: tuple[int, ...]) -> int:
    """Lowers weights until all sums fit the bits asked; returns how many, which training left few.

    Those go first whose value was nearest to the next integer towards zero.

    Args:
      net: changed in place.
      bits: see `parse_bits`.

    Raises:
      GraphError: a filter's bias alone leaves them.
    """
    current = nnx.jit(lambda net: reaches(net, bits))
    lowered = 0
    for op in net.architecture.layers:  # in order: a layer's range follows from those before
        while step := _lowered(net.layer(op.name), current(net)[op.name]):
            lowered += step
    return lowered


def _lowered(layer: QuantLayer, reach: Reach) -> int:
    """Takes one from some weights of filters that are too wide; returns of how many."""
    top, most, least = (np.asarray(x) for x in (reach.top, reach.most, reach.least))
    over = np.maximum(most + 1 - top, -top - least)
    if not top or over.max() <= 0:
        return 0
    unit = np.float32(power_of_two(jnp.round(layer.weight_scale[...])))
    real = np.asarray(layer.kernel[...]) * unit
    flat = real.reshape(-1, real.shape[-1])
    limit = 2 ** (layer.bits - 1)
    integers = np.clip(np.floor(flat + 0.5), -limit, limit - 1)
    changed = 0
    for k in np.nonzero(over > 0)[0]:
        size = np.abs(integers[:, k])
        if not size.any():
            raise GraphError(
                f"{layer.op.name}: the bias of filter {k} alone leaves {top} and its sign"
            )
        # Those of one sign make the largest sum of what is not negative, the others the smallest.
        side = integers[:, k] > 0 if most[k] + 1 > top else integers[:, k] < 0
        lowerable = side if side.any() else size > 0
        # A unit of weight takes at most this much of either end, so none is lowered in vain.
        share = (most[k] - least[k]) / size.sum()
        count = min(max(1, int(over[k] / share)), int(lowerable.sum()))
        spare = np.where(lowerable, np.abs(flat[:, k]) - size, np.inf)
        places = np.argsort(spare, kind="stable")[:count]
        flat[places, k] = integers[places, k] - np.sign(integers[places, k])
        changed += count
    layer.kernel[...] = jnp.asarray((flat / unit).reshape(real.shape))
    return changed


class _Walk:
    """The rules, and what they found of every closed block."""

    def __init__(self, net: QuantNet, asked: dict[str, int]):
        self.net, self.asked = net, asked
        self.found: dict[str, Reach] = {}

    def rules(self) -> Rules[Reach]:
        carried = (ops.MaxPool, ops.Flatten, ops.Subsample, ops.Pad, ops.Take)
        return {
            **dict.fromkeys(carried, lambda op, x: x),
            ops.Conv: self.product,
            ops.Dense: self.product,
            ops.Add: self.sum,
            ops.Relu: self.relu,
            ops.AvgPool: self.total,
            Average: lambda op, x: self.format(op.fit, x.scale),
            Capped: self.relu,
            Joined: self.joined,
            Cut: self.cut,
            Fit: self.fit,
        }

    def product(self, op: ops.Linear, x: Reach) -> Reach:
        kernel, bias, scale = self.net.layer(op.name).integers(
            x.scale, self.net.widths.learn_scales
        )
        flat = kernel.reshape(-1, kernel.shape[-1])
        positive, negative = nnx.relu(flat).sum(0), nnx.relu(-flat).sum(0)
        # Zero padding puts 0 in the place of an operand.
        below = lax.stop_gradient(jnp.maximum(-x.low, 0))
        above = lax.stop_gradient(jnp.maximum(x.high, 0))
        low = bias - positive * below - negative * above
        high = bias + positive * above + negative * below
        asked = self.asked.get(op.name, 0)
        top = jnp.float32(2 ** (asked - 1) if asked else 0)
        return Reach(low, high, scale, low, high, top, op.name)

    def sum(self, op: ops.Add, acc: Reach, plus: Reach) -> Reach:
        scale = jnp.maximum(acc.scale, plus.scale)
        own, other = (power_of_two(scale - x.scale) for x in (acc, plus))
        low, high = acc.low * own + plus.low * other, acc.high * own + plus.high * other
        span = jnp.maximum(plus.high, -plus.low) * other
        room = 2 * power_of_two(jnp.ceil(jnp.log2(jnp.maximum(span, 1))))
        top = jnp.where(acc.top > 0, jnp.maximum(acc.top, room), 0)
        return acc.moved(
            low, high, scale=scale, top=top, least=acc.least * own, most=acc.most * own
        )

    def relu(self, op: Op, x: Reach) -> Reach:
        return x.moved(jnp.maximum(x.low, 0), jnp.maximum(x.high, 0))

    def total(self, op: ops.AvgPool, x: Reach) -> Reach:
        scale = x.scale + math.log2(op.area)
        return x.moved(x.low * op.area, x.high * op.area, scale=scale, top=x.top * op.area)

    def joined(self, op: Joined, *x: Reach) -> Reach:
        scale = whole(self.net.join_scale(op)[...], self.net.widths.learn_scales)
        return self.format(op.fit, scale)

    def cut(self, op: Cut, x: Reach) -> Reach:
        unit = 2.0**-self.net.widths.cut
        low, high = jnp.floor(x.low * unit), jnp.floor(x.high * unit)
        return Reach(low, high, x.scale - self.net.widths.cut, low, high, jnp.float32(0))

    def fit(self, op: Fit, acc: Reach) -> Reach:
        """Closes a block; what it passes on is its format, or less if its sums do not fill it."""
        scale = whole(self.net.layer(op.layer).out_scale[...], self.net.widths.learn_scales)
        shift = lax.stop_gradient(acc.scale - scale)
        half = jnp.floor(power_of_two(shift - 1))
        self.found[op.layer] = acc.moved(acc.low, acc.high + half)
        out = self.format(op, scale)
        reached = lax.stop_gradient(jnp.maximum(acc.high.max(), 0))
        reached = jnp.floor((reached + half) * power_of_two(-shift))
        high = jnp.minimum(out.high, reached) if self.net.widths.rule == "saturate" else out.high
        return dataclasses.replace(out, high=high, most=high)

    def format(self, fit: Fit, scale: jax.Array) -> Reach:
        """Every value of a tensor's format."""
        top = 2.0 ** self.net.magnitude(fit)
        low, high = jnp.float32(-top if fit.negative else 0), jnp.float32(top - 1)
        return Reach(low, high, scale, low, high, jnp.float32(0))
