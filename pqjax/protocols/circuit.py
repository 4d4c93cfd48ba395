"""Boolean circuits of a word of each party, on XOR shares of bits.

A circuit begins with the parties' own bits and with lookups: of a digit of rank 1's word in a table
that a digit of rank 0's word tells. What follows are XORs, which are local, and products of shared
bits, round by round. Values are planes: n bits packed in bytes, of n words that go the same way.

  1. rank 1 -> rank 0   its digits, as choices of 1-of-2^m OTs.
  2. rank 0 -> rank 1   the tables' entries, masked by its shares.
  3. both, per round    the openings of the products' operands.     1 bit, and 1 for every factor

References: CrypTFlow2, eprint 2020/1002, algorithm 1; Beaver, CRYPTO 1991.
"""

import dataclasses
import functools
import typing
from collections.abc import Iterable, Iterator

import numpy as np

from pqjax.ot.correlations import Picks, Tables, pick_cost, pick_receive, pick_send
from pqjax.ot.source import Packed, Source
from pqjax.ot.triples import (
    Products,
    draw_products,
    joined,
    pack_planes,
    parted,
    pick_receive_with_triples,
    pick_send_with_triples,
    pick_with_triples_cost,
    products_cost,
)
from pqjax.protocols.party import Party, Share
from pqjax.wire.cost import NOTHING, Cost, crossing, work

Wire = tuple[str, int, int]
Signal = frozenset[Wire]  # the XOR of these
ONE: Signal = frozenset([("one", 0, 0)])
NEVER: Signal = frozenset()
_ALL = np.uint8(255)


def own_bit(rank: int, place: int) -> Signal:
    """Bit `place` of a party's word."""
    return frozenset([("own", rank, place)])


@dataclasses.dataclass(frozen=True)
class Entry:
    """A bit that a table tells of digits a of rank 0 and v of rank 1, each of w bits.

    Attributes:
      kind: of a + v whether it is at least 2^w (`carry`) or 2^w - 1 (`ones`); its bit w - 1 (`sign`) and
        whether one more would change that (`flips`). Or, of the field of both words that begins at
        `low` and has `width` bits, whether their sum is one of `targets` as far as this digit tells:
        whether v is the digit of a target less rank 0's field (`among`).
      targets, low, width: see there.
    """

    kind: typing.Literal["carry", "ones", "sign", "flips", "among"]
    targets: tuple[int, ...] = ()
    low: int = 0
    width: int = 0


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A lookup: the digit of `width` bits from `low` on, and what its table tells."""

    low: int
    width: int
    entries: tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Product:
    """[x y] of a shared bit x for every y, in a round: from 0, the first after the lookups."""

    x: Signal
    ys: tuple[Signal, ...]
    round: int


@dataclasses.dataclass(frozen=True)
class Circuit:
    """Lookups, products and what is wanted of them; see `Draft`."""

    leaves: tuple[Leaf, ...]
    products: tuple[Product, ...]
    outputs: tuple[Signal, ...]

    @functools.cached_property
    def rounds(self) -> tuple[tuple[tuple[int, Product], ...], ...]:
        """The products of every round, each with its number."""
        count = max((p.round + 1 for p in self.products), default=0)
        numbered = list(enumerate(self.products))
        return tuple(tuple(x for x in numbered if x[1].round == i) for i in range(count))

    @functools.cached_property
    def batches(self) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
        """Lookups of as many bits (m) and entries (t) together: m, t, and their numbers."""
        kinds = dict.fromkeys((leaf.width, len(leaf.entries)) for leaf in self.leaves)
        return tuple(
            (m, t, tuple(i for i, x in enumerate(self.leaves) if (x.width, len(x.entries)) == (m, t)))
            for m, t in kinds
        )  # fmt: skip


class Draft:
    """A circuit in the making; products are put into the first round that has their operands."""

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []
        self._products: list[Product] = []

    def look_up(self, low: int, width: int, *entries: Entry) -> tuple[Signal, ...]:
        """What a table tells of a digit, a signal for every entry."""
        self._leaves.append(Leaf(low, width, entries))
        at = len(self._leaves) - 1
        return tuple(frozenset([("leaf", at, i)]) for i in range(len(entries)))

    def multiply(self, x: Signal, *ys: Signal) -> tuple[Signal, ...]:
        """The products of x and every y: of what one pair of random OTs serves."""
        begin = max(self.ready(s) for s in (x, *ys))
        self._products.append(Product(x, ys, begin))
        at = len(self._products) - 1
        return tuple(frozenset([("gate", at, i)]) for i in range(len(ys)))

    def ready(self, signal: Signal) -> int:
        """The first round in which a signal is known."""
        return max(
            (self._products[at].round + 1 for kind, at, _ in signal if kind == "gate"), default=0
        )

    def done(self, *outputs: Signal) -> Circuit:
        """The circuit of these outputs."""
        return Circuit(tuple(self._leaves), tuple(self._products), outputs)


def evaluate(party: Party, circuit: Circuit, own: Share) -> list[Packed]:
    """XOR shares of a circuit's outputs, of n words each of which is `own` at a party: (bytes,) each.

    Cost: `circuit_cost`.
    """
    planes = _Planes(party, circuit, own)
    left = planes.look_up()
    for group in circuit.rounds:
        left = planes.multiply(group, left)
    return [planes.of(signal) for signal in circuit.outputs]


def circuit_cost(source: Source, n: int, circuit: Circuit) -> Cost:
    """The lookups, then 1 bit each way for every product's operand and each of its factors."""
    if not n:
        return NOTHING
    batches = [(len(leaves) * n, m, t) for m, t, leaves in circuit.batches]
    digits = work("words", len(circuit.leaves) * n)
    if source.has_store:
        cost = digits + pick_cost(source, 0, *batches)
    else:
        (batch,) = batches
        cost = digits + pick_with_triples_cost(source, 0, batch, len(circuit.products) * n)
    for group in circuit.rounds:
        if source.has_store:
            cost += products_cost(len(group) * n)
        cost += crossing(sum(1 + len(p.ys) for _, p in group) * n)
    return cost


class _Planes:
    """One party's shares of what is known so far."""

    def __init__(self, party: Party, circuit: Circuit, own: Share) -> None:
        self._party, self._circuit, self._own = party, circuit, own
        self._n = own.size
        self._known: dict[Wire, Packed] = {}

    def of(self, signal: Signal) -> Packed:
        """The share of a signal, not to be written to."""
        found, inverted = None, False
        for wire in sorted(signal):
            kind, rank, place = wire
            if kind == "one":
                inverted = self._party.rank == 0
                continue
            if kind == "own" and rank != self._party.rank:
                continue
            if wire not in self._known:
                self._known[wire] = self._digit(place, 1, packed=True)
            part = self._known[wire]
            found = part if found is None else found ^ part
        if found is None:
            found = np.zeros(-(-self._n // 8), np.uint8)
        return found ^ _ALL if inverted else found

    def _digit(self, low: int, width: int, packed: bool = False) -> np.ndarray:
        found = np.right_shift(self._own, self._own.dtype.type(low))
        found &= found.dtype.type((1 << width) - 1)
        found = found.astype(np.uint8)
        return pack_planes(found) if packed else found

    def look_up(self) -> Products | None:
        """Makes the lookups; without a store also all products there will be."""
        leaves, n, party = self._circuit.leaves, self._n, self._party
        sends, batches, left = party.rank == 0, [], None
        for m, t, members in self._circuit.batches:
            parts = [self._table(leaves[i]) if sends else self._choices(leaves[i]) for i in members]
            every = parts[0] if len(parts) == 1 else np.concatenate(parts)
            batches.append(Tables(every, m, t) if sends else Picks(every, m, t))
        if party.source.has_store:
            shares = (pick_send if sends else pick_receive)(party, *batches)
        else:
            (batch,) = batches
            count = len(self._circuit.products)
            draw = pick_send_with_triples if sends else pick_receive_with_triples
            share, triples = draw(party, batch, count * n)
            shares = [share]
            a, b, c = pack_planes(triples.reshape(3, count, n))
            left = Products(a, b[None], c[None])
        for (_, t, members), share in zip(self._circuit.batches, shares, strict=True):
            every = share.reshape(len(members), n)
            for i in range(t):
                packed = pack_planes(every >> np.uint8(i) & np.uint8(1) if t > 1 else every)
                for row, leaf in enumerate(members):
                    self._known["leaf", leaf, i] = packed[row]
        return left

    def _choices(self, leaf: Leaf) -> np.ndarray:
        return self._digit(leaf.low, leaf.width)

    def _table(self, leaf: Leaf) -> np.ndarray:
        fixed = tuple(e.kind for e in leaf.entries)
        words = np.take(_words(leaf.width, fixed), self._digit(leaf.low, leaf.width))
        for i, entry in enumerate(leaf.entries):
            for target in entry.targets:
                words |= np.take(
                    _places(leaf.width, len(fixed), i), self._wanted(leaf, entry, target)
                )
        return words

    def _wanted(self, leaf: Leaf, entry: Entry, target: int) -> np.ndarray:
        """The digit of a target less the own field: what the other's digit has to be."""
        kind = self._own.dtype.type
        field = kind(target % (1 << entry.width)) - (self._own >> kind(entry.low))
        field >>= kind(leaf.low - entry.low)
        return (field & kind((1 << leaf.width) - 1)).astype(np.uint8)

    def multiply(
        self, group: Iterable[tuple[int, Product]], left: Products | None
    ) -> Products | None:
        """One round of products; what is left of those that were made before."""
        group, n, party = list(group), self._n, self._party
        if left is None:
            width = max(len(p.ys) for _, p in group)
            drawn, rest = draw_products(party, len(group), n, width), None
        else:
            drawn, rest = (
                Products(*(x[..., part, :] for x in left))
                for part in (slice(0, len(group)), slice(len(group), None))
            )
        factors = list(_factors(group))
        masked = [self.of(p.x) ^ drawn.a[i] for i, (_, p) in enumerate(group)]
        masked += [self.of(group[i][1].ys[j]) ^ drawn.b[j, i] for i, j in factors]
        mine = np.stack(masked)
        raw = party.messenger.exchange_bits(joined(mine, n), mine.shape[0] * n)
        opened = mine ^ parted(raw, mine.shape[0], n)
        for (i, j), f in zip(factors, opened[len(group) :], strict=True):
            e = opened[i]
            share = (e & drawn.b[j, i]) ^ (f & drawn.a[i]) ^ drawn.c[j, i]
            self._known["gate", group[i][0], j] = share ^ (e & f) if party.rank == 0 else share
        return rest


def _factors(group: list[tuple[int, Product]]) -> Iterator[tuple[int, int]]:
    """Which product of the round, and which of its factors."""
    for i, (_, product) in enumerate(group):
        yield from ((i, j) for j in range(len(product.ys)))


@functools.cache
def _words(width: int, kinds: tuple[str, ...]) -> np.ndarray:
    """For every digit a the table of all digits v, less what targets add to it."""
    a, v = np.indices((1 << width, 1 << width), np.uint64)
    total, half = a + v, np.uint64(1 << width - 1)
    bits = {
        "carry": total >> np.uint64(width),
        "ones": total == np.uint64((1 << width) - 1),
        "sign": total >> np.uint64(width - 1) & np.uint64(1),
        "flips": (total & half - np.uint64(1)) == half - np.uint64(1),
        "among": np.zeros_like(a),
    }
    t = np.uint64(len(kinds))
    entries = sum(bits[kind].astype(np.uint64) << np.uint64(i) for i, kind in enumerate(kinds))
    return np.bitwise_or.reduce(entries << v * t, axis=1)


@functools.cache
def _places(width: int, count: int, entry: int) -> np.ndarray:
    """For every digit v the word with entry number `entry` of v set."""
    return np.uint64(1) << (
        np.arange(1 << width, dtype=np.uint64) * np.uint64(count) + np.uint64(entry)
    )
