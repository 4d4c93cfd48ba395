"""Sizes that shape frames and bound memory: part of a plan, because both sides need the same."""

import dataclasses
import typing

from pqjax.schema import Between, check

_LEAST = 1 << 8  # of what is counted in elements: a stranger's plan has a bearable number of pieces
MOST_TILE = 1 << 19  # elements
MOST_OFFERED = (
    3 * MOST_TILE
)  # choices that a receiver says in one message: three an element of a tile


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How much goes into one message or one step. No result and no cost in bits depends on it.

    The bounds keep what a stranger's plan makes this side hold at a time within four times that of ours,
    and its stored OTs within half a gibibyte.

    Attributes:
      chunk_ots: OTs of a message, each of them a row of 16 bytes; fewer where vectors are long. So
        many that hashing one message overlaps sending another.
      product_elements: elements of a message of a matrix product.
      tile_elements: elements of a tensor that take an element-wise step together: half an image of
        112 x 112 x 64, whose random OTs are some 300 MiB.
      stream_above: stored OTs of an inference from which on they are made layer by layer and not
        all ahead; each takes 16 bytes until it is used.

    Raises:
      InputError: a size out of its bounds.
    """

    chunk_ots: typing.Annotated[int, Between(_LEAST, 1 << 18)] = 1 << 16
    product_elements: typing.Annotated[int, Between(_LEAST, 1 << 22)] = 1 << 20
    tile_elements: typing.Annotated[int, Between(_LEAST, MOST_TILE)] = 49 << 13
    stream_above: typing.Annotated[int, Between(0, 1 << 25)] = 1 << 25

    def __post_init__(self) -> None:
        check(Tuning, self)

    def chunks(self, n: int, width: int = 1) -> list[slice]:
        """Cuts n OTs, of vectors of `width` elements each, into messages."""
        step = self.chunk_ots // min(_LEAST, max(1, width // 16))
        return [slice(at, min(at + step, n)) for at in range(0, n, step)]
