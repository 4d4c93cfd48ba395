"""Steps that need no operation of their own go into those around them.

What the output does not need is left out, and affines (all that is left of norms, biases and rescaling)
go where they cost nothing:

    conv -> affine             =>   conv                     (the affine alone reads it)
    affine -> conv, dense      =>   conv, dense              (no zeros are padded, or the offset is 0)
    input -> affine            =>   input                    (`Pixels` says so)
    affine, anything else      =>   conv 1x1 by channel      (dense of a vector)

Zeros padded around an image that convolutions read become theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from nets import ops
from nets.ops import INPUT, NO_MARGINS, Linear, Op
from pqjax.errors import GraphError
from pqjax.graph.bounds import Shape

Values = tuple[np.ndarray, np.ndarray]  # kernel and bias, or scale and offset


@dataclasses.dataclass(frozen=True)
class Affine(Op):
    """Of a channel: x * scale + offset."""


@dataclasses.dataclass(frozen=True)
class Ceiling(Op):
    """The lesser of x, which may be negative, and a cap: that of the ReLUs that read it."""

    cap: float


class Folding:
    """The steps that an output needs, in order, and how affines go from among them.

    Attributes:
      ops: by name.
      output: what is wanted.
      values: kernel and bias of every layer, scale and offset of every affine that is left.
      input: scale and offset of an affine of the input.
    """

    def __init__(
        self, steps: Mapping[str, Op], values: Mapping[str, Values], shapes: Mapping[str, Shape],
        places: Mapping[str, str], output: str,
    ):  # fmt: skip
        self.shapes, self.places, self.output = shapes, places, output
        self.ops, self.values = dict(steps), dict(values)
        channels = self.shapes[INPUT][-1]
        self.input = np.ones(channels), np.zeros(channels)

    def done(self) -> tuple[Op, ...]:
        """All operations, of kinds that an `Architecture` knows."""
        self.prune()
        for each in (self.compose, self.cap, self.absorb, self.widen, self.materialize):
            for op in list(self.ops.values()):
                each(op)
        self.prune()
        return tuple(self.ops.values())

    def prune(self) -> None:
        """Leaves out what the output does not need."""
        needed, ahead = set(), [self.output]
        while ahead:
            if (name := ahead.pop()) not in needed and name != INPUT:
                needed.add(name)
                ahead.extend(self.ops[name].sources)
        self.ops = {name: op for name, op in self.ops.items() if name in needed}

    def readers(self, name: str) -> list[Op]:
        """The operations that read a tensor."""
        return [op for op in self.ops.values() if name in op.sources]

    def alone(self, op: Op) -> bool:
        """Whether an operation is all that reads its source."""
        return self.readers(op.sources[0]) == [op] and self.output != op.sources[0]

    def drop(self, op: Op) -> None:
        """Leaves out a step of one source, which takes its place."""
        (source,) = op.sources
        del self.ops[op.name]
        self.values.pop(op.name, None)
        for reader in self.readers(op.name):
            sources = tuple(source if each == op.name else each for each in reader.sources)
            self.ops[reader.name] = dataclasses.replace(reader, sources=sources)
        self.output = source if self.output == op.name else self.output

    def compose(self, op: Op) -> None:
        """An affine of an affine is one, and one that changes nothing is none."""
        if not isinstance(op, Affine):
            return
        before = self.ops.get((op := self.ops[op.name]).sources[0])
        if isinstance(before, Affine) and self.alone(op):
            self.follow(before.name, *self.values[op.name])
            self.values[op.name] = self.values[before.name]
            self.drop(before)
        scale, offset = self.values[op.name]
        if not offset.any() and np.allclose(scale, 1, rtol=1e-7, atol=0):
            self.drop(self.ops[op.name])

    def cap(self, op: Op) -> None:
        """A ReLU of a ReLU is one; a ceiling is the cap of the ReLUs that read it."""
        if op.name not in self.ops:
            return
        op = self.ops[op.name]
        if isinstance(op, Ceiling):
            following = self.readers(op.name)
            if not following or not all(isinstance(each, ops.Relu) for each in following):
                raise GraphError(
                    f"{self.places[op.name]}: a minimum with {op.cap:g} of what may be negative: "
                    "the largest values are cut by a ReLU's cap alone; put a ReLU before or after it"
                )
            for each in following:
                assert isinstance(each, ops.Relu)
                self.ops[each.name] = _capped(each, op.cap)
            self.drop(op)
        elif isinstance(op, ops.Relu):
            before = self.ops.get(op.sources[0])
            if isinstance(before, ops.Relu) and self.alone(op):
                self.ops[op.name] = _capped(op, before.cap)
                self.drop(before)

    def follow(self, name: str, scale: np.ndarray, offset: np.ndarray) -> None:
        """What a layer or an affine makes, times a scale and plus an offset."""
        kernel, bias = (np.asarray(each, np.float64) for each in self.values[name])
        self.values[name] = kernel * scale, bias * scale + offset

    def absorb(self, op: Op) -> None:
        """An affine goes into the layer before it, the input, or the layers behind it."""
        if not isinstance(op, Affine):
            return
        op, (scale, offset) = self.ops[op.name], self.values[op.name]
        source = op.sources[0]
        following = self.readers(op.name)
        if isinstance(self.ops.get(source), Linear) and self.alone(op):
            self.follow(source, scale, offset)
        elif source == INPUT and self.alone(op) and (scale > 0).all():
            self.input = scale, offset
        elif (
            following
            and op.name != self.output
            and all(self.may_read(r, offset) for r in following)
        ):
            for each in following:
                self.precede(each, scale, offset)
        else:
            return
        self.drop(op)

    def may_read(self, op: Op, offset: np.ndarray) -> bool:
        """Whether a layer computes the same of an affine as with the affine in its weights."""
        padded = isinstance(op, ops.Conv) and op.padding != NO_MARGINS
        return isinstance(op, Linear) and not (padded and offset.any())

    def precede(self, op: Op, scale: np.ndarray, offset: np.ndarray) -> None:
        """What a layer reads, times a scale and plus an offset."""
        kernel, bias = (np.asarray(each, np.float64) for each in self.values[op.name])
        assert isinstance(op, Linear)
        inputs, outputs = kernel.shape[-2:]
        by_group = (each.reshape(op.groups, inputs) for each in (scale, offset))
        gain, shift = (each.repeat(outputs // op.groups, 0).T for each in by_group)
        every = tuple(range(kernel.ndim - 1))
        self.values[op.name] = kernel * gain, bias + (kernel * shift).sum(every)

    def widen(self, op: Op) -> None:
        """A convolution pads what a `Pad` before it would."""
        before = self.ops.get(op.sources[0])
        if not (isinstance(op, ops.Conv) and isinstance(before, ops.Pad)):
            return
        if any(before.margins[2]) or before.edge:
            return
        pairs = zip(op.padding, before.margins, strict=False)
        high, wide = ((a + c, b + d) for (a, b), (c, d) in pairs)
        self.ops[op.name] = dataclasses.replace(op, sources=before.sources, padding=(high, wide))

    def materialize(self, op: Op) -> None:
        """An affine that goes nowhere becomes a layer of its own."""
        if not isinstance(op, Affine):
            return
        op, (scale, offset) = self.ops[op.name], self.values[op.name]
        channels = len(scale)
        if len(self.shapes[op.name]) == 1:
            self.ops[op.name] = ops.Dense(op.name, op.sources, channels)
            self.values[op.name] = np.diag(scale), offset
        else:
            self.ops[op.name] = ops.Conv(op.name, op.sources, channels, (1, 1), groups=channels)
            self.values[op.name] = scale.reshape(1, 1, 1, channels), offset


def _capped(op: ops.Relu, cap: float | None) -> ops.Relu:
    """A ReLU with the lower one of its cap and another."""
    caps: Sequence[float] = [each for each in (op.cap, cap) if each is not None]
    return dataclasses.replace(op, cap=min(caps, default=None))
