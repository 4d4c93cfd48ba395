"""How a linear layer is computed: the method, its variant, the form of its operand, and when."""

import dataclasses
import typing

from pqjax.schema import Between, Product

Form = typing.Literal["patches", "pixels"]
When = typing.Literal["ahead", "shared"]
Packed = typing.Literal["none", "within", "cross"]
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


_Count = typing.Annotated[int, Between(1, 1 << 12)]
_Width = typing.Annotated[int, Between(1, 64)]


@dataclasses.dataclass(frozen=True)
class Packing:
    """How a layer lies in polynomials, and how many bits of them travel (`pqjax.he`).

    Attributes:
      tile: height and width of a tile of the padded image.
      filters: how many share a hint.
      sent_bits: high bits of a ciphertext's coefficient.
      hint_bits: high bits of a hint's coefficient.
      merged: how many filters' hints are merged into one; 1 where none are.
      key_bits: bits that the keys which merge them hold at least.
    """

    tile: typing.Annotated[tuple[_Count, _Count], Product(1 << 12)]
    filters: _Count
    sent_bits: _Width
    hint_bits: _Width
    merged: _Count = 1
    key_bits: typing.Annotated[int, Between(0, 64)] = 0

    def __str__(self) -> str:
        high, wide = self.tile
        each = f"{self.filters} a hint" if self.merged == 1 else f"{self.merged} in one"
        return f"{high}x{wide}, {each}, {self.sent_bits} and {self.hint_bits} bits"


@dataclasses.dataclass(frozen=True)
class ReplyPacking:
    """How a layer whose result comes back lies in polynomials, and how many bits travel (`pqjax.he`).

    Attributes:
      tile: height and width of a tile of the padded image.
      filters: how many share a polynomial of the reply.
      degree: N.
      sent_bits: log2 q, of a ciphertext's coefficient.
      c1_bits, c0_bits: high bits of a reply's coefficients.
      packed: which two sums share a coefficient, if any do (`pqjax.he.packing`).
    """

    tile: typing.Annotated[tuple[_Count, _Count], Product(1 << 12)]
    filters: _Count
    degree: _Count
    sent_bits: _Width
    c1_bits: _Width
    c0_bits: _Width
    packed: Packed

    def __str__(self) -> str:
        high, wide = self.tile
        back = f"{self.c1_bits} and {self.c0_bits}"
        packed = "" if self.packed == "none" else f", packed {self.packed}"
        return (
            f"{high}x{wide}, {self.filters} a reply, N = {self.degree}, {self.sent_bits} bits up, "
            f"{back} back{packed}"
        )


@dataclasses.dataclass(frozen=True)
class ProductPacking:
    """How a product of two shared operands lies in polynomials (`pqjax.he.bilinear`).

    Attributes:
      block: rows of A, columns of A, columns of B in one product of polynomials.
      degree, sent_bits, c1_bits, c0_bits: as of `ReplyPacking`.
    """

    block: typing.Annotated[tuple[_Count, _Count, _Count], Product(1 << 12)]
    degree: _Count
    sent_bits: _Width
    c1_bits: _Width
    c0_bits: _Width

    def __str__(self) -> str:
        block, back = "x".join(map(str, self.block)), f"{self.c1_bits} and {self.c0_bits}"
        return f"{block}, N = {self.degree}, {self.sent_bits} bits up, {back} back"


AnyPacking = Packing | ReplyPacking | ProductPacking


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a linear layer, or a product of two shared operands, is computed.

    Attributes:
      method: as `pqjax.linear.way` knows it, such as a key of `METHODS`.
      variant: one of the method's, such as a key of `VARIANTS`.
      form: whether the operand is multiplied patch by patch (im2col, the padding carried along; one
        group only) or pixel by pixel, each in all its uses.
      when: on a share drawn before the input is known, or on the operand's shares.
      packing: how it lies in polynomials, where anything is encrypted; in a preset None, to be found
        for each layer.
    """

    method: str
    variant: str
    form: Form
    when: When
    packing: AnyPacking | None = None

    @property
    def title(self) -> str:
        """The variant and what is particular to the layer, for tables."""
        return self.variant if self.packing is None else f"{self.variant} ({self.packing})"

    def __str__(self) -> str:
        return f"{self.title} by {self.method} on {self.form}, {self.when}"
