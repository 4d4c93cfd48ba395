"""Networks as lists of small operations: the kinds of `pqjax.graph` without bits, checked when built.

Whatever is made of a network (floats, integers, a graph) is one walk over such a list with a table from
kind to rule, see `walk`. A new kind is a class here, and a rule in every table that is to know it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Callable, Mapping, Sequence

from pqjax.errors import GraphError, InputError, listed, shown
from pqjax.graph.bounds import (
    MOST_SOURCES,
    Groups,
    Kernel,
    Margins,
    Name,
    Shape,
    Stride,
    Taken,
    Window,
)
from pqjax.graph.nodes import window_counts
from pqjax.schema import Between, Length, check

INPUT = "input"
PIXEL_ZERO: typing.Final = 128  # so zero padding is mid-grey
NO_MARGINS = ((0, 0), (0, 0))

Channels = typing.Annotated[int, Between(1, 1 << 16)]


class _Positive:
    """Bound of a number: above 0."""

    def wanted(self, value: float) -> str | None:
        return None if value > 0 else "above 0"


@dataclasses.dataclass(frozen=True)
class Op:
    """One step: its name is that of the tensor it makes, (H, W, C) or (C,), from those it reads.

    It reads as many as `arity` says, two or more where that is 0.
    """

    arity: typing.ClassVar[int] = 1

    name: Name
    sources: tuple[Name, ...]

    @property
    def kind(self) -> str:
        """As messages call it, and `pqjax.graph` if it has the kind."""
        return type(self).__name__

    def fault(self, text: str) -> GraphError:
        """An error that names this operation."""
        return GraphError(f"{self.name} ({self.kind}): {text}")

    def shape(self, *sources: Shape) -> Shape:
        """Of the result, from those of the sources.

        Raises:
          GraphError: they do not fit; says what was expected.
        """
        return sources[0]

    def image(self, shape: Shape) -> tuple[int, int, int]:
        """A source's shape, which must be (H, W, C)."""
        if len(shape) != 3:
            raise self.fault(
                f"an image (H, W, C) expected, got shape {shape}: put it before a Flatten"
            )
        high, wide, channels = shape
        return high, wide, channels

    def sides(self, shape: Shape, window: Window, stride: Stride) -> tuple[int, int]:
        """How many windows lie in an image, by rows and columns; what is left over is not read."""
        high, wide, _ = self.image(shape)
        if high < window[0] or wide < window[1]:
            raise self.fault(
                f"its window reaches over {window}, but the image has only {(high, wide)}: "
                "pad it, or take a smaller window"
            )
        return (high - window[0]) // stride[0] + 1, (wide - window[1]) // stride[1] + 1


@dataclasses.dataclass(frozen=True)
class Conv(Op):
    """Cross-correlation with a kernel (h, w, C / groups, channels); a bias where no `Norm` follows.

    Attributes:
      channels: of the result.
      window: rows and columns of the kernel.
      stride: of rows and columns.
      padding: zeros before and after rows, and columns.
      groups: of channels, which do not mix; as many as channels: a depthwise convolution.
      dilation: steps between the kernel's taps.
    """

    channels: Channels
    window: Kernel
    stride: Stride = (1, 1)
    padding: tuple[Margins, Margins] = NO_MARGINS
    groups: Groups = 1
    dilation: Stride = (1, 1)

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        high, wide, channels = self.image(sources[0])
        if channels % self.groups or self.channels % self.groups:
            raise self.fault(
                f"its {self.groups} groups must divide {channels} channels read and {self.channels} made"
            )
        padded = (high + sum(self.padding[0]), wide + sum(self.padding[1]), channels)
        reach = tuple((n - 1) * d + 1 for n, d in zip(self.window, self.dilation, strict=True))
        return (*self.sides(padded, typing.cast(Window, reach), self.stride), self.channels)

    def kernel(self, source: Shape) -> Shape:
        """Shape of its weights."""
        return (*self.window, source[2] // self.groups, self.channels)


@dataclasses.dataclass(frozen=True)
class Dense(Op):
    """Matrix product of a vector (C,) with weights (C, channels); a bias where no `Norm` follows."""

    groups: typing.ClassVar[int] = 1

    channels: Channels

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        if len(sources[0]) != 1:
            raise self.fault(f"a vector expected, got shape {sources[0]}; put a Flatten before it")
        return (self.channels,)

    def kernel(self, source: Shape) -> Shape:
        """Shape of its weights."""
        return (source[0], self.channels)


@dataclasses.dataclass(frozen=True)
class Norm(Op):
    """Batch norm of what a `Conv` or `Dense` makes, which nothing else reads; folded into it later."""


@dataclasses.dataclass(frozen=True)
class Relu(Op):
    """max(x, 0), and no more than `cap` where there is one (6.0 for ReLU6)."""

    cap: typing.Annotated[float, _Positive()] | None = None


@dataclasses.dataclass(frozen=True)
class Add(Op):
    """Sum of two tensors of one shape."""

    arity: typing.ClassVar[int] = 2

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        if sources[0] != sources[1] or self.sources[0] == self.sources[1]:
            raise self.fault(
                f"two tensors of one shape expected, got {' and '.join(self.sources)} of shapes "
                f"{sources[0]} and {sources[1]}"
            )
        return sources[0]


@dataclasses.dataclass(frozen=True)
class Pool(Op):
    """One number of every window of a channel; a `Pad` before it pads with zeros, or what is there."""

    window: Window
    stride: Stride

    @property
    def area(self) -> int:
        """Values in a window."""
        return math.prod(self.window)

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        return (*self.sides(sources[0], self.window, self.stride), sources[0][2])


@dataclasses.dataclass(frozen=True)
class MaxPool(Pool):
    """The largest."""


@dataclasses.dataclass(frozen=True)
class AvgPool(Pool):
    """The average of what lies in the image: windows may reach over it by `padding`."""

    padding: tuple[Margins, Margins] = dataclasses.field(default=NO_MARGINS, kw_only=True)

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        high, wide, channels = self.image(sources[0])
        padded = (high + sum(self.padding[0]), wide + sum(self.padding[1]), channels)
        shape = super().shape(padded)
        if window_counts(sources[0], self.window, self.stride, self.padding).min() < 1:
            raise self.fault("a window lies outside of the image: pad it less")
        return shape


@dataclasses.dataclass(frozen=True)
class GlobalAverage(Op):
    """Average of every channel, as an image of one pixel."""

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        return (1, 1, self.image(sources[0])[2])


@dataclasses.dataclass(frozen=True)
class Flatten(Op):
    """(H, W, C) to (H * W * C,), in that order."""

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        high, wide, channels = self.image(sources[0])
        return (high * wide * channels,)


@dataclasses.dataclass(frozen=True)
class Subsample(Op):
    """Every stride-th row and column, the first ones first."""

    stride: Stride

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        high, wide, channels = self.image(sources[0])
        return (-(-high // self.stride[0]), -(-wide // self.stride[1]), channels)


@dataclasses.dataclass(frozen=True)
class Pad(Op):
    """Zeros around an image: (before, after) for rows, columns and channels.

    Or what stands at its `edge`, again and again: of that a max pool is one of the image alone.
    """

    margins: tuple[Margins, Margins, Margins]
    edge: bool = False

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        if self.edge and self.margins[2] != (0, 0):
            raise self.fault("channels have no edge: pad them with zeros")
        high, wide, channels = (
            side + sum(margin)
            for side, margin in zip(self.image(sources[0]), self.margins, strict=True)
        )
        return (high, wide, channels)


@dataclasses.dataclass(frozen=True)
class Take(Op):
    """Some channels, by their places: a slice, a part of a split, a channel shuffle."""

    channels: Taken

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        if max(self.channels) >= sources[0][-1]:
            raise self.fault(
                f"it takes channel {max(self.channels)}, but there are {sources[0][-1]}"
            )
        return (*sources[0][:-1], len(self.channels))


@dataclasses.dataclass(frozen=True)
class Concat(Op):
    """Channels of two or more tensors, one after the other."""

    arity: typing.ClassVar[int] = 0

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        if len(sources) > MOST_SOURCES:
            raise self.fault(
                f"at most {MOST_SOURCES} sources expected, got {len(sources)}: join some"
            )
        if len({shape[:-1] for shape in sources}) > 1:
            raise self.fault(f"tensors of one height and width expected, got {list(sources)}")
        return (*sources[0][:-1], sum(shape[-1] for shape in sources))


KINDS: tuple[type[Op], ...] = (
    Conv, Dense, Norm, Relu, Add, MaxPool, AvgPool, GlobalAverage, Flatten, Subsample, Pad, Take, Concat,
)  # fmt: skip
Linear = Conv | Dense  # what has weights


def part_name(name: str, part: str, word: str = "conv") -> str:
    """The name of another step beside an operation: conv3 and relu make relu3."""
    return name.replace(word, part) if word in name else f"{name}.{part}"


T = typing.TypeVar("T")
Rules = Mapping[type[Op], Callable[..., T]]


def rule_of(op: Op, rules: Rules[T]) -> Callable[..., T]:
    """The rule of an operation's kind.

    Raises:
      GraphError: the table has none.
    """
    if type(op) not in rules:
        raise op.fault(f"no rule for this kind; there are some for {listed_kinds(rules)}")
    return rules[type(op)]


def listed_kinds(kinds: typing.Iterable[type[Op]]) -> str:
    """Their names."""
    return ", ".join(kind.__name__ for kind in kinds)


def walk(ops: Sequence[Op], rules: Rules[T], values: dict[str, T]) -> T:
    """Adds to `values` what the rule of every operation's kind makes of it and of its sources' values.

    Args:
      ops: in order.
      rules: (operation, *values of its sources) -> its value, by kind.
      values: by name; holds what is read and not made here.

    Returns:
      The last operation's value.
    """
    for op in ops:
        values[op.name] = rule_of(op, rules)(op, *(values[source] for source in op.sources))
    return values[ops[-1].name]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network's shape.

    Attributes:
      name: as commands and files call it.
      data: the data set it is for, see `nets.data`.
      image: shape of the input (H, W, C).
      classes: length of the output.
      ops: in order; each reads earlier ones or "input". The last one makes the logits.
      signed: whether activations become signed formats with a sign bit of 0, else unsigned ones.
      zero: the pixel that 0 stands for, in the integer input and around it: 128, or 0 where none of
        the network's formats but those of negative values is signed.

    Raises:
      GraphError: names the operation, what was expected, what came, and what to do.
    """

    name: str
    data: str
    image: Shape
    classes: int
    ops: tuple[Op, ...]
    signed: bool
    zero: typing.Literal[0, 128] = PIXEL_ZERO

    def __post_init__(self) -> None:
        if self.zero not in (0, PIXEL_ZERO) or (self.signed and not self.zero):
            raise GraphError(
                f"{self.name}: zero of {PIXEL_ZERO}, or of 0 without signed formats, expected, got "
                f"{shown(self.zero)}"
            )
        try:
            check(typing.Annotated[Shape, Length(3, 3)], self.image)
        except InputError as error:
            raise GraphError(f"{self.name}: image (H, W, C): {error}") from error
        if not any(isinstance(op, Linear) for op in self.ops):
            raise GraphError(f"{self.name}: at least one Conv or Dense expected, got none")
        made = [INPUT]
        for op in self.ops:
            self._check(op, made)
            made.append(op.name)
        for op in self.ops:
            try:
                check(Shape, self.shapes[op.name])
            except InputError as error:
                raise op.fault(f"its result is too large: {error}") from error
        *rest, last = self.ops
        for op in self.ops:
            readers = self.readers[op.name]
            if not readers and op in rest:
                raise op.fault(f"nothing reads it, and {last.name} is the output: leave it out")
            for norm in readers:
                if isinstance(norm, Norm) and not (isinstance(op, Linear) and len(readers) == 1):
                    raise norm.fault(
                        f"a norm stands behind a Conv or Dense that it alone reads, to be folded into "
                        f"it, but {op.name} ({op.kind}) has {len(readers)} readers: {norm.name} must "
                        "be left out, or folded by hand"
                    )
        if self.shapes[last.name] != (self.classes,):
            raise last.fault(
                f"the output's shape must be ({self.classes},), a logit for each class, got "
                f"{self.shapes[last.name]}"
            )

    def _check(self, op: Op, made: list[str]) -> None:
        if type(op) not in KINDS:
            raise GraphError(
                f"{self.name}: {shown(op)} is of no kind known here; there are {listed_kinds(KINDS)}"
            )
        try:
            check(type(op), op)
        except InputError as error:
            raise op.fault(str(error)) from error
        if op.name in made:
            raise op.fault("its name is taken: names are unique, and the input's is 'input'")
        count = len(op.sources)
        if count != op.arity if op.arity else count < 2:
            raise op.fault(f"{op.arity or 'two or more'} sources expected, got {count}")
        for source in op.sources:
            if source not in made:
                near = difflib.get_close_matches(source, made, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f": {listed(reversed(made))}"
                raise op.fault(f"source {source!r} is not made before it{hint}")

    @property
    def side(self) -> int:
        """Of a square input."""
        return self.image[0]

    @functools.cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Of every tensor, the input's included."""
        found = {INPUT: self.image}
        for op in self.ops:
            found[op.name] = op.shape(*(found[source] for source in op.sources))
        return found

    @functools.cached_property
    def readers(self) -> Mapping[str, tuple[Op, ...]]:
        """The operations that read each tensor."""
        found: dict[str, list[Op]] = {name: [] for name in self.shapes}
        for op in self.ops:
            for source in op.sources:
                found[source].append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    @functools.cached_property
    def layers(self) -> tuple[Linear, ...]:
        """Those that have weights, in order."""
        return tuple(op for op in self.ops if isinstance(op, Linear))

    def kernel(self, layer: Linear) -> Shape:
        """Shape of a layer's weights."""
        return layer.kernel(self.shapes[layer.sources[0]])
