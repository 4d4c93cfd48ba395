"""A product of two shared operands: what is multiplied, and what each party multiplies by itself.

With A = A0 + A1 and B = B0 + B1,  A B = A0 B0 + (A0 B1 + A1 B0) + A1 B1:  the first and the last term
are local, those between are a way's (`pqjax.linear.shared`).
"""

import dataclasses
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import UInt

from pqjax.graph.ir import TensorType
from pqjax.linear.choice import Choice
from pqjax.linear.job import Parts
from pqjax.ot.source import Source
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.ring import Ring, kernel, matmul

Matrices = UInt[np.ndarray, "heads rows columns"]


@dataclasses.dataclass(frozen=True)
class ProductJob:
    """Y[h] = A[h] B[h] for matrices A (rows, terms) and B (terms, columns), in a ring of L = `bits`.

    The ring holds every sum. Shares of Y are to have `guard` guard bits, or none where the way leaves
    none. Of `left` and `right` the formats alone count.
    """

    heads: int
    rows: int
    terms: int
    columns: int
    left: TensorType
    right: TensorType
    bits: int
    guard: int = 0

    @property
    def exact_bits(self) -> int:
        """The accumulator's bits and all guard bits but the one that exact shares need in any case."""
        return self.bits + max(1, self.guard) - 1


class ProductWay(Protocol):
    """Shares of [A B]^L, of shares of both.

    Attributes:
      guards: whether its shares have guard bits.
    """

    @property
    def guards(self) -> bool: ...  # noqa: D102

    def unfit(self, job: ProductJob) -> str | None:
        """Why it cannot be done so, None where it can."""
        ...

    def options(self, choice: Choice, job: ProductJob) -> list[Choice]:
        """The choice with all that is to be found for a product."""
        ...

    def parts(self, source: Source, forms: Forms, job: ProductJob) -> Parts:
        """Exact cost, by phase and part."""
        ...

    def prepare(self, party: Party, job: ProductJob, name: str) -> Any:
        """This party's half of what needs no operand."""
        ...

    def run(
        self, party: Party, forms: Forms, job: ProductJob, a: Matrices, b: Matrices, ready: Any
    ) -> Matrices:
        """This party's half, of own shares in their operands' rings, to the ring of Y's shares."""
        ...


def _multiply(a, b, ring):
    return jax.lax.map(lambda pair: matmul(pair[0], pair[1], ring), (a, b))


_multiplied = kernel(_multiply, static=("ring",))


def multiply(a: np.ndarray, b: np.ndarray, ring: Ring) -> Matrices:
    """Multiplies integers (heads, rows, terms) and (heads, terms, columns) in the ring."""
    return np.asarray(_multiplied(a, b, ring=ring))
