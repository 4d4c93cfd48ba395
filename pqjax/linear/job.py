"""A linear layer to be computed: its geometry and the formats of what it multiplies and sums."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int, Integer, UInt

from pqjax.graph.ir import TensorType
from pqjax.linear.map import LinearMap
from pqjax.ring import Ring, conv


@dataclasses.dataclass(frozen=True)
class Job:
    """One linear layer without its bias.

    Attributes:
      map: the geometry.
      w_bits: width of the signed weights.
      x: format of the operand.
      bits: width L of the accumulator.
    """

    map: LinearMap
    w_bits: int
    x: TensorType
    bits: int

    @property
    def columns(self) -> Job:
        """The same on the columns of `LinearMap.im2col`."""
        columns = self.map.columns
        x = dataclasses.replace(self.x, shape=columns.in_shape)
        return dataclasses.replace(self, map=columns, x=x)


@dataclasses.dataclass(frozen=True, repr=False)  # the model
class Encoded:
    """Rank 0's weights, made ready once a process; a method that needs more extends it.

    Attributes:
      weights: in the narrowest signed dtype that holds them; read-only.
    """

    weights: Int[np.ndarray, "h w fan_in K"]

    @classmethod
    def of(cls, job: Job, weights: Integer[np.ndarray, " *w"]) -> Encoded:
        """Encodes the weights of a layer, whose shape has as many elements as the map's."""
        narrow = np.dtype(f"i{Ring(job.w_bits).dtype.itemsize}")
        own = np.array(weights, narrow).reshape(job.map.weight_shape)
        own.flags.writeable = False
        return cls(own)


def multiply_plain(
    job: Job,
    encoded: Encoded,
    x: UInt[np.ndarray, "H W C"],
    x_bits: int | None = None,
    x_signed: bool = False,
) -> UInt[np.ndarray, "H2 W2 K"]:
    """W x in Ring(L) on numbers that rank 0 has, elements of Ring(L) bounded as in `ring.conv`."""
    m = job.map
    y = conv(
        x[None], encoded.weights.reshape(m.weight_shape), Ring(job.bits), m.stride, m.padding,
        m.groups, m.dilation, x_bits=x_bits, x_signed=x_signed, w_bits=job.w_bits, w_signed=True,
    )  # fmt: skip
    return np.asarray(y)[0]
