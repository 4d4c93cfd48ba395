"""Comparison of private values, and the bits that follow from it: wrap, sign, AND.

Bits are XOR shares: uint8 arrays of 0 and 1. Rank 0 is the OT sender throughout.
"""

import numpy as np

from pqjax.ot import correlations as ot
from pqjax.ot.correlations import Picks, Tables
from pqjax.ot.source import Source, Triples
from pqjax.ot.triples import (
    draw_products,
    pick_receive_with_triples,
    pick_send_with_triples,
    pick_with_triples_cost,
    products_cost,
    unpack_planes,
)
from pqjax.protocols.adder import carry_and_ones_circuit, carry_circuit
from pqjax.protocols.circuit import circuit_cost, evaluate
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Bits, Party, Share
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, crossing

BIT = Ring(1)
USUAL = Forms()


def and_bits(party: Party, x: Bits, y: Bits) -> Bits:
    """AND of XOR-shared bits:  [x y].

    With a triple (a, b, c): x y = (x^a)(y^b) ^ (x^a) b ^ (y^b) a ^ c, and x^a, y^b are opened.

      1. both at once   own shares of x^a and y^b.   2 n bits each way

    Cost: `and_cost`. Reference: Beaver 1991.
    """
    n = x.size
    a, b, c = draw_triples(party, n)
    masked = np.concatenate([x ^ a, y ^ b])
    opened = masked ^ party.messenger.exchange_elements(masked, BIT)
    e, f = opened[:n], opened[n:]
    own = (e & b) ^ (f & a) ^ c
    return own ^ (e & f) if party.rank == 0 else own


def draw_triples(party: Party, n: int) -> Triples:
    """N bit triples, out of the store or made. Cost: `triples_cost`."""
    if party.source.has_store:
        a, b, c = draw_products(party, 1, n, 1)
        return unpack_planes(np.stack([a[0], b[0, 0], c[0, 0]]), n)
    if party.rank == 0:
        return pick_send_with_triples(party, Tables(np.zeros(0, np.uint64), 4, 2), n)[1]
    return pick_receive_with_triples(party, Picks(np.zeros(0, np.uint8), 4, 2), n)[1]


def triples_cost(source: Source, n: int) -> Cost:
    """144 bits a triple inline, for even n; two random OTs from a store."""
    return products_cost(n) if source.has_store else pick_with_triples_cost(source, 0, (0, 4, 2), n)


def and_cost(source: Source, n: int) -> Cost:
    """148 bits inline with its triple; 4 bits and two random OTs from a store."""
    return triples_cost(source, n) + crossing(2 * n)


def carry_out(party: Party, own: Share, bits: int, forms: Forms = USUAL) -> Bits:
    """[x0 + x1 >= 2^bits]^B of one word of each party, of `bits` bits.

    Digit by digit or bit by bit from below, whatever costs least (`pqjax.protocols.adder`).

      1. rank 1 -> rank 0   its digits, as 1-of-2^m choices (and those of triples, inline).
      2. rank 0 -> rank 1   what a digit does to a carry, for every digit value, masked by its share.
      3. both, per round    the openings of that round's ANDs.

    Cost: `carry_out_cost`. Reference: CrypTFlow2, eprint 2020/1002, algorithm 1.
    """
    with party.messenger.step("compare"):
        circuit = carry_circuit(party.source, own.size, bits, forms)
        (carry,) = evaluate(party, circuit, _padded(party, own, bits))
    return unpack_planes(carry, own.size)


def _padded(party: Party, own: Share, bits: int) -> Share:
    """A carry goes through what pads the last digit: ones of rank 0, zeros of rank 1."""
    return own if party.rank else own | ~Ring(bits).mask


def carry_out_cost(source: Source, n: int, bits: int, forms: Forms = USUAL) -> Cost:
    """Inline 256 + 2^bits up to 4 bits (130 for one), else 288 q + 148 T for q digits of 4 bits."""
    return circuit_cost(source, n, carry_circuit(source, n, bits, forms)) if n else NOTHING


def less_than(party: Party, own: Share, bits: int, forms: Forms = USUAL) -> Bits:
    """Millionaires:  [a < b]^B  of rank 0's a and rank 1's b, both `bits` wide.

    Where 2^bits - 1 - a + b makes a carry. `own` is a at rank 0, b at rank 1. Cost: `carry_out_cost`.
    """
    return carry_out(party, _complement(party, own, bits), bits, forms)


def _complement(party: Party, own: Share, bits: int) -> Share:
    return own if party.rank else Ring(bits).mask - own


def less_and_equal(party: Party, own: Share, bits: int) -> tuple[Bits, Bits]:
    """MillEq:  [a < b]^B and [a == b]^B  of rank 0's a and rank 1's b, both `bits` wide.

    As `less_than`, with the equality of the lowest branch merged as well.

    Cost: `less_and_equal_cost`. Reference: SiRNN, eprint 2021/459, section III.A.
    """
    mine = _padded(party, _complement(party, own, bits), bits)
    with party.messenger.step("compare"):
        found = evaluate(party, carry_and_ones_circuit(party.source, bits), mine)
    less, equal = (unpack_planes(plane, own.size) for plane in found)
    return less, equal


def less_and_equal_cost(source: Source, n: int, bits: int) -> Cost:
    """288 q + 148 * 2 (q - 1) inline for more than 4 bits, 256 + 2 * 2^bits for one digit."""
    return circuit_cost(source, n, carry_and_ones_circuit(source, bits)) if n else NOTHING


def wrap_bit(party: Party, x: Share, bits: int, forms: Forms = USUAL) -> Bits:
    """[x0 + x1 >= 2^bits]^B: whether the shares of x wrap around. Cost: `carry_out_cost`."""
    return carry_out(party, x, bits, forms)


def negative(party: Party, x: Share, bits: int, forms: Forms = USUAL) -> Bits:
    """[x < 0]^B for x in two's complement: its most significant bit.

    The top bits of the two shares plus the carry out of the bits below. Cost: `negative_cost`.
    """
    own = (x >> x.dtype.type(bits - 1)).astype(np.uint8)
    if bits == 1:
        return own
    low = Ring(bits - 1).reduce(x)
    return own ^ wrap_bit(party, low, bits - 1, forms)


def negative_cost(source: Source, n: int, bits: int, forms: Forms = USUAL) -> Cost:
    """A comparison of the bits below the top one."""
    return carry_out_cost(source, n, bits - 1, forms) if bits > 1 else NOTHING


def known_wrap_bit(party: Party, x: Share, bits: int, by_table: bool = False) -> Bits:
    """`wrap_bit` of an x whose most significant bit is known to be 0, see `known_sign_unfit`.

    Then the shares wrap exactly where one of their top bits is set: w = m0 OR m1.

      1. rank 1 -> rank 0   its top bit, as a choice.
      2. rank 0 -> rank 1   the two possible results, masked.

    With `by_table` as one 1-of-4 OT (260 bits), SiRNN's form, instead of one 1-of-2 OT (130 bits).

    Cost: `known_wrap_cost`. Reference: SiRNN, eprint 2021/459, section III.
    """
    top = (x >> x.dtype.type(bits - 1)).astype(np.uint8)
    m = 2 if by_table else 1
    with party.messenger.step("known wrap"):
        if party.rank == 1:
            (share,) = ot.pick_receive(party, Picks(top, m, 1))
            return share
        # Entry v is m0 OR (v's low bit), whatever a 1-of-4 table's unused high bit says.
        every = np.uint64((1 << (1 << m)) - 1)
        words = np.where(top != 0, every, np.uint64(0b1010) & every)
        (share,) = ot.pick_send(party, Tables(words, m, 1))
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
    return ot.pick_cost(source, 0, (n, 2 if by_table else 1, 1))


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
            return ring.sub(own, ot.cot_send(party, own, ring))
        return ring.sub(own, ot.cot_receive(party, top, ring))


def known_wrap_element_cost(source: Source, n: int, ring: Ring) -> Cost:
    """One correlated OT."""
    return ot.cot_cost(source, 0, n, ring)
