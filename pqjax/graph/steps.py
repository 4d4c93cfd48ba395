"""A requantization, and the steps that planners rewrite it into; users may write them too."""

import dataclasses
import typing

from pqjax.graph.bounds import MOST_SHIFT, Shift, Word
from pqjax.graph.node import Node
from pqjax.graph.tensor import Interval, Known, Rounding, TensorType, rounding_half
from pqjax.protocols.clamp import clamp_unfit
from pqjax.protocols.resize import extend_unfit, truncate_reduce_unfit, truncate_unfit
from pqjax.protocols.saturate import saturate_unfit
from pqjax.schema import Between

Rule = typing.Literal["wrap", "saturate"]


@dataclasses.dataclass(frozen=True)
class Requantize(Node):
    """Shift right by `source.scale - out.scale` with rounding, then fit into `out`.

    Rounding to `nearest` adds half a unit of the result, in the source's ring, and floors. `wrap`
    keeps the low `out.bits` bits (the rule of PrivQuant's protocol), `saturate` clamps to
    [out.low, out.high]. A negative shift is an exact multiplication by a power of two. What a planner
    makes of it: the nodes below.
    """

    rule: Rule = "saturate"
    rounding: Rounding = "nearest"

    own_range = rescales = True

    def reach(self, x: Known) -> Interval:
        out, shift = self.out, x.out.scale - self.out.scale
        if shift >= x.out.bits:
            raise self.error(f"shifts {x.out.bits} bits right by {shift}: nothing would be left")
        if shift <= -64:
            raise self.error(f"shifts left by {-shift}: no value of 64 bits but 0 could hold that")
        if shift > 0:
            low, high = self.rounded(x, shift, self.rounding)[0]
        else:
            low, high = x.low << -shift, x.high << -shift
        if self.rule == "saturate":
            return min(max(low, out.low), out.high), min(max(high, out.low), out.high)
        return self.low_bits((low, high), False)

    def free(self, interval: Interval) -> bool:
        """Unless it cuts something off, or may."""
        return self.rule == "wrap" and interval != (self.out.low, self.out.high)

    def follow(self, old: TensorType, new: TensorType, finer: int = 0) -> Node | None:
        """In its own format, as much wider as it is finer."""
        return dataclasses.replace(self, out=self.out.moved(finer, finer))


@dataclasses.dataclass(frozen=True)
class Extend(Node):
    """The same values in a format with at least as many bits, which holds them all."""

    same = ("scale",)
    hands_on = keeps_sign = counts_width = True

    def reach(self, x: Known) -> Interval:
        self.refuse(extend_unfit(x.out.bits, self.out.bits))
        return x.low, x.high

    def free(self, interval: Interval) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class Narrow(Node):
    """The low `out.bits` bits, read as `out` says; values that do not fit wrap around."""

    same = ("scale",)
    hands_on = keeps_guard = True

    def reach(self, x: Known) -> Interval:
        if self.out.bits > x.out.bits:
            raise self.error(
                f"keeps low bits, but {x.out.bits} bits do not have {self.out.bits}: extend"
            )
        return self.low_bits((x.low, x.high), x.trusted and not x.loose)


@dataclasses.dataclass(frozen=True)
class ScaleUp(Node):
    """Times 2^shift, exactly: as many bits more, and as much more scale."""

    shift: Shift

    keeps_sign = counts_width = True

    def reach(self, x: Known) -> Interval:
        self.declared(x.out.bits + self.shift, x.out.scale + self.shift)
        return x.low << self.shift, x.high << self.shift


@dataclasses.dataclass(frozen=True)
class _Shifting(Node):
    """What shifts right, and may add half a unit before."""

    shift: Shift
    rounding: Rounding = "floor"

    keeps_sign = True

    @property
    def adds(self) -> bool:
        return rounding_half(self.shift, self.rounding) > 0


@dataclasses.dataclass(frozen=True)
class Truncate(_Shifting):
    """Shifted right by `shift`, in as many bits as before (Trunc).

    What is added before to round wraps around in the source's ring; of a source that is known to be
    nonnegative the sign must survive it.
    """

    same = ("bits",)
    rescales = True

    def reach(self, x: Known) -> Interval:
        bits, known = x.out.bits, x.out.nonnegative
        self.refuse(truncate_unfit(bits, self.shift, False, False))
        interval, wraps = self.rounded(x, self.shift, self.rounding)
        self.refuse(truncate_unfit(bits, self.shift, known, wraps))
        self.declared(bits, x.out.scale - self.shift)
        return interval

    def follow(self, old: TensorType, new: TensorType, finer: int = 0) -> Node | None:
        """By as much more as its source is finer, to the scale that it had."""
        shift = self.shift + new.scale - old.scale - finer
        if shift < 1:
            raise self.error(f"would shift by {shift}: its source is no finer than its result")
        out = self.out.moved(new.bits - old.bits, finer)
        return dataclasses.replace(self, shift=shift, out=out)


@dataclasses.dataclass(frozen=True)
class TruncateReduce(_Shifting):
    """Shifted right by `shift`; of the result the low `out.bits` bits, at least `shift` less (TR).

    They are read as `out` says. What is added before to round wraps around in the source's ring.
    """

    counts_width = drops_guard = True

    def reach(self, x: Known) -> Interval:
        bits = min(self.out.bits, x.out.bits - self.shift)
        self.refuse(truncate_reduce_unfit(x.out.bits, self.shift, max(bits, 1)))
        interval, _ = self.rounded(x, self.shift, self.rounding)
        self.declared(bits, x.out.scale - self.shift)
        return self.low_bits(interval, x.trusted)

    def nonnegative(self, *sources: TensorType) -> bool:
        """If it keeps all bits that are left."""
        (x,) = sources
        return x.signed and x.low == 0 and self.out.bits == x.bits - self.shift


@dataclasses.dataclass(frozen=True)
class Unguard(Node):
    """The same values without guard bits: shifted right by as many as there are (TR)."""

    same = ("bits", "scale", "signed")
    hands_on = keeps_sign = keeps_range = drops_guard = True

    def reach(self, x: Known) -> Interval:
        if not x.out.guard:
            raise self.error("its source has no guard bits to take away")
        return x.low, x.high


@dataclasses.dataclass(frozen=True)
class Clamp(Node):
    """min(max(x, low), high) of a signed x, in at most as many bits; limits within x's range."""

    low: Word
    high: Word

    same = ("scale",)
    own_range = keeps_range = True

    def reach(self, x: Known) -> Interval:
        known, limits = x.out.nonnegative, (self.low, self.high)
        self.refuse(clamp_unfit(x.out.bits, x.out.signed, known, *limits, self.out.bits))
        return min(max(x.low, self.low), self.high), min(max(x.high, self.low), self.high)

    def nonnegative(self, *sources: TensorType) -> bool:
        return self.low == 0

    def follow(self, old: TensorType, new: TensorType, finer: int = 0) -> Node | None:
        """Between the same real limits within its source's ring; an end of its format stays one."""
        more = new.scale - old.scale
        out = self.out.moved(min(more, new.bits - self.out.bits), more)
        ends = (self.low, self.out.low, out.low), (self.high, self.out.high, out.high)
        low, high = (
            there if end == here else end << more if more > 0 else end >> -more
            for end, here, there in ends
        )
        low, high = max(low, out.low, new.ends[0]), min(high, out.high, new.high)
        return dataclasses.replace(self, low=low, high=high, out=out)


@dataclasses.dataclass(frozen=True)
class Saturate(Node):
    """min(max(x / 2^shift, low), high) of a signed x, in any format that holds it: all in one pass.

    The limits are 0 and 2^b - 1, or -2^(b-1) and 2^(b-1) - 1. What is added before the shift to round
    wraps around in the source's ring.
    """

    shift: typing.Annotated[int, Between(0, MOST_SHIFT)]
    low: Word
    high: Word
    rounding: Rounding = "floor"

    own_range = drops_guard = True

    @property
    def adds(self) -> bool:
        return rounding_half(self.shift, self.rounding) > 0

    def reach(self, x: Known) -> Interval:
        out, limits = self.out, (self.low, self.high)
        self.refuse(saturate_unfit(x.out.bits, x.out.signed, self.shift, *limits))
        self.declared(out.bits, x.out.scale - self.shift)
        if not out.low <= self.low or not self.high <= out.high:
            raise self.misfit(limits)
        low, high = self.rounded(x, self.shift, self.rounding)[0]
        return min(max(low, self.low), self.high), min(max(high, self.low), self.high)

    def nonnegative(self, *sources: TensorType) -> bool:
        return self.low == 0
