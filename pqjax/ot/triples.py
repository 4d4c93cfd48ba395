"""Bit triples: XOR shares of random bits a, b and of a AND b.

Two come from a 1-of-16 OT (CrypTFlow2, eprint 2020/1002), which other picks may accompany. Or one is two
random OTs and nothing is sent (eprint 2013/552): in the first the sender's a0 is the difference of its
keys and the receiver's b1 its choice, in the second b0 and a1 change places.
"""

from __future__ import annotations

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.ot.correlations import pick_cost, pick_receive, pick_send
from pqjax.ot.source import Choices, Chosen, HasOt, Offered, Source, Triples, Words
from pqjax.wire.cost import Cost


def _product_tables() -> np.ndarray:
    """Entry v of table s: both products (a0^a1)(b0^b1) for s = a0,b0,a0',b0', v likewise."""
    tables = np.zeros(16, np.uint64)
    for s in range(16):
        for v in range(16):
            mixed = s ^ v
            first = (mixed & 1) & (mixed >> 1)
            second = (mixed >> 2 & 1) & (mixed >> 3)
            tables[s] |= np.uint64((first | second << 1) << (2 * v))
    return tables


_PRODUCTS = _product_tables()
_EVERY = np.uint64(0x55555555)
_PLACES = np.array([1, 2, 4, 8], np.uint8)


def triple_picks(n: int) -> int:
    """1-of-16 OTs that hold n triples."""
    return -(-n // 2)


def offered_triples(randomness: Randomness, n: int) -> Offered:
    """Sender's part of n triples in picks: the tables to offer, and then its shares."""
    half = triple_picks(n)
    own = randomness.bits(4 * half).reshape(half, 4)
    product = randomness.bits(2 * half).reshape(half, 2)
    mask = product[:, 0].astype(np.uint64) * _EVERY + product[:, 1] * (_EVERY << np.uint64(1))
    return _PRODUCTS[own @ _PLACES] ^ mask, lambda: _shares(own, product, n)


def chosen_triples(randomness: Randomness, n: int) -> Chosen:
    """Receiver's part of n triples in picks: its choices, and then its shares of the entries."""
    own = randomness.bits(4 * triple_picks(n)).reshape(-1, 4)
    return own @ _PLACES, lambda got: _shares(own, np.stack([got & 1, got >> 1], axis=1), n)


def _shares(own: np.ndarray, product: np.ndarray, n: int) -> Triples:
    a, b = own[:, 0::2].reshape(-1), own[:, 1::2].reshape(-1)
    return np.stack([a, b, product.reshape(-1)])[:, :n]


def triples_of_keys(zero: Words, one: Words) -> Triples:
    """Sender's shares of n triples, of both keys of 2n random OTs."""
    key = zero.astype(np.uint8) & 1
    a, b = (key ^ (one.astype(np.uint8) & 1)).reshape(2, -1)
    return _crossed(a, b, key)


def triples_of_choices(choices: Choices, keys: Words) -> Triples:
    """Receiver's shares of n triples, of its choices and their keys in 2n random OTs."""
    b, a = choices.reshape(2, -1)
    return _crossed(a, b, keys.astype(np.uint8) & 1)


def _crossed(a: np.ndarray, b: np.ndarray, key: np.ndarray) -> Triples:
    """Own product and both cross terms: a0 b1 is shared by the first key, b0 a1 by the second."""
    first, second = key.reshape(2, -1)
    return np.stack([a, b, (a & b) ^ first ^ second])


def pick_send_with_triples(party: HasOt, tables: Words, m: int, n: int) -> Triples:
    """As sender: 1-of-2^m OTs of two bits an entry, and shares of n bit triples.

    What messages the triples take accompany those of the tables.

    Cost: `pick_with_triples_cost`. Reference: CrypTFlow2, eprint 2020/1002.
    """
    more, finish = party.sender.triples(party.randomness, n)
    pick_send(party, np.concatenate([tables, more]), m, 2)
    return finish()


def pick_receive_with_triples(
    party: HasOt, choices: Choices, m: int, n: int
) -> tuple[Choices, Triples]:
    """As receiver: the entries that `choices` select, and shares of n bit triples."""
    more, finish = party.receiver.triples(party.randomness, n)
    got = pick_receive(party, np.concatenate([choices, more]), m, 2)
    return got[: choices.size], finish(got[choices.size :])


def pick_with_triples_cost(source: Source, sender: int, picks: int, m: int, n: int) -> Cost:
    """`picks` 1-of-2^m OTs and n triples: 144 bits a triple inline, for even n; two stored OTs."""
    beside = pick_cost(source, sender, picks + source.triple_picks(n), m, 2)
    return beside + source.triples(sender, n)


def triples_cost(source: Source, sender: int, n: int) -> Cost:
    """Triples alone."""
    return pick_with_triples_cost(source, sender, 0, 4, n)
