"""A network without norms, as it is quantized: layers' sums, and the tensors they are fitted into.

A convolution or dense layer and what works on its sum form a block: additions, ReLUs and averages of
2^k values run on the wide integer, then one `Fit` makes a tensor of few bits of it. All else (pools,
padding, other averages, sums and concatenations of such tensors) works on tensors of few bits. A tensor
that is added later keeps more bits, and layers read a `Cut` of it. Float networks take a `Fit` and a
`Cut` for what they are there: nothing.

    conv2 -> norm2 -> add2 -> relu2   =>   conv2 -> add2 -> relu2 -> res2 (Fit), act2 (Cut)
"""

from __future__ import annotations

import dataclasses
import functools
import typing

import numpy as np
from jaxtyping import Int

from nets import ops
from nets.ops import INPUT, Architecture, Linear, Op, part_name
from pqjax.graph.bounds import Shape
from pqjax.graph.ir import fresh
from pqjax.graph.nodes import window_counts

Role = typing.Literal["input", "activations", "residual", "averaged", "head"]


@dataclasses.dataclass(frozen=True)
class Fit(Op):
    """A layer's sum, shifted and fitted into a tensor's format.

    Attributes:
      layer: whose sum it is.
      role: what the tensor is for, which decides on its bits: what convolutions read, what is added
        later, what is averaged over the whole image, or what dense layers read.
      negative: whether values may be below 0.
      capped: the ReLU whose cap holds here, if it has one.
    """

    layer: str
    role: Role
    negative: bool
    capped: ops.Relu | None = None


@dataclasses.dataclass(frozen=True)
class Cut(Op):
    """The top bits of a residual: what layers read of it."""

    fit: Fit


@dataclasses.dataclass(frozen=True)
class Average(ops.AvgPool):
    """Average of every window of a tensor: the sum times `multiplier`, shifted right by `shift`."""

    fit: Fit

    @property
    def shift(self) -> int:
        """t: log2 of the area, or six bits more than it has, so the factor is right to 1 %."""
        uneven = self.area & (self.area - 1) or self.padding != ops.NO_MARGINS
        return (self.area - 1).bit_length() + (6 if uneven else 0)

    @property
    def multiplier(self) -> int:
        """round(2^t / area)."""
        return round((1 << self.shift) / self.area)

    @property
    def growth(self) -> int:
        """By how much values may grow before the shift; factors of windows at edges are rounded up."""
        return self.area * self.multiplier + (
            self.area // 2 if self.padding != ops.NO_MARGINS else 0
        )

    def factors(self, shape: Shape) -> Int[np.ndarray, "h w 1"]:
        """What every window's sum is multiplied by: as `pqjax.graph.AvgPool` says."""
        count = window_counts(shape, self.window, self.stride, self.padding)
        return (2 * self.multiplier * self.area + count) // (2 * count)


@dataclasses.dataclass(frozen=True)
class Capped(ops.Relu):
    """A ReLU whose cap no `Fit` sees to: its values keep the format that they have."""


@dataclasses.dataclass(frozen=True)
class Joined(Op):
    """A sum or concatenation of tensors of few bits, which are fitted into one format first.

    Attributes:
      op: what it is.
      fit: its format.
    """

    arity: typing.ClassVar[int] = 0

    op: ops.Add | ops.Concat
    fit: Fit

    @property
    def spare(self) -> int:
        """Bits that the sources leave free, for their sum."""
        return int(isinstance(self.op, ops.Add))

    def shape(self, *sources: Shape) -> Shape:  # noqa: D102
        return self.op.shape(*sources)


@dataclasses.dataclass(frozen=True)
class Block:
    """A layer with all that works on its sum, closed by its `Fit` (unless it makes the logits).

    Or a single step on tensors that there are.
    """

    steps: tuple[Op, ...]

    @property
    def name(self) -> str:
        """Of the tensor it makes."""
        return self.steps[-1].name

    @property
    def layer(self) -> ops.Linear | None:
        """What has weights."""
        first = self.steps[0]
        return first if isinstance(first, Linear) else None

    @property
    def fit(self) -> Fit | None:
        """How it ends."""
        last = self.steps[-1]
        return last if isinstance(last, Fit) else None

    @property
    def linear(self) -> tuple[Op, ...]:
        """The layer, and the sum that directly follows."""
        return self.steps[: 1 + (len(self.steps) > 1 and isinstance(self.steps[1], ops.Add))]

    @property
    def plus(self) -> str | None:
        """What is added in that sum."""
        return self.linear[1].sources[1] if len(self.linear) > 1 else None

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that it reads, the layer's operand first."""
        own = {step.name for step in self.steps}
        read = (source for step in self.steps for source in step.sources)
        return tuple(dict.fromkeys(source for source in read if source not in own))


def steps(architecture: Architecture) -> tuple[Op, ...]:
    """All steps of all blocks, in order."""
    return tuple(step for block in blocks(architecture) for step in block.steps)


@functools.cache
def shapes(architecture: Architecture) -> dict[str, Shape]:
    """Of every step's tensor, the input's included."""
    found = {INPUT: architecture.image}
    for step in steps(architecture):
        found[step.name] = step.shape(*(found[source] for source in step.sources))
    return found


@functools.cache
def blocks(architecture: Architecture) -> tuple[Block, ...]:
    """The network's blocks, in order: each reads earlier ones or the input."""
    lowered = _Lowering(architecture)
    for op in architecture.ops:
        lowered.add(op)
    return tuple(lowered.done)


def _sums(architecture: Architecture) -> dict[str, str]:
    """Of every operation that works on a layer's sum the source that is this sum."""
    found: dict[str, str] = {}
    place: dict[
        str, int
    ] = {}  # of the layer whose sum a tensor is, if one operation alone reads it
    for i, op in enumerate(architecture.ops):
        own = [source for source in op.sources if source in place]
        if own and _on_sums(architecture, op):
            # A sum of two layers' sums belongs to the later one; the other is fitted first.
            found[op.name] = max(own, key=place.__getitem__)
        alone = len(architecture.readers[op.name]) == 1
        if alone and isinstance(op, Linear):
            place[op.name] = i
        elif alone and op.name in found and not _has_cap(op):
            place[op.name] = place[found[op.name]]
    return found


def _has_cap(op: Op) -> bool:
    return isinstance(op, ops.Relu) and op.cap is not None


def _moved(op: Op, sources: tuple[str, ...]) -> Op:
    """The same on other tensors."""
    return dataclasses.replace(op, sources=sources)


def _capped(op: Op, sources: tuple[str, ...]) -> Op:
    """The same on other tensors, where no `Fit` sees to its cap if it has one."""
    if isinstance(op, ops.Relu) and op.cap is not None:
        return Capped(op.name, sources, op.cap)
    return _moved(op, sources)


def _on_sums(architecture: Architecture, op: Op) -> bool:
    """Whether an operation can work on wide sums."""
    if isinstance(op, ops.AvgPool):
        whole = op.window == op.stride and op.padding == ops.NO_MARGINS
        return whole and not op.area & (op.area - 1)
    last = op is architecture.ops[-1]
    return isinstance(op, (ops.Norm, ops.Add, ops.Relu)) or (last and isinstance(op, ops.Flatten))


class _Lowering:
    """The blocks made so far, and where each of the network's tensors is among them."""

    def __init__(self, architecture: Architecture):
        self.architecture, self.sums = architecture, _sums(architecture)
        self.done: list[Block] = []
        self.growing: dict[str, list[Op]] = {}  # blocks that are not closed yet, by their tensors
        self.step = {INPUT: INPUT}  # names of tensors here, by names there
        negative = architecture.zero > 0
        self.fits = {INPUT: Fit(INPUT, (), INPUT, "input", negative)}
        self.negative = {INPUT: negative}
        self.cuts: dict[str, str] = {}
        self.taken = set(architecture.shapes)

    def named(self, name: str) -> str:
        """A name that no operation or other step has."""
        found = fresh(name, self.taken)
        self.taken.add(found)
        return found

    def add(self, op: Op) -> None:
        self.negative[op.name] = not isinstance(op, ops.Relu) and (
            isinstance(op, Linear) or any(self.negative[source] for source in op.sources)
        )
        if isinstance(op, Linear):
            self.grow(op, [_moved(op, (self.operand(op.sources[0]),))])
        elif op.name in self.sums:
            own = self.sums[op.name]
            block = self.growing.pop(own)
            others = [self.step[source] for source in op.sources if source != own]
            if not isinstance(op, ops.Norm):
                sources = (block[-1].name, *others)
                last = not self.architecture.readers[op.name]  # no `Fit` follows
                block.append(_capped(op, sources) if last else _moved(op, sources))
            self.grow(op, block)
        else:
            self.between(op)

    def grow(self, op: Op, block: list[Op]) -> None:
        """Leaves a block open where the next operation works on its sum, too; else closes it."""
        readers = self.architecture.readers[op.name]
        if readers and self.sums.get(readers[0].name) == op.name:
            self.growing[op.name] = block
            return
        if readers:
            layer, role = block[0].name, self.role(op)
            name = part_name(layer, "res" if role in ("residual", "averaged") else "act")
            name = self.named(name)
            capped = op if isinstance(op, ops.Relu) and _has_cap(op) else None
            fit = Fit(name, (block[-1].name,), layer, role, self.negative[op.name], capped)
            block.append(fit)
            self.fits[op.name] = fit
        self.done.append(Block(tuple(block)))
        self.step[op.name] = block[-1].name

    def between(self, op: Op) -> None:
        """An operation on tensors of few bits, which keep their format."""
        fit = self.fits[op.sources[0]]
        sources = tuple(self.step[source] for source in op.sources)
        made = _capped(op, sources)
        if isinstance(op, ops.GlobalAverage):
            high, wide, _ = op.image(self.architecture.shapes[op.sources[0]])
            made = Average(op.name, sources, (high, wide), (high, wide), fit)
        elif isinstance(op, ops.AvgPool):
            made = Average(op.name, sources, op.window, op.stride, fit, padding=op.padding)
        elif isinstance(op, (ops.Add, ops.Concat)):
            role = "residual" if isinstance(op, ops.Add) else self.role(op)
            fit = Fit(op.name, sources, op.name, role, self.negative[op.name])
            made = Joined(op.name, sources, op, fit)
        self.fits[op.name], self.step[op.name] = fit, op.name
        self.done.append(Block((made,)))

    def operand(self, name: str) -> str:
        """What a layer reads: of a residual the top bits, cut once for all its readers."""
        fit, read = self.fits[name], self.step[name]
        if fit.role != "residual":
            return read
        if read not in self.cuts:
            name = part_name(fit.layer, "act") if read == fit.name else f"{read}.act"
            self.cuts[read] = self.named(name)
            self.done.append(Block((Cut(self.cuts[read], (read,), fit),)))
        return self.cuts[read]

    def role(self, op: Op) -> Role:
        """What a tensor is for, by who reads it behind pools and the like."""
        uses, ahead = set(), [op.name]
        while ahead:
            for reader in self.architecture.readers[ahead.pop()]:
                if isinstance(reader, ops.Add):
                    uses.add("residual")
                elif isinstance(reader, ops.GlobalAverage):
                    uses.add("averaged")
                elif isinstance(reader, Linear):
                    uses.add("head" if isinstance(reader, ops.Dense) else "activations")
                else:
                    ahead.append(reader.name)
        for role in ("averaged", "residual", "activations"):
            if role in uses:
                return role
        return "head" if uses else "residual"
