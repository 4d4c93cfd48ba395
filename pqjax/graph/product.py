"""Products of two tensors that are both computed: of activations, as in attention."""

import dataclasses
import itertools

from pqjax.graph import bounds
from pqjax.graph.node import Node
from pqjax.graph.tensor import Interval, Known, TensorType


@dataclasses.dataclass(frozen=True)
class Product(Node):
    """Matrix products Y[h] = A[h] B[h] of two shared tensors, one for every head.

    Images are matrices: a row a pixel, and a head's columns beside each other among the channels. A is
    (m, k) of an (H, W, heads k) image of m pixels. B is (k, n) of an image of k pixels and heads n
    channels or, `transposed`, B^T is (n, k) of one of n pixels and heads k channels. Makes (H, W, heads
    n), an accumulator that holds every sum.
    """

    heads: bounds.Groups
    transposed: bool = False

    arity = (2, 2)
    sides = 3
    multiplies = True

    def shape(self, a: TensorType, b: TensorType) -> bounds.Shape:
        """A pixel for each of A's rows, a channel for each of B's columns and heads."""
        if a.shape[2] % self.heads or b.shape[2] % self.heads:
            raise self.error(
                f"{self.heads} heads do not divide {a.shape[2]} and {b.shape[2]} channels"
            )
        rows = b.shape[0] * b.shape[1]
        terms, columns = (b.shape[2] // self.heads, rows)[:: 1 if self.transposed else -1]
        if terms != self.terms(a):
            raise self.error(
                f"sums {self.terms(a)} products of its first source, {terms} of the other"
            )
        return (*a.shape[:2], self.heads * columns)

    def terms(self, a: TensorType) -> int:
        """k: products that one accumulator sums, of such a first source."""
        return a.shape[2] // self.heads

    def reach(self, a: Known, b: Known) -> Interval:
        """Of any values that the sources may have."""
        scale = a.out.scale + b.out.scale
        if self.out.scale != scale:
            raise self.error(f"scale must be {a.out.scale} + {b.out.scale}, got {self.out.scale}")
        if not self.out.signed or self.out.nonnegative:
            raise self.error("an accumulator is signed, and nothing is known about its sign")
        ends = [x * y for x, y in itertools.product((a.low, a.high), (b.low, b.high))]
        terms = self.terms(a.out)
        return min(ends) * terms, max(ends) * terms
