"""The linear part of an attention layer as a network: projections, and products of activations."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int

from pqjax.graph import Conv, Graph, Input, Node, Product, Requantize, TensorType, width_for

PROJECTIONS = ("query", "key", "value", "output")
PRODUCTS = ("scores", "values")


@dataclasses.dataclass(frozen=True)
class Attention:
    """An attention layer. What is left out of it (softmax) is no linear part: scores are requantized.

    Attributes:
      tokens: how many; a pixel each.
      heads: how many.
      width: of a head's queries, keys and values.
      w_bits: of weights.
      bits: of all activations.
    """

    tokens: int
    heads: int
    width: int
    w_bits: int
    bits: int

    @property
    def channels(self) -> int:
        """Of a token."""
        return self.heads * self.width

    def graph(self, projections: bool = True) -> Graph:
        """The layer; without `projections` the input is queries, keys and values at once.

        Accumulators hold whatever weights and activations of their widths add up to.
        """
        tokens, wide, half = self.tokens, self.channels, 1 << self.bits - 1
        x = TensorType((tokens, 1, wide), self.bits, 0)
        nodes: list[Node] = [Input("x", (), x)]

        def projected(name: str, source: str) -> Conv:
            sums = wide * half << self.w_bits - 1
            out = TensorType(x.shape, width_for(-sums, sums), 0)
            geometry = (1, 1), (1, 1), ((0, 0), (0, 0))
            return Conv(name, (source,), out, *geometry, self.w_bits, 0, widths="worst")

        def narrow(name: str, shape: tuple[int, ...], more: int) -> Requantize:
            """Back to activations, from sums that are some bits wider than these."""
            return Requantize(name, (f"{name}.sums",), TensorType(shape, self.bits, -more))

        def product(name: str, sources: tuple[str, str], terms: int, *how) -> Product:
            a, b = (next(n.out for n in nodes if n.name == source) for source in sources)
            most = terms * half * half
            columns = tokens if how[1] else self.width
            shape = (tokens, 1, self.heads * columns)
            out = TensorType(shape, width_for(-most, most), a.scale + b.scale)
            return Product(f"{name}.sums", sources, out, *how)

        names = ("x", "x", "x")
        if projections:
            names = PROJECTIONS[:3]
            for name in names:
                conv = projected(f"{name}.sums", "x")
                nodes += [conv, narrow(name, x.shape, conv.out.bits - self.bits)]
        query, key, value = names
        scores = product("scores", (query, key), self.width, self.heads, True)
        scale = scores.out.scale - (scores.out.bits - self.bits)
        nodes += [scores, narrow("scores", scores.out.shape, -scale)]
        values = product("values", ("scores", value), tokens, self.heads, False)
        scale = values.out.scale - (values.out.bits - self.bits)
        nodes += [values, narrow("values", x.shape, -scale)]
        if projections:
            last = projected("output", "values")
            nodes.append(dataclasses.replace(last, out=dataclasses.replace(last.out, scale=scale)))
        return Graph(tuple(nodes))

    def weights(self, rng: np.random.Generator) -> dict[str, Int[np.ndarray, "..."]]:
        """Random ones, and biases of 0."""
        half, wide, found = 1 << self.w_bits - 1, self.channels, {}
        for name in ("query.sums", "key.sums", "value.sums", "output"):
            found[f"{name}/weight"] = rng.integers(-half, half, (1, 1, wide, wide), np.int8)
            found[f"{name}/bias"] = np.zeros(wide, np.int8)
        return found

    def input(self, rng: np.random.Generator) -> Int[np.ndarray, "tokens 1 channels"]:
        """Random activations."""
        half = 1 << self.bits - 1
        return rng.integers(-half, half, (self.tokens, 1, self.channels))
