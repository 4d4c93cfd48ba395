"""How a linear layer is multiplied, as data."""

from __future__ import annotations

import dataclasses
import typing

from pqjax.protocols.linear_ot import FULL, PRIVQUANT, VARIANTS

__all__ = ["FULL", "PRIVQUANT", "VARIANTS", "Choice"]

Form = typing.Literal["patches", "pixels"]
When = typing.Literal["ahead", "shared"]


@dataclasses.dataclass(frozen=True)
class Choice:
    method: str
    variant: str
    form: Form = "patches"
    when: When = "shared"

    def __str__(self) -> str:
        return self.variant
