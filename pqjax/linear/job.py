"""A linear layer to be computed: its geometry and the formats of what it multiplies and sums."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from pqjax.graph.ir import TensorType
from pqjax.linear.choice import Form
from pqjax.linear.map import Image, LinearMap
from pqjax.ring import Ring, conv
from pqjax.wire.cost import Cost, work


@dataclasses.dataclass(frozen=True)
class Job:
    """One linear layer without its bias: signed weights of `w_bits`, an accumulator of L = `bits`.

    Its shares are to have `guard` guard bits (`TensorType`), or as many as the method leaves. Squares of
    a filter's weights sum to 2^square_bits at most, if that is known. Unless it `overflows`, the
    accumulator holds sums with their bias, and with any part of their terms.
    """

    map: LinearMap
    w_bits: int
    x: TensorType
    bits: int
    guard: int = 0
    square_bits: int | None = None
    overflows: bool = False

    @property
    def exact_bits(self) -> int:
        """The accumulator's bits and all guard bits but the one that exact shares need in any case."""
        return self.bits + max(1, self.guard) - 1

    def in_form(self, form: Form) -> "Job":
        """What is multiplied: by patches, the columns of `LinearMap.im2col`."""
        if form == "pixels":
            return self
        x = dataclasses.replace(self.x, shape=self.map.columns.in_shape)
        return dataclasses.replace(self, map=self.map.columns, x=x)


class Parts(NamedTuple):
    """What a layer costs: in every phase, part by part, by the names that reports give them."""

    install: Mapping[str, Cost] = {}
    offline: Mapping[str, Cost] = {}
    online: Mapping[str, Cost] = {}


@dataclasses.dataclass(frozen=True, repr=False)  # the model
class Encoded:
    """Rank 0's weights, made ready once a process: narrow and read-only. Methods may extend it."""

    weights: Int[np.ndarray, "h w fan_in K"]


def narrowed(job: Job, weights: Integer[np.ndarray, " *w"]) -> Int[np.ndarray, "h w fan_in K"]:
    """Weights of the map's shape, or a dense layer's, in the fewest bytes and read-only."""
    found = np.array(weights, f"i{Ring(job.w_bits).dtype.itemsize}").reshape(job.map.weight_shape)
    found.flags.writeable = False
    return found


def multiply_plain(
    job: Job, encoded: Encoded, x: Image, x_bits: int | None = None, x_signed: bool = False
) -> Image:
    """W x in Ring(L) on numbers that rank 0 has: elements of Ring(L), bounded as in `ring.conv`."""
    m, weights = job.map, encoded.weights.reshape(job.map.weight_shape)
    shape = m.stride, m.padding, m.groups, m.dilation
    bounds = {"x_bits": x_bits, "x_signed": x_signed, "w_bits": job.w_bits, "w_signed": True}
    images = x.reshape(-1, *x.shape[-3:])
    return np.asarray(conv(images, weights, Ring(job.bits), *shape, **bounds)).reshape(m.out_shape)


def plain_work(job: Job, x_bits: int) -> Cost:
    """What `multiply_plain` takes rank 0, on numbers of so many bits."""
    return work("macs", job.map.pairs * -(-x_bits // 8) * -(-job.w_bits // 8), 0)


def filling(job: Job, x: Image) -> Image:
    """Own share of an operand, in Ring(L).

    One that is narrower is the client's own input, which one party has in the clear and the other as 0.
    """
    lift = job.x.signed and job.x.bits < job.bits
    return Ring(job.bits).reduce(Ring(job.x.bits).signed(x) if lift else x)


def unfilled(job: Job, own: bool) -> str | None:
    """Why an operand does not fill the accumulator's ring and cannot be made to; None where it does."""
    if job.x.bits >= job.bits or own:
        return None
    return (
        f"needs an operand of {job.bits} bits, got {job.x.bits}: its preset lacks a pass that extends "
        "operands"
    )
