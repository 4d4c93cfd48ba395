"""Clamping shared values to a range: the saturation of a requantization."""

import numpy as np
from jaxtyping import UInt

from pqjax.ot.source import Source
from pqjax.protocols.compare import and_bits, and_cost, negative, negative_cost
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Bits, Party, Share
from pqjax.protocols.resize import extend, extend_cost, select, select_cost
from pqjax.ring import Ring
from pqjax.wire.cost import Cost


def _flip(party: Party, b: Bits) -> Bits:
    """NOT of an XOR-shared bit: rank 0 flips its share."""
    return b ^ np.uint8(1 - party.rank)


def _constant(party: Party, ring: Ring, value: int) -> UInt[np.ndarray, ""]:
    """This party's share of a public constant: all of it at rank 0."""
    return ring.reduce(value if party.rank == 0 else 0)


def clamp_from_zero(
    party: Party, x: Share, bits: int, high: int, out: Ring, nonnegative: bool, forms: Forms
) -> Share:
    """[min(max(x, 0), high)]^out of a signed x: ReLU and saturation in one step.

    With n = [x < 0] and o = [x > high], y = x + o (high - x) + n (0 - x), both products in the few
    bits of the result. o is the sign of x - high - 1, which can only wrap around where x is
    negative, so the two comparisons run side by side and o = not n AND sign.

      1. as one comparison of 2 n elements (n if x is known to be nonnegative).
      2. as one AND of n bits (not if nonnegative).
      3. as one MUX of 2 n elements (n if nonnegative).

    Cost: `clamp_cost`.
    """
    ring = Ring(bits)
    n = x.size
    above = ring.sub(x, _constant(party, ring, high + 1))
    narrow = out.reduce(x)
    to_high = out.sub(_constant(party, out, high), narrow)
    with party.messenger.step("clamp"):
        if nonnegative:
            over = _flip(party, negative(party, above, bits, forms))
            return out.add(narrow, select(party, to_high, over, out, forms.relu_chosen))
        signs = negative(party, np.concatenate([x, above]), bits, forms)
        below = signs[:n]
        over = and_bits(party, _flip(party, below), _flip(party, signs[n:]))
        ways, when = np.concatenate([to_high, out.neg(narrow)]), np.concatenate([over, below])
        moves = select(party, ways, when, out, forms.relu_chosen)
    return out.add(narrow, out.add(moves[:n], moves[n:]))


def clamp_between(
    party: Party, x: Share, bits: int, low: int, high: int, out: Ring, forms: Forms
) -> Share:
    """[min(max(x, low), high)]^out of a signed x, for any low <= 0 <= high.

    One more bit keeps x - high - 1 and x - low from wrapping around; then two comparisons and two
    MUX as in `clamp_from_zero`. Cost: `clamp_cost`.
    """
    ring = Ring(bits + 1)
    n = x.size
    with party.messenger.step("clamp"):
        wide = extend(party, x, bits, bits + 1, True, False, forms)
        above = ring.sub(wide, _constant(party, ring, high + 1))
        below = ring.sub(wide, _constant(party, ring, low))
        signs = negative(party, np.concatenate([above, below]), bits + 1, forms)
        narrow = out.reduce(x)
        ways = [out.sub(_constant(party, out, at), narrow) for at in (high, low)]
        when = np.concatenate([_flip(party, signs[:n]), signs[n:]])
        moves = select(party, np.concatenate(ways), when, out, forms.relu_chosen)
    return out.add(narrow, out.add(moves[:n], moves[n:]))


def clamp(
    party: Party,
    x: Share,
    bits: int,
    low: int,
    high: int,
    out: Ring,
    nonnegative: bool,
    forms: Forms,
) -> Share:
    """[min(max(x, low), high)]^out of a signed x, for low <= 0 <= high within x's range.

    From (n,) shares mod 2^bits to (n,) shares in `out`, of at most `bits` bits; `nonnegative` is the
    fact that x is. What it needs: `clamp_unfit`. Cost: `clamp_cost`.
    """
    if low == 0 or nonnegative:
        return clamp_from_zero(party, x, bits, high, out, nonnegative, forms)
    return clamp_between(party, x, bits, low, high, out, forms)


def clamp_unfit(
    bits: int, signed: bool, nonnegative: bool, low: int, high: int, out_bits: int
) -> str | None:
    """Why `clamp` would be wrong on a source of `bits` bits; None where it is right."""
    smallest, largest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if not signed:
        return "clamps signed values; extend its source to a signed format first"
    if not low <= 0 <= high:
        return f"limits around 0 expected, got [{low}, {high}]"
    if low < smallest or high > largest:
        return (
            f"limits within its source's range [{smallest}, {largest}] expected, got [{low}, {high}]: "
            f"write [{max(low, smallest)}, {min(high, largest)}]"
        )
    if out_bits > bits:
        return f"makes at most its source's {bits} bits, not {out_bits}: extend afterwards"
    if bits == 64 and low < 0 and not nonnegative:
        return "compares in one bit more than its source has, and 64 is the most: narrow it before"
    return None


def clamp_cost(
    source: Source, n: int, bits: int, low: int, out: Ring, nonnegative: bool, forms: Forms
) -> Cost:
    """A comparison and a MUX; two of both where the sign is open, and an AND or an extension."""
    moves = select_cost(source, n if nonnegative else 2 * n, out, forms.relu_chosen)
    if nonnegative:
        return negative_cost(source, n, bits, forms) + moves
    if low == 0:
        return negative_cost(source, 2 * n, bits, forms) + and_cost(source, n) + moves
    wide = extend_cost(source, n, bits, bits + 1, True, False, forms)
    return wide + negative_cost(source, 2 * n, bits + 1, forms) + moves
