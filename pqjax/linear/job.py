"""A linear layer to be computed: its geometry and the formats of what it multiplies and sums."""

import dataclasses

import numpy as np
from jaxtyping import Int

from pqjax.graph.ir import TensorType
from pqjax.linear.choice import Form
from pqjax.linear.map import Image, LinearMap
from pqjax.ring import Ring, conv


@dataclasses.dataclass(frozen=True)
class Job:
    """One linear layer without its bias: signed weights of `w_bits`, an accumulator of L = `bits`."""

    map: LinearMap
    w_bits: int
    x: TensorType
    bits: int

    def in_form(self, form: Form) -> "Job":
        """What is multiplied: by patches, the columns of `LinearMap.im2col`."""
        if form == "pixels":
            return self
        x = dataclasses.replace(self.x, shape=self.map.columns.in_shape)
        return dataclasses.replace(self, map=self.map.columns, x=x)


@dataclasses.dataclass(frozen=True, repr=False)  # the model
class Encoded:
    """Rank 0's weights, made ready once a process: narrow and read-only. Methods may extend it."""

    weights: Int[np.ndarray, "h w fan_in K"]


def multiply_plain(
    job: Job, encoded: Encoded, x: Image, x_bits: int | None = None, x_signed: bool = False
) -> Image:
    """W x in Ring(L) on numbers that rank 0 has: elements of Ring(L), bounded as in `ring.conv`."""
    m, weights = job.map, encoded.weights.reshape(job.map.weight_shape)
    shape = m.stride, m.padding, m.groups, m.dilation
    bounds = {"x_bits": x_bits, "x_signed": x_signed, "w_bits": job.w_bits, "w_signed": True}
    return np.asarray(conv(x[None], weights, Ring(job.bits), *shape, **bounds))[0]
