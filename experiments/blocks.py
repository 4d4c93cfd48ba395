"""Residual blocks of ResNet32 and ResNet50 as integer graphs, at any widths, for what they cost.

A block takes its residual operand and gives the next one. It adds in one of two ways, which compute
different integers (the first rounds the convolution's result before the addition):

    described    requantize accumulator and residual to (l_res + 1, s_res), add, requantize  [figure 5a]
    simplified   align the residual to the accumulator, add there, requantize once           [figure 5b]
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Int

from pqjax.graph import Add, Conv, Graph, Input, Node, Relu, Requantize, Rule, TensorType
from pqjax.planner import Plan

Style = Literal["described", "simplified"]
KINDS: tuple[str, ...] = ("convolution", "ReLU", "requantization", "residual addition")


@dataclasses.dataclass(frozen=True)
class Block:
    """One residual block.

    Attributes:
      name: for tables.
      side: of the image.
      channels: of the residual.
      middle: channels between; None for a basic block of two 3x3 convolutions, else a bottleneck.
    """

    name: str
    side: int
    channels: int
    middle: int | None = None

    @property
    def layers(self) -> list[tuple[int, int, int]]:
        """(kernel, channels in, channels out) of every convolution."""
        c, m = self.channels, self.middle
        return [(3, c, c), (3, c, c)] if m is None else [(1, c, m), (3, m, m), (1, m, c)]


RESNET32 = {s: Block(f"ResNet32, stage {s}", 64 >> s, 8 << s) for s in (1, 2, 3)}
RESNET50 = {s: Block(f"ResNet50, stage {s}", 112 >> s, 128 << s, 32 << s) for s in (1, 2, 3, 4)}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Widths of a block.

    Attributes:
      weight_bits, bits, residual_bits: of weights, activations and residuals.
      style: how the addition is done.
      rule: of every requantization.
      positive: whether the residual is known not to be negative, as it is behind a ReLU.
    """

    weight_bits: int
    bits: int
    residual_bits: int
    style: Style
    rule: Rule = "saturate"
    positive: bool = True


def build(
    block: Block, setting: Setting, seed: int = 0
) -> tuple[Graph, dict[str, Int[np.ndarray, "*s"]]]:
    """The block as a graph with random weights; facts about signs are left to the planner.

    Scales: residual 2^4, weights 2^(bits + 3), as in our trained networks; activations keep the top
    bits of a residual.
    """
    rng = np.random.default_rng(seed)
    shape = (block.side, block.side, block.channels)
    residual = TensorType(shape, setting.residual_bits, 4, nonnegative=setting.positive)
    nodes: list[Node] = [Input("residual", (), residual)]
    weights: dict[str, np.ndarray] = {}
    scale = 4 - (setting.residual_bits - setting.bits)
    at = "residual"
    if setting.bits < setting.residual_bits:
        at = "requantize in"
        narrow = dataclasses.replace(residual, bits=setting.bits, scale=scale)
        nodes.append(Requantize(at, ("residual",), narrow, rounding="floor"))
    last, weight_scale = len(block.layers), setting.weight_bits + 3
    for i, (kernel, c, k) in enumerate(block.layers, 1):
        name = f"conv{i}"
        half = 1 << (setting.weight_bits - 1)
        weights[f"{name}/weight"] = rng.integers(-half, half, (kernel, kernel, c, k))
        weights[f"{name}/bias"] = np.zeros(k, np.int64)
        bits = setting.weight_bits + setting.bits + (kernel * kernel * c - 1).bit_length()
        out = TensorType((block.side, block.side, k), bits, scale + weight_scale)
        kernels, margin = (kernel, kernel), (kernel // 2, kernel // 2)
        shape = kernels, (1, 1), (margin, margin)
        nodes.append(Conv(name, (at,), out, *shape, setting.weight_bits, weight_scale))
        if i < last:
            nodes.append(Relu(f"relu{i}", (name,), out))
            at = f"requantize {i}"
            narrow = TensorType(out.shape, setting.bits, scale)
            nodes.append(Requantize(at, (f"relu{i}",), narrow, rule=setting.rule))
    nodes += _addition(f"conv{last}", nodes[-1].out, residual, setting)
    return Graph(tuple(nodes)), weights


def _addition(conv: str, acc: TensorType, residual: TensorType, setting: Setting) -> list[Node]:
    residual = dataclasses.replace(residual, nonnegative=False)  # the sum's, before its ReLU
    if setting.style == "simplified":
        common = acc
        operands: list[Node] = []
        left = conv
    else:
        common = dataclasses.replace(residual, bits=residual.bits + 1)
        left = "residual left"
        operands = [
            Requantize("residual cut", (conv,), residual, rule=setting.rule),
            Requantize(left, ("residual cut",), common, rule="wrap"),
        ]
    return [
        *operands,
        Requantize("residual right", ("residual",), common, rule="wrap", rounding="floor"),
        Add("residual sum", (left, "residual right"), common),
        Relu("relu out", ("residual sum",), common),
        Requantize("residual out", ("relu out",), residual, rule=setting.rule),
    ]


def kind_of(name: str) -> str:
    """To which of `KINDS` a step belongs, by its name."""
    for start, kind in zip(("conv", "relu", "requantize", "residual"), KINDS, strict=True):
        if name.startswith(start):
            return kind
    raise ValueError(f"no kind of step is named {name!r}")


def by_kind(plan: Plan) -> dict[str, int]:
    """Bits of a block's steps by kind; the making of stored OTs is shared out by their number.

    The block's own input is not counted: inside a network it is there already.
    """
    found = dict.fromkeys(KINDS, 0)
    drawn = dict.fromkeys(KINDS, 0)
    for step in plan.steps:
        if step.node.sources:
            kind = kind_of(step.node.name)
            found[kind] += step.cost.bits
            drawn[kind] += sum(step.cost.offline.rots) + sum(step.cost.online.rots)
    stock = plan.cost("offline", "random ots").bits
    for kind in KINDS:
        if sum(drawn.values()):
            found[kind] += round(stock * drawn[kind] / sum(drawn.values()))
    return found
