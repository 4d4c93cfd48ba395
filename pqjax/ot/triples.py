"""Bit triples: XOR shares of random bits a, b and of a AND b.

Inline, two triples come from one 1-of-16 OT (CrypTFlow2, eprint 2020/1002): 144 bits each. From a
store, a triple is two random OTs and nothing is sent: in the first the sender's a0 is the
difference of its keys and the receiver's b1 its choice, in the second b0 and a1 change places.
"""

from __future__ import annotations

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.ot.correlations import HasOt, pick_cost
from pqjax.ot.endpoint import Scheme
from pqjax.wire.cost import Cost, draw


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


def triple_ots(n: int) -> int:
    """1-of-16 OTs that hold n triples."""
    return -(-n // 2)


def offered_triples(randomness: Randomness, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sender's part of n inline triples: its shares (3, n) and the tables to offer (n/2,)."""
    half = triple_ots(n)
    own = randomness.bits(4 * half).reshape(half, 4)
    product = randomness.bits(2 * half).reshape(half, 2)
    index = own @ np.array([1, 2, 4, 8], np.uint8)
    mask = product[:, 0].astype(np.uint64) * _EVERY + product[:, 1] * (_EVERY << np.uint64(1))
    return _shares(own, product, n), _PRODUCTS[index] ^ mask


def chosen_triples(randomness: Randomness, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Receiver's part: its bits (n/2, 4) and the choices (n/2,) that encode them."""
    own = randomness.bits(4 * triple_ots(n)).reshape(-1, 4)
    return own, own @ np.array([1, 2, 4, 8], np.uint8)


def taken_triples(own: np.ndarray, entries: np.ndarray, n: int) -> np.ndarray:
    """Receiver's shares (3, n) from its bits and the entries (n/2,) it got."""
    return _shares(own, np.stack([entries & 1, entries >> 1], axis=1), n)


def _shares(own: np.ndarray, product: np.ndarray, n: int) -> np.ndarray:
    a, b = own[:, 0::2].reshape(-1), own[:, 1::2].reshape(-1)
    return np.stack([a, b, product.reshape(-1)])[:, :n]


def stored_triples(party: HasOt, sender: int, n: int) -> np.ndarray:
    """This party's shares (3, n) of n triples from 2n stored random OTs; nothing is sent."""
    if party.messenger.rank == sender:
        zero, one = (key.astype(np.uint8) & 1 for key in party.sender.random_keys(2 * n))
        difference = zero ^ one
        a, b = difference[:n], difference[n:]
        cross = zero[:n] ^ zero[n:]
    else:
        choice, key = party.receiver.random_keys(2 * n)
        b, a = choice[:n], choice[n:]
        key = key.astype(np.uint8) & 1
        cross = key[:n] ^ key[n:]
    return np.stack([a, b, (a & b) ^ cross])


def triples_cost(scheme: Scheme, sender: int, n: int) -> Cost:
    """144 bits a triple inline (for even n), two random OTs from a store."""
    if scheme.stocked:
        return draw(sender, 2 * n)
    return pick_cost(scheme, sender, triple_ots(n), 4, 2)
