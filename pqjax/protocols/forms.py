"""Which of several equivalent forms of the small protocols to use."""

import dataclasses
import typing

from pqjax.schema import Between

MOST_FLOW_BITS = 1 << 63


@dataclasses.dataclass(frozen=True)
class Forms:
    """Part of a preset.

    Attributes:
      known_wrap: how a wrap with known sign bit is computed: `table` (one 1-of-4 OT, 260 bits, then
        B2A), `choice` (one 1-of-2 OT, 130 bits, then B2A) or `element` (one COT, no B2A).
      relu_chosen: multiplexers of ReLU send two chosen messages, 2(128 + 2 l) bits, as the papers'
        code does, instead of one correlation, 2(128 + l).
      flow_bits: how many bits one flow is worth where OTs come out of a store: comparisons of many
        bits take fewer bits in more flows (`pqjax.protocols.adder`). What a link sends in half a round
        trip, where a plan is made for one.
    """

    known_wrap: typing.Literal["table", "choice", "element"] = "element"
    relu_chosen: bool = False
    flow_bits: typing.Annotated[int, Between(0, MOST_FLOW_BITS)] = 1 << 20
