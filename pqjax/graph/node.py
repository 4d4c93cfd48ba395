"""What every kind of node says of itself; walks and passes ask, and know no kind by name."""

import dataclasses
import functools
import typing

from pqjax.errors import GraphError, InputError, shown
from pqjax.graph.bounds import LONGEST_NAME, Name, Shape
from pqjax.graph.tensor import Interval, Known, Rounding, TensorType, rounding_half, width_for
from pqjax.schema import check


@dataclasses.dataclass(frozen=True)
class Node:
    """One step of the network. `sources` name earlier nodes; `out` is the tensor it makes.

    The fields' annotations carry their bounds; a `Graph` holds its nodes to them. What is true of all
    nodes of a kind stands in its class:

    Attributes:
      arity: how many tensors it reads, at least and at most.
      sides: how many sides they have: 3 of an image, 1 of a vector, None for any number.
      same: what its format and those of all its sources have in common.
      hands_on: whether its tensor may overflow where a source's may.
      own_range: whether its values lie where it says, wherever its source's do.
      moves: whether its values are its sources', moved, and zeros beside them.
      keeps_sign: whether it makes nothing negative of nonnegative values.
      keeps_range: whether its values lie between its sources' smallest and largest, and 0.
      rescales: whether it chooses its own scale.
      keeps_guard: whether it is as right on values with guard bits, and has them, too.
      drops_guard: whether it is an exact truncation that leaves guard bits behind.
      may_drop_guard: whether it does as well as it keeps them, as its format says.
      counts_width: whether its width is counted from its source's: in another one that would be amiss.
      multiplies: whether it sums products, in one of several ways that planners choose from.
    """

    name: Name
    sources: tuple[Name, ...]
    out: TensorType

    arity: typing.ClassVar[tuple[int, int]] = (1, 1)
    sides: typing.ClassVar[int | None] = None
    same: typing.ClassVar[tuple[str, ...]] = ()
    hands_on: typing.ClassVar[bool] = False
    own_range: typing.ClassVar[bool] = False
    moves: typing.ClassVar[bool] = False
    keeps_sign: typing.ClassVar[bool] = False
    keeps_range: typing.ClassVar[bool] = False
    rescales: typing.ClassVar[bool] = False
    keeps_guard: typing.ClassVar[bool] = False
    drops_guard: typing.ClassVar[bool] = False
    may_drop_guard: typing.ClassVar[bool] = False
    counts_width: typing.ClassVar[bool] = False
    multiplies: typing.ClassVar[bool] = False

    def shape(self, *sources: TensorType) -> Shape:
        """The shape of what it makes of such tensors.

        Raises:
          GraphError: it cannot read them.
        """
        return sources[0].shape

    def reach(self, *x: Known) -> Interval:
        """Where the values lie that it computes of such tensors, before they are fit to `out`.

        Raises:
          GraphError: its format does not follow from theirs, or its protocol could not run on them.
        """
        raise NotImplementedError(f"{self.kind} does not say where its values lie")

    def nonnegative(self, *sources: TensorType) -> bool:
        """Whether none of its values is negative, if nothing that it adds up wraps around."""
        kept = (x.low == 0 and (x.signed or self.out.bits > x.bits) for x in sources)
        return self.keeps_sign and all(kept)

    def slack(self, *sources: int) -> int:
        """The largest e that it makes of values with guard bits that hold such ones."""
        return max(sources)

    @property
    def same_ring(self) -> bool:
        """Whether it computes in its sources' ring."""
        return "signed" in self.same

    @property
    def same_width(self) -> bool:
        """Whether it has as many bits as its sources."""
        return "bits" in self.same

    @property
    def adds(self) -> bool:
        """Whether it adds up what may wrap around in its source's ring."""
        return False

    @property
    def overflows(self) -> bool:
        """Whether its tensor may overflow whatever it reads."""
        return False

    def free(self, interval: Interval) -> bool:
        """Whether a wider format would hold the same values, which lie in this interval."""
        return False

    def follow(self, old: TensorType, new: TensorType, finer: int = 0) -> "Node | None":
        """The node where its first source has another format, of the same real range; None: it has none.

        What `rescales` is to be finer by `finer` bits than it was.

        Raises:
          GraphError: it would need a width that no ring has.
        """
        return None

    @property
    def kind(self) -> str:
        """The node's kind as written in JSON."""
        return type(self).__name__

    @functools.cached_property
    def unnamed(self) -> "Node":
        """The node without its place in a graph: what nodes that do the same have in common."""
        return dataclasses.replace(self, name="y", sources=())

    @functools.cached_property
    def fault(self) -> str | None:
        """What is wrong with the fields by themselves, if anything; found once."""
        try:
            check(type(self), self)
        except InputError as error:
            return str(error)
        return None

    def error(self, text: str) -> GraphError:
        """An error that names this node, whose name may be anything."""
        plain = isinstance(self.name, str) and self.name.isprintable()
        name = self.name if plain else shown(self.name)
        return GraphError(f"{name[:LONGEST_NAME]} ({self.kind}): {text}")

    def refuse(self, why: str | None) -> None:
        """Raises what a protocol says it cannot do, if anything."""
        if why is not None:
            raise self.error(why)

    def misfit(self, interval: Interval, what: str = "a value") -> GraphError:
        """An error that says what width the node would need."""
        out, (low, high) = self.out, interval
        where = f"{what} can be anything in [{low}, {high}]"
        if out.low == 0 and low < 0:
            return self.error(f"{where}, but its format says that none is negative")
        need = width_for(low, high, out.signed)
        return self.error(
            f"{where}, which takes {need} bits, but its format holds [{out.low}, {out.high}] "
            f"({out.bits} bits): widen out.bits to {need} or requantize before"
        )

    def declared(self, bits: int, scale: int) -> None:
        """Checks that its format is what follows from its source's."""
        if (self.out.bits, self.out.scale) != (bits, scale):
            raise self.error(
                f"{bits} bits at scale {scale} follow from its source, but it declares "
                f"{self.out.bits} at {self.out.scale}"
            )

    def rounded(self, x: Known, shift: int, rounding: Rounding) -> tuple[Interval, bool]:
        """Values after a rounding shift to the right, and whether the addition before may wrap."""
        low, high, half = x.low, x.high, rounding_half(shift, rounding)
        if half and high + half > x.out.high:
            if x.loose:
                low, high = x.out.ends
                return (low >> shift, high >> shift), True
            if not x.trusted:
                need = width_for(0, high + half, x.out.signed)
                raise self.error(
                    f"rounding adds {half} to values up to {high}, which needs a source of {need} "
                    f"bits, got {x.out.bits}: widen {self.sources[0]!r} to {need}"
                )
        return ((low + half) >> shift, (high + half) >> shift), False

    def low_bits(self, interval: Interval, trusted: bool) -> Interval:
        """Where values lie of which only the low bits are kept."""
        out = self.out
        if interval[0] >= out.low and interval[1] <= out.high:
            return interval
        if out.nonnegative and not trusted:
            raise self.error(f"wraps {list(interval)}: its sign bit cannot be known to be 0")
        return out.low, out.high
