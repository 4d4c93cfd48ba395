"""How a linear layer is computed: the method, its variant, the form of its operand, and when."""

import dataclasses
import typing

Form = typing.Literal["patches", "pixels"]
When = typing.Literal["ahead", "shared"]
Chosen = typing.Literal["weights", "pixels"]


class Variant(typing.NamedTuple):
    """What makes room for the sum by being extended, and whose bits choose."""

    extends: typing.Literal["weights", "inputs", "full"]
    chosen: Chosen


# (1) to (4) are PrivQuant's table 4; in `full` the operand already fills the accumulator's ring, so that
# no wrap has to be put right.
VARIANTS: dict[str, Variant] = {
    "1-extend-w-choose-x": Variant("weights", "pixels"),
    "2-extend-w-choose-w": Variant("weights", "weights"),
    "3-extend-x-choose-x": Variant("inputs", "pixels"),
    "4-extend-x-choose-w": Variant("inputs", "weights"),
    "full-choose-x": Variant("full", "pixels"),
    "full-choose-w": Variant("full", "weights"),
}
PRIVQUANT = tuple(VARIANTS)[:4]
FULL = tuple(VARIANTS)[4:]


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a linear layer is computed.

    Attributes:
      method: a key of `METHODS`.
      variant: a key of `VARIANTS`.
      form: whether the operand is multiplied patch by patch (im2col, the padding carried along; one
        group only) or pixel by pixel, each in all its uses.
      when: on a share drawn before the input is known, or on the operand's shares.
    """

    method: str
    variant: str
    form: Form
    when: When

    def __str__(self) -> str:
        return f"{self.variant} by {self.method} on {self.form}, {self.when}"
