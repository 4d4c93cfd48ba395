"""ReLU, max pooling, arg max; average pooling, which is local."""

import numpy as np
from jaxtyping import Int, UInt

from pqjax.ot.source import Source
from pqjax.protocols.compare import negative, negative_cost
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Bits, Party, Share
from pqjax.protocols.resize import select, select_cost
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost

Image = UInt[np.ndarray, "*n height width channels"]
Windows = UInt[np.ndarray, "window *n height width channels"]


def relu(party: Party, x: Share, bits: int, forms: Forms) -> Share:
    """[max(x, 0)]^bits  of a two's complement x: x times NOT [x < 0].

      1. as the comparison of the bits below the sign.
      2. as one MUX.

    Cost: `relu_cost`. Reference: CrypTFlow2, eprint 2020/1002, algorithm 3.
    """
    with party.messenger.step("relu"):
        positive = negative(party, x, bits, forms) ^ np.uint8(1 - party.rank)
        return select(party, x, positive, Ring(bits), forms.relu_chosen)


def relu_unfit(signed: bool) -> str | None:
    """Why `relu` would be wrong on a format; None where it is right."""
    if not signed:
        return "reads two's complement, and its source is unsigned: it is never negative, drop this"
    return None


def relu_cost(source: Source, n: int, bits: int, forms: Forms) -> Cost:
    """Mill(bits - 1) + 2 (128 + 2 bits) with chosen messages, 2 (128 + bits) with correlations."""
    return negative_cost(source, n, bits, forms) + select_cost(
        source, n, Ring(bits), forms.relu_chosen
    )


def window_view(x: Image, window: tuple[int, int], stride: tuple[int, int]) -> Windows:
    """All windows of images (*n, H, W, C): (window elements, *n, H', W', C). No padding."""
    sides = zip(x.shape[-3:-1], window, stride, strict=True)
    height, width = ((side - n) // step + 1 for side, n, step in sides)
    down, right = stride
    corners = np.ndindex(*window)
    return np.stack([x[..., i::down, j::right, :][..., :height, :width, :] for i, j in corners])


def average_pool(
    x: Image, ring: Ring, window: tuple[int, int], stride: tuple[int, int],
    multiplier: int | Int[np.ndarray, "h2 w2 1"] = 1,
) -> Image:  # fmt: skip
    """`multiplier` times the sum of every window, on shares: (*n, H, W, C) -> (*n, H', W', C). Local."""
    total = np.add.reduce(window_view(x, window, stride), axis=0, dtype=ring.dtype)
    return ring.mul(ring.reduce(total), ring.reduce(multiplier))


def average_pool_unfit(bits: int, multiplier: int) -> str | None:
    """Why `average_pool` has no such multiplier; None where it has."""
    if not 1 <= multiplier < 1 << bits:
        return f"a multiplier in 1..{(1 << bits) - 1} expected, got {multiplier}"
    return None


def differences_unfit(bits: int, low: int, high: int) -> str | None:
    """Why values in [low, high] cannot be compared by their difference; None where they can."""
    if high - low >= 1 << (bits - 1):
        return f"has no headroom: values in [{low}, {high}] differ by more than {bits} bits hold"
    return None


def _either(party: Party, x: Share, y: Share, later: Bits, ring: Ring, forms: Forms) -> Share:
    """The second where `later`, else the first."""
    return ring.add(x, select(party, ring.sub(y, x), later, ring, forms.relu_chosen))


def max_tree(party: Party, x: UInt[np.ndarray, "k n"], bits: int, forms: Forms) -> Share:
    """[max over the first axis]^bits  of values (k, n) whose differences fit: `differences_unfit`.

    Pairs meet in a tree: max(x, y) = x + [y > x] (y - x).

      1. per level   a comparison and a MUX of all pairs.

    Cost: `max_tree_cost`. Reference: CrypTFlow2, section 5.
    """
    ring = Ring(bits)
    with party.messenger.step("max"):
        while len(x) > 1:
            pairs, odd = divmod(len(x), 2)
            left, right = x[0 : 2 * pairs : 2].reshape(-1), x[1 : 2 * pairs : 2].reshape(-1)
            later = negative(party, ring.sub(left, right), bits, forms)  # right > left
            best = _either(party, left, right, later, ring, forms)
            x = np.concatenate([best.reshape(pairs, -1), x[len(x) - odd :]])
    return x[0]


def max_tree_cost(source: Source, k: int, n: int, bits: int, forms: Forms) -> Cost:
    """(k - 1) n comparisons and MUX in ceil(log2 k) levels."""
    cost = NOTHING
    while k > 1:
        pairs = k // 2
        cost += negative_cost(source, pairs * n, bits, forms)
        cost += select_cost(source, pairs * n, Ring(bits), forms.relu_chosen)
        k -= pairs
    return cost


def arg_max(
    party: Party, x: UInt[np.ndarray, "k n"], bits: int, index_bits: int, forms: Forms
) -> Share:
    """[index of the largest]^index_bits  of two's complement values (k, n), the first if equal.

    Differences of values must fit: `differences_unfit`. `max_tree` with an index that moves along
    with its value; a later element must be strictly larger to win.

      1. per level   a comparison, a MUX of the values and one of the indices.

    Makes (n,) shares of the indices. Cost: `arg_max_cost`.
    """
    ring, places = Ring(bits), Ring(index_bits)
    index = np.arange(len(x)) if party.rank == 0 else np.zeros(len(x), np.int64)
    index = np.broadcast_to(places.reduce(index)[:, None], x.shape)
    with party.messenger.step("argmax"):
        while len(x) > 1:
            pairs, odd = divmod(len(x), 2)
            left, right, first, second = (
                v[at : 2 * pairs : 2].reshape(-1) for v in (x, index) for at in (0, 1)
            )
            later = negative(party, ring.sub(left, right), bits, forms)  # right > left
            best = _either(party, left, right, later, ring, forms)
            where = _either(party, first, second, later, places, forms)
            x = np.concatenate([best.reshape(pairs, -1), x[len(x) - odd :]])
            index = np.concatenate([where.reshape(pairs, -1), index[len(index) - odd :]])
    return index[0]


def arg_max_cost(source: Source, k: int, n: int, bits: int, index_bits: int, forms: Forms) -> Cost:
    """(k - 1) n times a comparison, a MUX of `bits` and a MUX of `index_bits`."""
    cost = NOTHING
    while k > 1:
        pairs = k // 2
        cost += negative_cost(source, pairs * n, bits, forms)
        cost += select_cost(source, pairs * n, Ring(bits), forms.relu_chosen)
        cost += select_cost(source, pairs * n, Ring(index_bits), forms.relu_chosen)
        k -= pairs
    return cost
