"""Convolutions as the tables name them, priced choice by choice and run between two parties."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.formulas import extra_bits
from experiments.two_threads import Call, share
from pqjax.graph.ir import TensorType
from pqjax.linear import PRIVQUANT, ByOt, Job, LinearMap, on_shares, on_shares_cost
from pqjax.ot.source import Source
from pqjax.planner import find_preset
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.protocols.resize import truncate_reduce, truncate_reduce_cost
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost

GIB = 8 * 2**30  # bits
MIB = 8 * 2**20


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of stride 1 whose output is as large as its input."""

    resolution: int
    inputs: int
    outputs: int
    kernel: int

    @property
    def name(self) -> str:
        """As the paper's table 9 writes it where inputs and outputs are as many."""
        same = self.inputs == self.outputs
        channels = self.inputs if same else f"{self.inputs}->{self.outputs}"
        return f"({self.resolution}, {channels}, {self.kernel})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(d1, d2, d3) of the product: outputs, patch, pixels."""
        return self.outputs, self.inputs * self.kernel**2, self.resolution**2


def published_layer(resolution: int, channels: int, kernel: int) -> Layer:
    """A layer of table 9: activation resolution, channels, kernel size."""
    return Layer(resolution, channels, channels, kernel)


def parse_widths(text: str) -> tuple[int, int]:
    """Weight and activation bits of a name like W2A4."""
    w, a = text.removeprefix("W").split("A")
    return int(w), int(a)


def product(shape: tuple[int, int, int], w_bits: int, x_bits: int, bits: int | None = None) -> Job:
    """A product of a signed X of unknown sign, by default with room for the sum of all its terms."""
    d1, d2, d3 = shape
    linear_map = LinearMap.pointwise((1, d3), d2, d1)
    wide = bits or w_bits + x_bits + extra_bits(d2)
    return Job(linear_map, w_bits, TensorType(linear_map.in_shape, x_bits, 0), wide)


def published_setting() -> tuple[Source, Forms]:
    """OT and forms of the small protocols as PrivQuant's code has them."""
    preset = find_preset("privquant")
    return preset.source, preset.forms


def choice_bits(shape: tuple[int, int, int], w_bits: int, x_bits: int) -> list[int]:
    """What the cost model says of choices (1) to (4)."""
    source, forms = published_setting()
    job = product(shape, w_bits, x_bits)
    return [on_shares_cost(source, ByOt(v, "patches"), job, forms).bits for v in PRIVQUANT]


def cheapest(bits: list[int]) -> int:
    """The number, from 1, of the cheapest choice."""
    return bits.index(min(bits)) + 1


def closing_cost(shape: tuple[int, int, int], w_bits: int, x_bits: int) -> Cost:
    """TR of the accumulator by e bits: how the public code ends a product that it accumulates."""
    d1, d2, d3 = shape
    e = extra_bits(d2)
    if not e:
        return NOTHING
    return truncate_reduce_cost(published_setting()[0], d1 * d3, w_bits + x_bits + e, e)


def product_call(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    w_bits: int,
    x_bits: int,
    variant: str,
    closing: bool,
) -> Call:
    """The product of random weights and a random shared operand, to be run between two parties.

    Args:
      rng: of weights, operand and shares.
      shape: d1, d2, d3.
      w_bits: width of the weights.
      x_bits: width of the operand.
      variant: one of the four choices.
      closing: whether TR by e bits follows, see `closing_cost`.
    """
    source, forms = published_setting()
    job, method = product(shape, w_bits, x_bits), ByOt(variant, "patches")
    weights = rng.integers(-(2 ** (w_bits - 1)), 2 ** (w_bits - 1), shape[:2])
    x = rng.integers(-(2 ** (x_bits - 1)), 2 ** (x_bits - 1), shape[1:])
    e = extra_bits(shape[1]) if closing else 0
    expected = np.rint(weights.astype(float) @ x.astype(float)).astype(np.int64) >> e

    def function(party: Party, plain: np.ndarray | None, own: np.ndarray) -> np.ndarray:
        image = own.T[None]
        if plain is None:
            y = on_shares.ask(party, method, job, image, forms)
        else:
            encoded = method.encode(job, plain.T)
            y = on_shares.serve(party, method, job, encoded, image, forms)
        y = np.ascontiguousarray(y[0].T)
        if not e:
            return y
        return truncate_reduce(party, y.reshape(-1), job.bits, e).reshape(y.shape)

    cost = on_shares_cost(source, method, job, forms)
    if closing:
        cost += closing_cost(shape, w_bits, x_bits)
    x0, x1 = share(rng, x, x_bits)
    name = f"{shape} W{w_bits}A{x_bits} {variant}"
    return Call(name, function, ((weights, x0), (None, x1)), Ring(job.bits - e), expected, cost)
