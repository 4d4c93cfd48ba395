"""Comparison of private values, and the bits that follow from it: wrap, sign, AND.

Bits are XOR shares: uint8 arrays of 0 and 1. Rank 0 is the OT sender throughout.
"""

from __future__ import annotations

import numpy as np

from pqjax.ot.correlations import (
    cot_cost,
    cot_receive,
    cot_send,
    pick_cost,
    pick_receive,
    pick_send,
)
from pqjax.ot.source import Source, Triples
from pqjax.ot.triples import (
    pick_receive_with_triples,
    pick_send_with_triples,
    pick_with_triples_cost,
    triples_cost,
)
from pqjax.protocols.party import Bits, Party, Share
from pqjax.ring import Ring, digits
from pqjax.wire.cost import NOTHING, Cost, crossing

BIT = Ring(1)
_EVEN = np.uint64(0x5555555555555555)


def _leaf_tables(width: int) -> np.ndarray:
    """Entry v of table a: [a < v] in bit 0 and [a == v] in bit 1, for width-bit digits."""
    tables = np.zeros(1 << width, np.uint64)
    for a in range(1 << width):
        for v in range(1 << width):
            tables[a] |= np.uint64(((a < v) | (a == v) << 1) << (2 * v))
    return tables


def _less_tables(width: int) -> np.ndarray:
    """Entry v of table a: [a < v], one bit."""
    tables = np.zeros(1 << width, np.uint64)
    for a in range(1 << width):
        for v in range(a + 1, 1 << width):
            tables[a] |= np.uint64(1 << v)
    return tables


_LEAVES = {width: _leaf_tables(width) for width in (1, 2, 3, 4)}
_LESS = {width: _less_tables(width) for width in (1, 2, 3, 4)}


def _ands(q: int, equal: bool = False) -> int:
    """ANDs of the merge tree: the lowest branch of each level needs no equality, unless asked."""
    return 2 * (q - 1) - (0 if equal else (q - 1).bit_length())


def and_bits(party: Party, x: Bits, y: Bits, triples: Triples) -> Bits:
    """AND of XOR-shared bits:  [x y].

    With a triple (a, b, c): x y = (x^a)(y^b) ^ (x^a) b ^ (y^b) a ^ c, and x^a, y^b are opened.

      1. both at once   own shares of x^a and y^b.   2 n bits each way

    Args:
      party: this party.
      x: (n,) uint8 bits.
      y: (n,) uint8 bits.
      triples: (3, n) unused triples.

    Cost: `and_cost` without the triples. Reference: Beaver 1991.
    """
    n = x.size
    a, b, c = triples
    masked = np.concatenate([x ^ a, y ^ b])
    opened = masked ^ party.messenger.exchange_elements(masked, BIT)
    e, f = opened[:n], opened[n:]
    own = (e & b) ^ (f & a) ^ c
    return own ^ (e & f) if party.rank == 0 else own


def draw_triples(party: Party, n: int) -> Triples:
    """Makes n bit triples. Cost: `triples_cost` with rank 0 as sender."""
    if party.rank == 0:
        return pick_send_with_triples(party, np.zeros(0, np.uint64), 4, n)
    return pick_receive_with_triples(party, np.zeros(0, np.uint8), 4, n)[1]


def and_cost(source: Source, n: int) -> Cost:
    """148 bits inline with its triple; 4 bits and two random OTs from a store."""
    return triples_cost(source, 0, n) + crossing(2 * n)


def less_than(party: Party, own: Share, bits: int) -> Bits:
    """Millionaires:  [a < b]^B  of rank 0's a and rank 1's b, both `bits` wide.

    Digit by digit a < b is decided by the highest digit in which they differ; pairs of digits merge
    as  lt = lt_high ^ eq_high lt_low,  eq = eq_high eq_low  in a tree of logarithmic depth.

      1. rank 1 -> rank 0   its digits, as 1-of-2^m choices (and those of the triples).
      2. rank 0 -> rank 1   [a < v] and [a == v] for every digit value v, masked by its share.
      3. both, per level    the openings of that level's ANDs.

    Args:
      party: this party.
      own: (n,) ring elements: a at rank 0, b at rank 1.
      bits: their width.

    Returns:
      (n,) uint8 share.

    Cost: `less_than_cost`. Reference: CrypTFlow2, eprint 2020/1002, algorithm 1.
    """
    n = own.size
    q, width = party.source.digits(bits)
    with party.messenger.step("compare"):
        if q == 1:
            return _less_digit(party, np.asarray(digits(own, bits, width))[0], bits)
        lt, eq, triples = _digits_compared(party, own, bits, _ands(q) * n)
        return _merge(party, lt, eq, triples)[0]


def less_and_equal(party: Party, own: Share, bits: int) -> tuple[Bits, Bits]:
    """MillEq:  [a < b]^B and [a == b]^B  of rank 0's a and rank 1's b, both `bits` wide.

    As `less_than`, with the equality of the lowest branch merged as well.

    Returns:
      Two (n,) uint8 shares. Cost: `less_and_equal_cost`. Reference: SiRNN, eprint 2021/459, section
      III.A.
    """
    n = own.size
    q, _ = party.source.digits(bits)
    with party.messenger.step("compare"):
        lt, eq, triples = _digits_compared(party, own, bits, _ands(q, True) * n)
        return _merge(party, lt, eq, triples, equal=True)


def less_and_equal_cost(source: Source, n: int, bits: int) -> Cost:
    """288 q + 148 * 2 (q - 1) inline for more than 4 bits, 256 + 2 * 2^bits for one digit."""
    if not n:
        return NOTHING
    q, width = source.digits(bits)
    return _tree_cost(source, n, q, width, equal=True)


def _digits_compared(
    party: Party, own: np.ndarray, bits: int, ands: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[a < v] and [a == v] digit by digit, (q, n) each and lowest first, and triples to merge them."""
    n = own.size
    q, width = party.source.digits(bits)
    flat = np.asarray(digits(own, bits, width)).reshape(-1)
    if party.rank == 0:
        lt = party.randomness.bits(q * n)
        eq = party.randomness.bits(q * n)
        mask = lt.astype(np.uint64) * _EVEN + eq * (_EVEN << np.uint64(1))
        mask &= np.uint64((1 << (2 << width)) - 1)
        triples = pick_send_with_triples(party, _LEAVES[width][flat] ^ mask, width, ands)
    else:
        got, triples = pick_receive_with_triples(party, flat, width, ands)
        lt, eq = got & 1, got >> 1
    return lt.reshape(q, n), eq.reshape(q, n), triples


def _less_digit(party: Party, digit: Bits, bits: int) -> Bits:
    """`less_than` of one digit of up to 4 bits: a single 1-of-2^bits OT of one-bit messages."""
    if party.rank == 1:
        return pick_receive(party, digit, bits, 1)
    share = party.randomness.bits(digit.size)
    tables = _LESS[bits][digit] ^ (np.uint64(0) - share.astype(np.uint64))
    pick_send(party, tables & np.uint64((1 << (1 << bits)) - 1), bits, 1)
    return share


def _merge(
    party: Party, lt: np.ndarray, eq: np.ndarray, triples: np.ndarray, equal: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Folds digit results (q, n), lowest first, to one (n,) each; [a == b] only if `equal`."""
    n = lt.shape[1]
    used = 0
    while len(lt) > 1:
        pairs, odd = divmod(len(lt), 2)
        high_eq, low_lt = eq[1 : 2 * pairs : 2], lt[0 : 2 * pairs : 2]
        first = 0 if equal else 1  # the lowest branch whose equality is wanted
        low_eq = eq[2 * first : 2 * pairs : 2]
        left = np.concatenate([high_eq, high_eq[first:]]).reshape(-1)
        right = np.concatenate([low_lt, low_eq]).reshape(-1)
        product = and_bits(party, left, right, triples[:, used : used + left.size])
        used += left.size
        both = product.reshape(-1, n)
        new_lt = lt[1 : 2 * pairs : 2] ^ both[:pairs]
        new_eq = np.concatenate([np.zeros((first, n), np.uint8), both[pairs:]])
        if odd:
            new_lt, new_eq = np.concatenate([new_lt, lt[-1:]]), np.concatenate([new_eq, eq[-1:]])
        lt, eq = new_lt, new_eq
    return lt[0], eq[0]


def less_than_cost(source: Source, n: int, bits: int) -> Cost:
    """Inline 256 + 2^bits up to 4 bits (130 for one), else 288 q + 148 T.

    See docs/design.md, "Oblivious transfer".
    """
    if not n:
        return NOTHING
    q, width = source.digits(bits)
    if q == 1:
        return pick_cost(source, 0, n, bits, 1)
    return _tree_cost(source, n, q, width, equal=False)


def _tree_cost(source: Source, n: int, q: int, width: int, equal: bool) -> Cost:
    cost = pick_with_triples_cost(source, 0, q * n, width, _ands(q, equal) * n)
    while q > 1:
        pairs = q // 2
        cost += crossing(2 * (2 * pairs - (0 if equal else 1)) * n)
        q -= pairs
    return cost


def wrap_bit(party: Party, x: Share, bits: int) -> Bits:
    """[x0 + x1 >= 2^bits]^B: whether the shares of x wrap around.

    They do where 2^bits - 1 - x0 < x1: one comparison. Cost: `less_than_cost`.
    """
    ring = Ring(bits)
    return less_than(party, (ring.mask - x).astype(ring.dtype) if party.rank == 0 else x, bits)


def negative(party: Party, x: Share, bits: int) -> Bits:
    """[x < 0]^B for x in two's complement: its most significant bit.

    The top bits of the two shares plus the carry out of the bits below. Cost: `negative_cost`.
    """
    own = (x >> x.dtype.type(bits - 1)).astype(np.uint8)
    if bits == 1:
        return own
    low = Ring(bits - 1).reduce(x)
    return own ^ wrap_bit(party, low, bits - 1)


def negative_cost(source: Source, n: int, bits: int) -> Cost:
    """A comparison of the bits below the top one."""
    return less_than_cost(source, n, bits - 1) if bits > 1 else NOTHING


def known_wrap_bit(party: Party, x: Share, bits: int, by_table: bool = False) -> Bits:
    """`wrap_bit` of an x whose most significant bit is known to be 0, see `known_sign_unfit`.

    Then the shares wrap exactly where one of their top bits is set: w = m0 OR m1.

      1. rank 1 -> rank 0   its top bit, as a choice.
      2. rank 0 -> rank 1   the two possible results, masked.

    Args:
      party: this party.
      x: (n,) shares.
      bits: their width.
      by_table: as one 1-of-4 OT (260 bits), SiRNN's form, instead of one 1-of-2 OT (130 bits).

    Cost: `known_wrap_cost`. Reference: SiRNN, eprint 2021/459, section III.
    """
    top = (x >> x.dtype.type(bits - 1)).astype(np.uint8)
    m = 2 if by_table else 1
    with party.messenger.step("known wrap"):
        if party.rank == 1:
            return pick_receive(party, top, m, 1)
        share = party.randomness.bits(top.size)
        # Entry v is m0 OR (v's low bit), whatever a 1-of-4 table's unused high bit says.
        every = np.uint64((1 << (1 << m)) - 1)
        set_entries = np.where(top != 0, every, np.uint64(0b1010) & every)
        pick_send(party, set_entries ^ ((np.uint64(0) - share.astype(np.uint64)) & every), m, 1)
        return share


def known_sign_unfit(bits: int, low: int, high: int) -> str | None:
    """Why the top bit of values in [low, high] is not known to be 0; None where it is.

    The protocols that rely on it answer by the shares where it is not: never on trust.
    """
    if low < 0 or high >= 1 << (bits - 1):
        return f"its values lie in [{low}, {high}]: the top one of {bits} bits may be set"
    return None


def known_wrap_cost(source: Source, n: int, by_table: bool = False) -> Cost:
    """130 bits inline, 260 by a table."""
    return pick_cost(source, 0, n, 2 if by_table else 1, 1)


def known_wrap_element(party: Party, x: Share, bits: int, ring: Ring) -> Share:
    """The wrap of an x whose top bit is 0, straight as an additive share in `ring`.

    m0 OR m1 = m0 + m1 - m0 m1: one correlated OT of m0 for choice m1, no XOR share in between.

      1. rank 1 -> rank 0   its top bit, as a choice.
      2. rank 0 -> rank 1   m0's correlation.           ring.bits each

    Cost: `known_wrap_element_cost`.
    """
    top = (x >> x.dtype.type(bits - 1)).astype(np.uint8)
    own = top.astype(ring.dtype)
    with party.messenger.step("known wrap"):
        if party.rank == 0:
            return ring.sub(own, cot_send(party, own, ring))
        return ring.sub(own, cot_receive(party, top, ring))


def known_wrap_element_cost(source: Source, n: int, ring: Ring) -> Cost:
    """One correlated OT."""
    return cot_cost(source, 0, n, ring)
