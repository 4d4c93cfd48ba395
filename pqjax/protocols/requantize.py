"""Requantization of shared values: (bits, scale) to (bits, scale), rounding, wrapping or saturating.

The arithmetic is `pqjax.graph.Requantize`'s, exactly: add half a unit, shift right with floor, then
keep the low bits (`wrap`) or clamp to the new format's range (`saturate`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pqjax.graph.ir import Rule, TensorType
from pqjax.ot.endpoint import Scheme
from pqjax.protocols.compare import and_bits, and_cost, draw_triples, negative, negative_cost
from pqjax.protocols.nonlinear import relu, relu_cost
from pqjax.protocols.party import Party
from pqjax.protocols.resize import (
    Forms,
    extend,
    extend_cost,
    select,
    select_cost,
    truncate_reduce,
    truncate_reduce_cost,
)
from pqjax.ring import Ring
from pqjax.wire.cost import Cost


def _flip(party: Party, b: np.ndarray) -> np.ndarray:
    """NOT of an XOR-shared bit: rank 0 flips its share."""
    return b ^ np.uint8(1 - party.rank)


def _constant(party: Party, ring: Ring, value: int) -> np.ndarray:
    """This party's share of a public constant: all of it at rank 0."""
    return ring.reduce(value if party.rank == 0 else 0)


def clamp_from_zero(
    party: Party, x: np.ndarray, bits: int, high: int, out: Ring, nonnegative: bool, forms: Forms
) -> np.ndarray:
    """[min(max(x, 0), high)]^out of a signed x: ReLU and saturation in one step.

    With n = [x < 0] and o = [x > high], y = x + o (high - x) + n (0 - x), both products in the few
    bits of the result. o is the sign of x - high - 1, which can only wrap around where x is
    negative, so the two comparisons run side by side and o = not n AND sign.

      1. as one comparison of 2 n elements (n if x is known to be nonnegative).
      2. as one AND of n bits (not if nonnegative).
      3. as one MUX of 2 n elements (n if nonnegative).

    Cost: `clamp_from_zero_cost`.
    """
    ring = Ring(bits)
    n = x.size
    above = ring.sub(x, _constant(party, ring, high + 1))
    narrow = out.reduce(x)
    to_high = out.sub(_constant(party, out, high), narrow)
    with party.messenger.step("clamp"):
        if nonnegative:
            over = _flip(party, negative(party, above, bits))
            return out.add(narrow, select(party, to_high, over, out, forms.relu_chosen))
        signs = negative(party, np.concatenate([x, above]), bits)
        below = signs[:n]
        triples = draw_triples(party, n)
        over = and_bits(party, _flip(party, below), _flip(party, signs[n:]), triples)
        moves = select(
            party,
            np.concatenate([to_high, out.neg(narrow)]),
            np.concatenate([over, below]),
            out,
            forms.relu_chosen,
        )
    return out.add(narrow, out.add(moves[:n], moves[n:]))


def clamp_from_zero_cost(
    scheme: Scheme, n: int, bits: int, out: Ring, nonnegative: bool, forms: Forms
) -> Cost:
    """A comparison and a MUX; twice as many and an AND where the sign is open."""
    if nonnegative:
        return negative_cost(scheme, n, bits) + select_cost(scheme, n, out, forms.relu_chosen)
    return (
        negative_cost(scheme, 2 * n, bits)
        + and_cost(scheme, n)
        + select_cost(scheme, 2 * n, out, forms.relu_chosen)
    )


def clamp(
    party: Party, x: np.ndarray, bits: int, low: int, high: int, out: Ring, forms: Forms
) -> np.ndarray:
    """[min(max(x, low), high)]^out of a signed x, for any low <= 0 <= high.

    One more bit keeps x - high - 1 and x - low from wrapping around; then two comparisons and two
    MUX as in `clamp_from_zero`. Cost: `clamp_cost`.
    """
    ring = Ring(bits + 1)
    n = x.size
    with party.messenger.step("clamp"):
        wide = extend(party, x, bits, bits + 1, forms=forms)
        above = ring.sub(wide, _constant(party, ring, high + 1))
        below = ring.sub(wide, _constant(party, ring, low))
        signs = negative(party, np.concatenate([above, below]), bits + 1)
        narrow = out.reduce(x)
        moves = select(
            party,
            np.concatenate([out.sub(_constant(party, out, at), narrow) for at in (high, low)]),
            np.concatenate([_flip(party, signs[:n]), signs[n:]]),
            out,
            forms.relu_chosen,
        )
    return out.add(narrow, out.add(moves[:n], moves[n:]))


def clamp_cost(scheme: Scheme, n: int, bits: int, out: Ring, forms: Forms) -> Cost:
    """An extension by one bit, two comparisons, two MUX."""
    return (
        extend_cost(scheme, n, bits, bits + 1, forms=forms)
        + negative_cost(scheme, 2 * n, bits + 1)
        + select_cost(scheme, 2 * n, out, forms.relu_chosen)
    )


def _needs(source: TensorType, out: TensorType, shift: int) -> tuple[bool, bool]:
    """Whether the shifted source can leave the new range (below, above)."""
    half = (1 << shift) >> 1
    return (source.low + half) >> shift < out.low, (source.high + half) >> shift > out.high


def requantize(
    party: Party,
    x: np.ndarray,
    source: TensorType,
    out: TensorType,
    rule: Rule,
    forms: Forms,
) -> np.ndarray:
    """Moves x from `source` to `out`.

    Saturating to a range that begins at 0 is a ReLU as well, at no extra cost.

    Rounding adds 2^(shift - 1) at rank 0, which must not overflow `source.bits` (the graph's
    validator sees to it).

      1. TR by the shift.
      2. saturate: clamp (`clamp_from_zero`, `clamp`); wrap: drop bits or extend.

    Args:
      party: this party.
      x: (n,) shares mod 2^source.bits.
      source: the format x has.
      out: the format to reach; out.bits is the result's ring.
      rule: what happens to values outside of `out`.
      forms: forms of the small protocols.

    Returns:
      (n,) shares mod 2^out.bits.

    Cost: `requantize_cost`. Reference: PrivQuant, algorithm 1, with the corrections of DESIGN
    section 6 and exact saturation.
    """
    shift = source.scale - out.scale
    with party.messenger.step("requantize"):
        if shift < 0:  # an exact product: extend first, or it would overflow
            wide = _scaled(source, out)
            x = extend(party, x, source.bits, wide.bits, source.signed, source.nonnegative, forms)
            x = Ring(wide.bits).shift_left(x, -shift)
            if wide.bits == out.bits:
                return x
            return requantize(party, x, wide, out, rule, forms)
        ring = Ring(source.bits)
        if shift and party.rank == 0:
            x = ring.add(x, ring.reduce((1 << shift) >> 1))
        below, above = _needs(source, out, shift)
        bits = source.bits - shift
        if rule == "saturate" and (below or above):
            x = truncate_reduce(party, x, source.bits, shift)
            target = Ring(out.bits)
            if below and not above and out.low == 0:  # the range is wider than what is left: a ReLU
                x = relu(party, x, bits, forms)
                return extend(party, x, bits, out.bits, nonnegative=True, forms=forms)
            if out.low == 0 and source.signed:
                return clamp_from_zero(party, x, bits, out.high, target, not below, forms)
            if not source.signed:  # a signed format one bit wider holds it
                x, bits = extend(party, x, bits, bits + 1, False, forms=forms), bits + 1
                return clamp_from_zero(party, x, bits, out.high, target, True, forms)
            return clamp(party, x, bits, out.low, out.high, target, forms)
        if forms.cut_first and bits > out.bits:
            x, bits = Ring(shift + out.bits).reduce(x), out.bits
        x = truncate_reduce(party, x, bits + shift, shift)
        return extend(party, x, bits, out.bits, source.signed, source.nonnegative, forms)


def _scaled(source: TensorType, out: TensorType) -> TensorType:
    """The format that holds a source scaled up to out.scale, no wider than `out` if it fits."""
    shift = out.scale - source.scale
    fits = source.low << shift >= out.low and source.high << shift <= out.high
    bits = out.bits if fits else max(out.bits, source.bits + shift)
    return dataclasses.replace(source, bits=bits, scale=out.scale)


def requantize_cost(
    scheme: Scheme, n: int, source: TensorType, out: TensorType, rule: Rule, forms: Forms
) -> Cost:
    """What `requantize` sends."""
    shift = source.scale - out.scale
    if shift < 0:
        wide = _scaled(source, out)
        cost = extend_cost(
            scheme, n, source.bits, wide.bits, source.signed, source.nonnegative, forms
        )
        if wide.bits == out.bits:
            return cost
        return cost + requantize_cost(scheme, n, wide, out, rule, forms)
    below, above = _needs(source, out, shift)
    bits = source.bits - shift
    if rule == "saturate" and (below or above):
        cost = truncate_reduce_cost(scheme, n, source.bits, shift)
        target = Ring(out.bits)
        if below and not above and out.low == 0:
            return (
                cost
                + relu_cost(scheme, n, bits, forms)
                + extend_cost(scheme, n, bits, out.bits, nonnegative=True, forms=forms)
            )
        if out.low == 0 and source.signed:
            return cost + clamp_from_zero_cost(scheme, n, bits, target, not below, forms)
        if not source.signed:
            cost += extend_cost(scheme, n, bits, bits + 1, False, forms=forms)
            return cost + clamp_from_zero_cost(scheme, n, bits + 1, target, True, forms)
        return cost + clamp_cost(scheme, n, bits, target, forms)
    if forms.cut_first and bits > out.bits:
        bits = out.bits
    return truncate_reduce_cost(scheme, n, bits + shift, shift) + extend_cost(
        scheme, n, bits, out.bits, source.signed, source.nonnegative, forms
    )
