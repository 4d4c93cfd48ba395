"""Changing the width and scale of shared values: B2A, MUX, extension, truncation.

Every function is exact. `ring` arrays are additive shares mod 2^bits, bits are XOR shares.
"""

from pqjax.ot import correlations as ot
from pqjax.ot.source import Source
from pqjax.protocols import compare
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Bits, Party, Share
from pqjax.ring import Ring, blockwise
from pqjax.wire.cost import NOTHING, Cost


def _masked_product(x, b, bits):
    """Correlation x (1 - 2b) and own product x b of the multiplexer."""
    ring = Ring(bits)
    sign = ring.dtype.type(1) - ring.dtype.type(2) * b.astype(ring.dtype)
    return ring.reduce(x * sign), ring.reduce(x * b.astype(ring.dtype))


_masked_product_rows = blockwise(_masked_product, static=("bits",))


def bit_to_ring(party: Party, b: Bits, ring: Ring) -> Share:
    """B2A:  [b]^B -> [b]^ring.

    Over the integers b0 ^ b1 = b0 + b1 - 2 b0 b1, so only b0 b1 needs the wire.

      1. rank 1 -> rank 0   its bit, as a choice.
      2. rank 0 -> rank 1   b0's correlation.       ring.bits each, from a store one bit less

    What is doubled may lack its top bit; the published protocols send it. Free in a ring of one bit.

    Cost: `bit_to_ring_cost`. Reference: CrypTFlow2, eprint 2020/1002.
    """
    own = b.astype(ring.dtype)
    if ring.bits == 1:
        return own
    part = halved(party.source, ring)
    with party.messenger.step("b2a"):
        mine = own.astype(part.dtype)
        both = ot.cot_send(party, mine, part) if party.rank == 0 else ot.cot_receive(party, b, part)
    return ring.sub(own, ring.shift_left(both.astype(ring.dtype), 1))


def halved(source: Source, ring: Ring) -> Ring:
    """The ring of what is to be doubled in another one."""
    return Ring(ring.bits - 1) if source.has_store else ring


def bit_to_ring_cost(source: Source, n: int, ring: Ring) -> Cost:
    """One correlated OT: 128 + l inline, of l - 1 bits from a store; nothing for one bit."""
    return ot.cot_cost(source, 0, n, halved(source, ring)) if ring.bits > 1 else NOTHING


def select(party: Party, x: Share, b: Bits, ring: Ring, chosen: bool = False) -> Share:
    """MUX:  [x b]^ring  of a shared x and an XOR-shared bit b.

    x_i (b_i ^ b_j) = x_i b_i + b_j x_i (1 - 2 b_i), so each party's x is the correlation of an OT in
    which the other party's bit is the choice.

      1. both at once   own bit, as a choice.
      2. both at once   the correlation (ring.bits) or, `chosen`, both messages (2 ring.bits).

    Cost: `select_cost`. Reference: CrypTFlow2; with correlations SiRNN, eprint 2021/459.
    """
    correlation, own = _masked_product_rows(x, b, bits=ring.bits)
    with party.messenger.step("mux"):
        if not chosen:
            return ring.add(own, ot.cot_both(party, correlation, b, ring))
        mask = party.randomness.elements(x.size, ring)
        first = ring.sub(own, mask)
        got = ot.chosen_both(party, first, ring.add(first, correlation), b, ring)
        return ring.add(mask, got)


def select_cost(source: Source, n: int, ring: Ring, chosen: bool = False) -> Cost:
    """2 (128 + l) inline, 2 (128 + 2 l) with chosen messages."""
    return (ot.chosen_both_cost if chosen else ot.cot_both_cost)(source, n, ring)


def _zero_extend(party: Party, x: Share, bits: int, to: int, known: bool, forms: Forms) -> Share:
    """x0 + x1 - 2^bits w in the wider ring; w is needed modulo 2^(to - bits) only."""
    high, wide = Ring(to - bits), Ring(to)
    if known and forms.known_wrap == "element":
        wrap = compare.known_wrap_element(party, x, bits, high)
    elif known:
        known_wrap = compare.known_wrap_bit(party, x, bits, forms.known_wrap == "table")
        wrap = bit_to_ring(party, known_wrap, high)
    else:
        wrap = bit_to_ring(party, compare.wrap_bit(party, x, bits, forms), high)
    return wide.sub(x.astype(wide.dtype), wide.shift_left(wrap.astype(wide.dtype), bits))


def extend(
    party: Party, x: Share, bits: int, to: int, signed: bool, nonnegative: bool, forms: Forms
) -> Share:
    """Ext:  [x]^bits -> [x]^to, x read as two's complement or as unsigned.

    x = x0 + x1 - 2^bits w with w the wrap of the shares. A signed x is moved to the unsigned range
    by adding 2^(bits - 1) first and back afterwards; if its sign bit is known to be 0 it need not be
    moved and w is cheap.

      1. as the wrap (see `compare`).
      2. as B2A of the wrap into the to - bits high bits.

    `to` is at least `bits`; `nonnegative` is the fact that a signed x's top bit is 0, and `forms` says
    how its wrap is computed.

    Cost: `extend_cost`. Reference: SiRNN, eprint 2021/459, algorithm 1.
    """
    if to <= bits:
        return Ring(to).reduce(x)
    with party.messenger.step("extend"):
        if not signed or nonnegative:
            return _zero_extend(party, x, bits, to, signed and nonnegative, forms)
        offset = 1 << (bits - 1)
        narrow, wide = Ring(bits), Ring(to)
        if party.rank == 0:
            x = narrow.add(x, narrow.dtype.type(offset))
        y = _zero_extend(party, x, bits, to, False, forms)
        return wide.sub(y, wide.dtype.type(offset)) if party.rank == 0 else y


def extend_unfit(bits: int, to: int) -> str | None:
    """Why `extend` cannot make `to` bits of `bits`; None where it can."""
    if to < bits:
        return f"makes at least its source's {bits} bits, not {to}: narrow instead"
    return None


def extend_cost(
    source: Source, n: int, bits: int, to: int, signed: bool, nonnegative: bool, forms: Forms
) -> Cost:
    """Wrap(bits) + 128 + (to - bits) inline; the cheap wrap where the sign is known."""
    if to <= bits:
        return NOTHING
    high = Ring(to - bits)
    if signed and nonnegative:
        if forms.known_wrap == "element":
            return compare.known_wrap_element_cost(source, n, high)
        wrap = compare.known_wrap_cost(source, n, forms.known_wrap == "table")
    else:
        wrap = compare.carry_out_cost(source, n, bits, forms)
    return wrap + bit_to_ring_cost(source, n, high)


def truncate_reduce(
    party: Party,
    x: Share,
    bits: int,
    shift: int,
    keep: int | None = None,
    forms: Forms = compare.USUAL,
) -> Share:
    """TR:  [x]^bits -> [floor(x / 2^shift)]^(bits - shift), or its low `keep` bits.

    The shares' high parts add up but for the carry out of the low parts, which is a wrap. Bits above
    those kept are dropped first, where B2A would otherwise carry them along.

      1. as the wrap of the low `shift` bits.
      2. as B2A of it into the bits that stay.

    0 <= shift < bits, and 1 <= keep <= bits - shift: all of them by default.

    Cost: `truncate_reduce_cost`. Reference: SiRNN, eprint 2021/459, section III.
    """
    high = Ring(bits - shift if keep is None else keep)
    if shift == 0:
        return high.reduce(x)
    ring, low = Ring(bits), Ring(shift)
    with party.messenger.step("truncate"):
        carry = bit_to_ring(party, compare.wrap_bit(party, low.reduce(x), shift, forms), high)
    return high.add(high.reduce(x >> ring.dtype.type(shift)), carry)


def truncate_reduce_unfit(bits: int, shift: int, keep: int) -> str | None:
    """Why `truncate_reduce` cannot be had; None where it can."""
    if not 0 <= shift < bits:
        return f"shifts {bits} bits by {shift}: nothing would be left"
    if not 1 <= keep <= bits - shift:
        return f"leaves {bits - shift} bits, of which {keep} cannot be kept"
    return None


def truncate_reduce_cost(
    source: Source,
    n: int,
    bits: int,
    shift: int,
    keep: int | None = None,
    forms: Forms = compare.USUAL,
) -> Cost:
    """Wrap(shift) + 128 + (bits - shift) inline."""
    if shift == 0:
        return NOTHING
    high = Ring(bits - shift if keep is None else keep)
    return compare.carry_out_cost(source, n, shift, forms) + bit_to_ring_cost(source, n, high)


def truncate(
    party: Party, x: Share, bits: int, shift: int, signed: bool, nonnegative: bool, forms: Forms
) -> Share:
    """Trunc:  [x]^bits -> [floor(x / 2^shift)]^bits, in full width.

    x0 / 2^shift + x1 / 2^shift + c - 2^(bits - shift) w, each floored, with c the carry out of the
    low parts and w the wrap of the whole shares: w = [high parts wrap] ^ [they are all ones] c. A
    signed x is moved by 2^(bits - 1) first and back afterwards, unless its sign is known.

      1. as the wrap of the low `shift` bits.
      2. as a comparison with equality of the high parts, and one AND (one cheap wrap if the sign is
         known).
      3. as B2A of c in `bits` bits, and of w in `shift` bits.

    0 < shift < bits; `signed`, `nonnegative` and `forms` as for `extend`.

    Cost: `truncate_cost`. Reference: SiRNN, eprint 2021/459, algorithm 2; PrivQuant's proposition
    4.1 replaces it by TR and Ext, which is cheaper.
    """
    ring, low, high = Ring(bits), Ring(shift), Ring(bits - shift)
    known = signed and nonnegative
    moved = signed and not nonnegative
    if moved and party.rank == 0:
        x = ring.add(x, ring.reduce(1 << (bits - 1)))
    parts = x >> ring.dtype.type(shift)
    with party.messenger.step("truncate"):
        carry = compare.wrap_bit(party, low.reduce(x), shift, forms)
        if known:
            wrap = compare.known_wrap_bit(party, x, bits, forms.known_wrap == "table")
        else:
            own = high.reduce(parts)
            own = (high.mask - own).astype(high.dtype) if party.rank == 0 else own
            wraps, ones = compare.less_and_equal(party, own, high.bits)
            wrap = wraps ^ compare.and_bits(party, ones, carry)
        up = bit_to_ring(party, carry, ring)
        over = bit_to_ring(party, wrap, low)
    y = ring.sub(ring.add(parts, up), ring.shift_left(over.astype(ring.dtype), high.bits))
    if moved and party.rank == 0:
        y = ring.sub(y, ring.reduce(1 << (bits - 1 - shift)))
    return y


def truncate_unfit(bits: int, shift: int, known: bool, rounded: bool) -> str | None:
    """Why `truncate` would be wrong; None where it is right.

    `known` is whether x is read with a top bit known to be 0, `rounded` whether what is added to x
    before may set that bit.
    """
    if not 0 < shift < bits:
        return f"shifts {bits} bits by {shift}: nothing would be left"
    if known and rounded:
        return (
            "rounds a value whose sign is known to be 0 and may lose it by that: read it anew by a "
            "Narrow to the same width, without the fact, first"
        )
    return None


def truncate_cost(
    source: Source, n: int, bits: int, shift: int, signed: bool, nonnegative: bool, forms: Forms
) -> Cost:
    """Wrap(s) + MillEq(l - s) + AND + B2A(l) + B2A(s); with known sign its wrap instead of MillEq."""
    cost = compare.carry_out_cost(source, n, shift, forms)
    if signed and nonnegative:
        cost += compare.known_wrap_cost(source, n, forms.known_wrap == "table")
    else:
        cost += compare.less_and_equal_cost(source, n, bits - shift) + compare.and_cost(source, n)
    cost += bit_to_ring_cost(source, n, Ring(bits))
    return cost + bit_to_ring_cost(source, n, Ring(shift))
