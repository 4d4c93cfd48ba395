"""Bit triples: XOR shares of random bits a, b and of a AND b; of stored OTs with several b for one a.

Two come from a 1-of-16 OT (CrypTFlow2, eprint 2020/1002), which other picks may accompany. Or one is a
random OT each way and nothing is sent (eprint 2013/552): a party's a is its choice in one of them, its
b the difference of the keys that it has in the other, of as many bits as there are b.
"""

import typing

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.ot.correlations import Picks, Tables, pick_cost, pick_receive, pick_send
from pqjax.ot.source import Choices, Chosen, HasOt, Offered, Packed, Source, Triples, keys_work
from pqjax.ring import pack
from pqjax.wire.cost import NOTHING, Cost, draw, total


def _product_tables() -> np.ndarray:
    """Entry v of table s: both products (a0^a1)(b0^b1) for s = a0,b0,a0',b0', v likewise."""
    s, v = np.indices((16, 16), np.uint64)
    first, second = ((s ^ v) >> np.uint64(i) & ((s ^ v) >> np.uint64(i + 1)) & 1 for i in (0, 2))
    return np.bitwise_or.reduce((first | second << 1) << (2 * v), axis=1)


_PRODUCTS = _product_tables()
_PLACES = np.array([1, 2, 4, 8], np.uint8)


def triple_picks(n: int) -> int:
    """1-of-16 OTs that hold n triples."""
    return -(-n // 2)


def offered_triples(randomness: Randomness, n: int) -> Offered:
    """Sender's part of n triples in picks: the tables to offer, and then its shares."""
    own = randomness.bits(4 * triple_picks(n)).reshape(-1, 4)
    return _PRODUCTS[own @ _PLACES], lambda share: _shares(own, share, n)


def chosen_triples(randomness: Randomness, n: int) -> Chosen:
    """Receiver's part of n triples in picks: its choices, and then its shares of the entries."""
    own = randomness.bits(4 * triple_picks(n)).reshape(-1, 4)
    return own @ _PLACES, lambda share: _shares(own, share, n)


def _shares(own: np.ndarray, products: Choices, n: int) -> Triples:
    a, b = own[:, 0::2].reshape(-1), own[:, 1::2].reshape(-1)
    return np.stack([a, b, np.stack([products & 1, products >> 1], axis=1).reshape(-1)])[:, :n]


def pick_send_with_triples(party: HasOt, batch: Tables, n: int) -> tuple[Choices, Triples]:
    """As sender: shares of what 1-of-2^m OTs give, and of n bit triples that accompany them.

    Of a source without a store. Cost: `pick_with_triples_cost`. Reference: CrypTFlow2, eprint 2020/1002.
    """
    more, finish = party.sender.triples(party.randomness, n)
    words = np.concatenate([batch.words, more])
    (share,) = pick_send(party, batch._replace(words=words))
    return share[: len(batch.words)], finish(share[len(batch.words) :])


def pick_receive_with_triples(party: HasOt, batch: Picks, n: int) -> tuple[Choices, Triples]:
    """As receiver, likewise. Cost: `pick_with_triples_cost`."""
    more, finish = party.receiver.triples(party.randomness, n)
    (share,) = pick_receive(party, batch._replace(choices=np.concatenate([batch.choices, more])))
    return share[: batch.choices.size], finish(share[batch.choices.size :])


def pick_with_triples_cost(
    source: Source, sender: int, batch: tuple[int, int, int], n: int
) -> Cost:
    """A batch (picks, m, t) and n triples: 144 bits a triple for even n."""
    picks, m, t = batch
    return pick_cost(source, sender, (picks + source.triple_picks(n), m, t))


class Products(typing.NamedTuple):
    """One party's XOR shares of random bits and their products, n of each in a packed plane.

    Attributes:
      a: (planes, bytes), and to each of them, all random:
      b: (width, planes, bytes).
      c: shares of a AND b, (width, planes, bytes).
    """

    a: Packed
    b: Packed
    c: Packed


def draw_products(party: HasOt, planes: int, n: int, width: int) -> Products:
    """Random products out of the store, both parties at once. Cost: `products_cost`."""
    zero, one = party.sender.random_bits(planes * n, width)
    choices, keys = party.receiver.random_bits(planes * n, width)
    a = pack_planes(choices.reshape(planes, n))
    shape = (width, planes, n)
    crossed, own = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    for i in range(width):
        at = np.uint8(i)
        np.bitwise_and((zero ^ keys).reshape(planes, n) >> at, np.uint8(1), out=crossed[i])
        np.bitwise_and((zero ^ one).reshape(planes, n) >> at, np.uint8(1), out=own[i])
    b = pack_planes(own)
    return Products(a, b, pack_planes(crossed) ^ (a & b))


def products_cost(n: int) -> Cost:
    """A random OT each way, whatever the width."""
    if not n:
        return NOTHING
    keys = (*keys_work(0, n), *keys_work(1, n))  # as sender and as receiver, in any order
    return total([draw(0, n), draw(1, n), *keys])


def pack_planes(bits: np.ndarray) -> Packed:
    """Bits (*planes, n) to bytes (*planes, ceil(n / 8)), the first bit lowest."""
    return np.packbits(bits, axis=-1, bitorder="little")


def unpack_planes(planes: Packed, n: int) -> np.ndarray:
    """Inverts `pack_planes`."""
    return np.unpackbits(planes, axis=-1, count=n, bitorder="little")


def joined(planes: Packed, n: int) -> np.ndarray:
    """Planes of n bits (*planes, bytes) as one string of bits, without what fills up bytes."""
    return planes.reshape(-1) if n % 8 == 0 else pack(unpack_planes(planes, n).reshape(-1), 1)


def parted(raw: np.ndarray, planes: int, n: int) -> Packed:
    """Inverts `joined`."""
    if n % 8 == 0:
        return raw.reshape(planes, -1)
    bits = np.unpackbits(raw, count=planes * n, bitorder="little")
    return pack_planes(bits.reshape(planes, n))
