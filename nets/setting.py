"""Bits of a network's tensors by what layers are: what results and commands call W8A8 or W4A6."""

from __future__ import annotations

import dataclasses
import re

from nets.ops import Architecture
from nets.quantized import Widths
from pqjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Setting:
    """Bits of a network's tensors.

    Attributes:
      name: as results call it.
      weights: of layers without groups.
      depthwise: of those with groups, which have few products.
      ends: of the first layer and of the last.
      activations: of what layers read; unsigned after ReLU6, signed after bottlenecks.
      residual: of what is added.
    """

    name: str
    weights: int
    depthwise: int
    ends: int
    activations: int
    residual: int = 8

    def __post_init__(self) -> None:
        given = self.weights, self.depthwise, self.ends
        if not all(2 <= bits <= 8 for bits in (*given, self.activations)):
            raise InputError(f"{self.name}: weights and activations of 2..8 bits expected")
        if not self.activations <= self.residual <= 16:
            raise InputError(f"{self.name}: residuals of {self.activations}..16 bits expected")

    @staticmethod
    def parse(text: str) -> Setting:
        """Reads "W8A8" or "W4A6R10": W of all weights but the ends', which have 8.

        Raises:
          InputError: it is not so written, or a width is out of its range.
        """
        found = re.fullmatch(r"W(\d{1,2})A(\d{1,2})(?:R(\d{1,2}))?", text.upper())
        if found is None:
            raise InputError(f"bits like W8A8, W6A6 or W4A6R10 expected, got {text!r}")
        weights, activations = int(found[1]), int(found[2])
        residual = int(found[3]) if found[3] else 8 if activations >= 8 else 10
        return Setting(text.upper(), weights, weights, 8, activations, residual)

    def widths(self, architecture: Architecture) -> Widths:
        """By layer."""
        last = len(architecture.layers) - 1
        bits = [
            self.ends if i in (0, last) else self.depthwise if layer.groups > 1 else self.weights
            for i, layer in enumerate(architecture.layers)
        ]
        return Widths(tuple(bits), self.activations, residual=self.residual, head=8)


SETTINGS = {
    s.name: s
    for s in (
        Setting.parse("W8A8"),
        Setting.parse("W6A6"),
        Setting.parse("W4A6"),
        Setting.parse("W4A4"),
        Setting("mixed W4/8A8", 4, 8, 8, 8),
        Setting("mixed W4/8A6", 4, 8, 8, 6, 10),
    )
}
