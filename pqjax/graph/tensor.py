"""One tensor: its number format, and what a walk over a graph knows of its values."""

import dataclasses
import math
import typing

from pqjax.errors import GraphError
from pqjax.graph.bounds import Bits, Guard, Scale, Shape

Interval = tuple[int, int]  # both ends included
Rounding = typing.Literal["nearest", "floor"]


@dataclasses.dataclass(frozen=True)
class TensorType:
    """Shape and number format of one tensor.

    `nonnegative` on a signed tensor is the *fact* that its most significant bit is 0; values are
    then in [0, 2^(bits-1)). Unsigned tensors hold [0, 2^bits), of at most 63 bits. Every node computes
    in the ring of its format, modulo 2^bits; `pqjax.graph.overflow` says which may wrap around.

    `guard` is about shares, and planners set it (`pqjax.graph.guard`): with g guard bits they are of
    2^g x + e modulo 2^(bits + g), where nobody knows which e of 0..2^g - 1 it is.
    """

    shape: Shape
    bits: Bits
    scale: Scale
    signed: bool = True
    nonnegative: bool = False
    guard: Guard = dataclasses.field(default=0, metadata={"later": True})

    @property
    def n(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def share_bits(self) -> int:
        """Width of the ring of its shares."""
        return self.bits + self.guard

    @property
    def low(self) -> int:
        """Smallest value the format can hold."""
        return -(1 << (self.bits - 1)) if self.signed and not self.nonnegative else 0

    @property
    def high(self) -> int:
        """Largest value the format can hold."""
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1

    @property
    def ends(self) -> Interval:
        """The whole ring of the format, whatever is known of its sign."""
        return (-(1 << (self.bits - 1)) if self.signed else 0), self.high

    def moved(self, bits: int, scale: int) -> "TensorType":
        """The format with so many more bits and so much more scale.

        Raises:
          GraphError: no ring has as many.
        """
        if not 1 <= self.bits + bits <= 64:
            raise GraphError(f"widths in 1..64 expected, got {self.bits + bits} bits")
        return dataclasses.replace(self, bits=self.bits + bits, scale=self.scale + scale)


class Known(typing.NamedTuple):
    """What a walk over a graph knows of a tensor.

    Attributes:
      out: its format.
      low, high: its values lie between them.
      loose: it may overflow, see `pqjax.graph.overflow`.
      trusted: it is an accumulator that only the weights would tell about, or stays near one: what its
        format says is believed.
      slack: of a tensor with guard bits, the largest e that its shares may hold.
    """

    out: TensorType
    low: int
    high: int
    loose: bool = False
    trusted: bool = False
    slack: int = 0


def width_for(low: int, high: int, signed: bool = True) -> int:
    """Bits that hold every integer in [low, high]."""
    if not signed:
        return max(1, high.bit_length())
    return 1 + max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0)


def rounding_half(shift: int, rounding: Rounding) -> int:
    """What is added before a right shift: half a unit of the result, or nothing."""
    return (1 << shift) >> 1 if rounding == "nearest" and shift > 0 else 0
