"""What a party sees: frames, all it can decrypt from them, its own coins and its own output share.

Protocols run here in the OT-hybrid model. `IdealSender` and `IdealReceiver` stand in for the ends of
`pqjax.ot.source`: requests are uniform bits that depend on nothing, pads are uniform. In the
direction in which the party that looks on is receiver, the pad of every message it chose is zero (a
receiver's view has to be independent of the other's secret for any value of that pad): so the frames
on the wire *are* what it decrypts, and all it did not choose is noise. In the other direction it
knows both pads and learns no choice.

A protocol runs on N rows at once, every row a repetition with the same secrets. A view is a matrix of
bits by repetition. For two secrets of the other party, with everything of one's own fixed, all bits
and all XORs of two bits must have the same distribution; every bit of a frame must be uniform,
alone and against the next row's. Seeds are fixed, so these tests do not fail by chance.
"""

import dataclasses
import threading
import typing
from collections.abc import Callable

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.ot.inline import InlineReceiver, InlineSender
from pqjax.ot.source import OtReceiver, OtSender
from pqjax.protocols.party import Party, run_pair
from pqjax.ring import bits as bits_module
from pqjax.wire.messenger import Messenger, Pending

N = 4096
# Standard deviations. Ten million statistics of a normal distribution exceed 8 once in 10^8 runs.
LIMIT = 8.0


class Unaligned(AssertionError):
    """A message whose bits cannot be attributed to repetitions: the view would be incomplete."""


class Record(typing.NamedTuple):
    """Bits that a party saw, flat: `kind` of source, and candidate bits per row of its layout."""

    kind: str
    bits: np.ndarray
    units: tuple[int, ...]


def flat_bits(x, width):
    """The low `width` bits of every element, one after the other."""
    x = np.ascontiguousarray(x).reshape(-1)
    planes = np.unpackbits(x.view(np.uint8).reshape(-1, x.itemsize), axis=1, bitorder="little")
    return np.ascontiguousarray(planes[:, :width]).reshape(-1)


# The two ends of one direction of ideal OT.


class Direction:
    """One direction's functionality: the coins both ends share, and the choices it was told."""

    def __init__(self, seed, clear):
        self.seed, self.clear = seed, clear
        self._rows = [np.zeros(0, np.uint8)]
        self._told = 0
        self._picks = {}
        self._lock = threading.Lock()

    def coins(self, call):
        """The generator of the `call`-th draw, the same at both ends."""
        return np.random.default_rng([self.seed, call])

    def tell(self, choices):
        """The receiver's choices; the index of the first."""
        with self._lock:
            first, self._told = self._told, self._told + choices.size
            self._rows.append(choices.astype(np.uint8))
            return first

    def told(self, index):
        """The choices at these indices."""
        with self._lock:
            if len(self._rows) > 1:
                self._rows = [np.concatenate(self._rows)]
            return self._rows[0][index]

    def pads(self, call, index, blocks):
        """Pads of messages 0 and 1, (n, blocks, 2) each."""
        both = self.coins(call).integers(0, 2**64, (2, len(index), blocks, 2), dtype=np.uint64)
        if self.clear:
            both[self.told(index), np.arange(len(index))] = 0
        return both

    def tell_pick(self, call, choices):
        self._picks[call] = choices.astype(np.uint64)

    def words(self, call, n, m, t):
        """Pads of 2^m messages of t bits, as words."""
        words = self.coins(call).integers(0, 2**64, n, dtype=np.uint64)
        words &= np.uint64((1 << (t << m)) - 1)
        if self.clear:
            ones = np.uint64((1 << t) - 1)
            words &= ~(ones << (self._picks[call] * np.uint64(t)))
        return words


class _End:
    """What both ends have: the source's costs, the running call, the OTs drawn so far.

    Triples are made as the source's own ends make them, of picks.
    """

    OF_PICKS: Callable
    records: list

    def __init__(self, source, direction, records):
        self.source, self.direction, self.records = source, direction, records
        self.calls = self.index = self.drawn = 0

    def fill_bits(self, n):
        return self.source.fill((0, 0), (n, 0))[0].bits

    def triples(self, randomness, n):
        return self.OF_PICKS(randomness, n)

    def call(self):
        self.calls += 1
        return self.calls - 1


class IdealSender(_End, OtSender):
    """An `OtSender`. Its requests say nothing; its pads are part of its view."""

    OF_PICKS = InlineSender.triples

    def __init__(self, source, direction, records):
        super().__init__(source, direction, records)
        self.requests = []  # the frames that were requests, to be told from the others

    def accept(self, raw, n):
        self.requests.append(raw)
        self.drawn += n
        rows = np.zeros((n, 2), np.uint64)
        rows[:, 0] = np.arange(self.index, self.index + n)
        self.index += n
        return rows

    def pads(self, rows, blocks):
        zero, one = self.direction.pads(self.call(), rows[:, 0].astype(np.int64), blocks)
        self.records.append(("sender pads", zero))
        return zero, one

    def pick_pads(self, raw, n, m, t):
        self.requests.append(raw)
        self.drawn += n * m
        words = self.direction.words(self.call(), n, m, t)
        if self.source.has_store:  # the first message's pad is the sender's share
            self.records.append(Record("coins", flat_bits(words, t), (t,)))
        return words

    def order(self, lane, tuning, n):
        if n:
            lane.receive(self.fill_bits(n))

    def random_bits(self, n, width):
        self.drawn += n
        coins = self.direction.coins(self.call())
        zero, one = coins.integers(0, 1 << width, (2, n)).astype(np.uint8)
        self.records += [Record("coins", flat_bits(key, width), (width,)) for key in (zero, one)]
        return zero, one


class IdealReceiver(_End, OtReceiver):
    """An `OtReceiver`. `draws` says for every reply to come how to read it."""

    OF_PICKS = InlineReceiver.triples

    def __init__(self, source, direction, records, seed):
        super().__init__(source, direction, records)
        self.draws = []
        self._noise = np.random.default_rng([seed, 99])

    def _request(self, bits):
        return self._noise.integers(0, 256, -(-bits // 8), dtype=np.uint8)

    def offer(self, choices):
        self.drawn += choices.size
        first = self.direction.tell(choices)
        rows = np.zeros((choices.size, 2), np.uint64)
        rows[:, 0], rows[:, 1] = np.arange(first, first + choices.size), choices
        return rows, self._request(self.source.request(0, choices.size).bits)

    def pads(self, rows, blocks):
        both = self.direction.pads(self.call(), rows[:, 0].astype(np.int64), blocks)
        choices = rows[:, 1].astype(np.int64)
        self.draws.append((choices, None))
        return np.ascontiguousarray(both[choices, np.arange(len(rows))])

    def offer_pick(self, choices, m, t):
        n, call = choices.size, self.call()
        self.drawn += n * m
        self.direction.tell_pick(call, choices)
        words = self.direction.words(call, n, m, t) >> (choices.astype(np.uint64) * np.uint64(t))
        self.draws.append((choices.astype(np.uint64), (m, t, self.source.has_store)))
        request = self._request(self.source.pick(0, n, m).bits)
        return words & np.uint64((1 << t) - 1), request

    def order(self, lane, tuning, n):
        if n:
            bits = self.fill_bits(n)
            lane.send(self._request(bits), bits)

    def random_bits(self, n, width):
        self.drawn += n
        coins = self.direction.coins(self.call())
        both = coins.integers(0, 1 << width, (2, n)).astype(np.uint8)
        choices = coins.integers(0, 2, n).astype(np.uint8)
        keys = both[choices, np.arange(n)]
        self.records.append(Record("coins", flat_bits(choices, 1), (1,)))
        self.records.append(Record("coins", flat_bits(keys, width), (width,)))
        return choices, keys


# The party that looks on.


class Coins(Randomness):
    """Randomness that writes down what it hands out."""

    def __init__(self, key, records):
        super().__init__(key)
        self._records = records

    def elements(self, n, ring):
        x = super().elements(n, ring)
        self._records.append(Record("coins", flat_bits(x, ring.bits), (ring.bits,)))
        return x

    def bits(self, n):
        x = super().bits(n)
        if n:
            self._records.append(Record("coins", flat_bits(x, 1), (1, 2)))
        return x


@dataclasses.dataclass
class Frame:
    """A received frame: its payload bits, and the elements' width where the plan says it."""

    total: int
    element_bits: int | None = None
    payload: np.ndarray | None = None


class _Noted(Pending):
    def note(self, frame):
        self._frame = frame
        return self

    def wait_clocked(self):
        self._frame.payload, clock = super().wait_clocked()
        return self._frame.payload, clock


class Watching(Messenger):
    """A messenger that keeps every frame it receives."""

    def __init__(self, wire, rank):
        super().__init__(wire, rank)
        self.frames, self.opened = [], []

    def expect(self, bits, idle_s=None):
        pending = super().expect(bits, idle_s)
        self.frames.append(Frame(bits))
        return _Noted(self, pending._ticket, bits).note(self.frames[-1])

    def receive_elements(self, n, ring):
        got = super().receive_elements(n, ring)
        self.frames[-1].element_bits = ring.bits
        return got

    def exchange_elements(self, x, ring):
        got = super().exchange_elements(x, ring)
        self.frames[-1].element_bits = ring.bits
        opened = ring.add(np.asarray(x).reshape(-1), got)
        self.opened.append(Record("frame", flat_bits(opened, ring.bits), (ring.bits,)))
        return got

    def exchange_bits(self, packed, n):
        got = super().exchange_bits(packed, n)
        self.frames[-1].element_bits = 1
        opened = np.unpackbits(np.bitwise_xor(packed, got), count=n, bitorder="little")
        self.opened.append(Record("frame", opened, (1,)))
        return got


def _reply_records(raw, draw, n):
    """A reply as it stands and what was chosen in it, from its bits and the draw it answers."""
    choices, pick = draw
    count = len(choices)
    if pick is not None:
        m, t, implied = pick
        tables = raw.reshape(count, (1 << m) - implied, t)
        # Of tables whose first message is not sent, another one where that was chosen.
        at = np.maximum(choices.astype(np.int64) - implied, 0)
        yield Record("frame", raw, (tables.shape[1] * t,))
        yield Record("frame", tables[np.arange(count), at].reshape(-1), (t, 1))
        return
    if count % n or raw.size % count:  # few OTs of long vectors, a word of each a repetition
        if raw.size % (count * n):
            raise Unaligned(f"a reply of {raw.size} bits to {count} OTs, {n} repetitions")
        yield Record("frame", raw, (raw.size // (count * n),))
        return
    each = raw.size // count
    yield Record("frame", raw, tuple(each >> i for i in range(3) if each % (1 << i) == 0))
    if each % 2 == 0:  # if these are two messages, the chosen one, in either order of the axes
        for halves in (raw.reshape(count, 2, -1).swapaxes(0, 1), raw.reshape(2, count, -1)):
            chosen = np.where(choices[:, None] != 0, halves[1], halves[0])
            yield Record("frame", chosen.reshape(-1), (each // 2,))


def _pad_records(zero, n):
    """The low bytes of message 0's pads: what the sender's share is made of."""
    raw = zero.view(np.uint8).reshape(len(zero), -1)
    if len(zero) % n == 0:
        return Record("coins", flat_bits(raw[:, :2], 8), (16,))
    each = raw.shape[1] // n
    return Record("coins", flat_bits(raw[:, : n * each], 8), (8 * each,))


@dataclasses.dataclass
class View:
    """All that one party saw in `n` repetitions."""

    records: list[Record]
    n: int

    def columns(self, kind=None):
        """Bits by repetition, (columns, n) uint8; of one kind of source if asked."""
        found = [
            part for record in self.records if kind in (None, record.kind)
            for part in readings(record, self.n)
        ]  # fmt: skip
        return np.concatenate(found) if found else np.zeros((0, self.n), np.uint8)


def readings(record, n):
    """The record's bits as (columns, n), in each layout (sections, repetitions, unit) it may have.

    Only the right layout pairs the bits of a repetition with each other; a wrong one is a fixed
    function of the view all the same and raises no alarm.
    """
    total = record.bits.size
    if total % n:
        raise Unaligned(f"{total} bits of {record.kind} in {n} repetitions: no layout fits")
    whole = False
    for unit in record.units:
        sections = total // (n * unit)
        part = record.bits[: sections * n * unit].reshape(sections, n, unit)
        yield part.transpose(0, 2, 1).reshape(-1, n)
        whole |= sections * n * unit == total
    if not whole:
        yield record.bits.reshape(-1, n)


def _merged(records, repeats):
    """The records of `repeats` equal rounds, each with those of the same place in the others."""
    if len(records) % repeats:
        raise Unaligned(f"{len(records)} records of {repeats} equal rounds")
    if repeats == 1:
        return records
    each = len(records) // repeats
    merged = []
    for i in range(each):
        same = records[i::each]
        if len({(r.kind, r.bits.size, r.units) for r in same}) > 1:
            raise Unaligned("rounds that should be equal differ")
        size = same[0].bits.size
        # A round is one repetition: its bits are the columns.
        merged.append(Record(same[0].kind, np.concatenate([r.bits for r in same]), (size,)))
    return merged


class IdealParty(Party):
    """A party whose OTs are ideal and whose messenger keeps what it hears."""

    messenger: Watching
    sender: IdealSender
    receiver: IdealReceiver


def ideal_parties(source, who, seed):
    """Makers of both ranks' parties, over one pair of functionalities."""
    directions = [Direction(10 * seed + sender, clear=sender != who) for sender in (0, 1)]

    def make(wire, rank):
        records = []
        coins = Coins((2 * seed + rank).to_bytes(16, "little"), records)
        return IdealParty(
            Watching(wire, rank), coins, source,
            IdealSender(source, directions[rank], records),
            IdealReceiver(source, directions[1 - rank], records, 10 * seed + rank),
        )  # fmt: skip

    return make


def observed(party, n, outputs=(), repeats=1, revealed=0):
    """The party's view after a run.

    Args:
      party: of `ideal_parties`.
      n: repetitions.
      outputs: (share, width) pairs.
      repeats: rounds that are the repetitions; 1 where rows are.
      revealed: how many of the last frames are answers: seen, but need not be uniform.
    """
    rows = n if repeats == 1 else 1
    requests = {id(raw) for raw in party.sender.requests}
    frames, draws = [], list(party.receiver.draws)
    heard = party.messenger.frames
    for i, frame in enumerate(heard):
        if id(frame.payload) in requests:
            continue  # uniform by construction here; real ones are held to it in tests/ot
        raw = np.unpackbits(frame.payload, count=frame.total, bitorder="little")
        if frame.element_bits is not None:
            kind = "frame" if i < len(heard) - revealed else "answer"
            frames.append(Record(kind, raw, (frame.element_bits,)))
            continue
        if not draws:
            raise Unaligned(f"a frame of {frame.total} bits that answers no request")
        frames += _reply_records(raw, draws.pop(0), rows)
    if draws:
        raise Unaligned(f"{len(draws)} draws without a reply")
    coins = [
        record if isinstance(record, Record) else _pad_records(record[1], rows)
        for record in party.sender.records
    ]
    records = [
        *_merged(frames, repeats), *_merged(party.messenger.opened, repeats),
        *_merged(coins, repeats),
        *(Record("share", flat_bits(share, width), (width,)) for share, width in outputs),
    ]  # fmt: skip
    return View(records, n)


def look(function, args, source, who, n, seed, widths=(), repeats=1):
    """Runs function(party, *args[rank]) ideally; both outputs and rank `who`'s view.

    Args:
      function: returns a tuple of shares.
      args: (rank 0's, rank 1's) arguments.
      source: how OTs are counted; they are ideal in any case.
      who: the rank that looks on.
      n: repetitions.
      seed: of everything random.
      widths: bits of every output's elements.
      repeats: rounds of the function that are its repetitions; 1 where rows are.
    """
    make = ideal_parties(source, who, seed)

    def side(rank):
        def run(wire):
            party = make(wire, rank)
            return function(party, *args[rank]), party

        return run

    with sequential_packing():
        (y0, party0), (y1, party1) = run_pair(side(0), side(1))
    outputs, party = (y0, y1), (party0, party1)[who]
    shares = list(zip(outputs[who], widths, strict=True))
    return outputs, observed(party, n, shares, repeats), (party0.sender.drawn, party1.sender.drawn)


class sequential_packing:  # noqa: N801 (a context)
    """Messages are one little-endian bit string, whatever their length: rows can be told apart."""

    def __enter__(self):
        self._lanes = bits_module._PLANAR_LANES
        bits_module._PLANAR_LANES = 1 << 62

    def __exit__(self, *_):
        bits_module._PLANAR_LANES = self._lanes


# Statistics.


def products(columns):
    """Means of products of any two rows of bits, read as -1 and 1: (k, k), above the diagonal.

    Counted in packed words: exact, and no threads of a matrix product that wait for each other.
    """
    k, n = columns.shape
    room = np.zeros((k, -(-n // 64) * 8), np.uint8)
    room[:, : -(-n // 8)] = np.packbits(columns, axis=1)
    words, found = room.view(np.uint64), np.zeros((k, k), np.float32)
    for i in range(k):
        differ = np.bitwise_count(words[i + 1 :] ^ words[i]).sum(1, dtype=np.int64)
        found[i, i + 1 :] = 1 - 2 * differ / n
    return found


def signed_mean(columns):
    """The mean of every row of bits, read as -1 and 1."""
    return 2 * columns.mean(1) - 1


def neighbours(columns):
    """The mean of products of every row's neighbouring bits: 1 where nothing changes."""
    return 1 - 2 * (columns[:, 1:] ^ columns[:, :-1]).mean(1)


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Means of all columns, of all products of two, and of neighbours in a column."""

    means: np.ndarray
    products: np.ndarray
    neighbours: np.ndarray
    n: int


def statistics(view):
    """All means of a view's bits and of XORs of two of them."""
    columns = view.columns()
    return Statistics(signed_mean(columns), products(columns), neighbours(columns), view.n)


def distance(one, other):
    """The largest difference of any statistic of two views, in standard deviations."""
    assert one.means.shape == other.means.shape, "sizes or order of messages depend on a secret"
    worst = max(
        float(np.abs(a - b).max(initial=0.0))
        for a, b in (
            (one.means, other.means),
            (one.products, other.products),
            (one.neighbours, other.neighbours),
        )
    )
    return worst / np.sqrt(2 / one.n)


def bias(view):
    """How far any bit of a frame is from uniform, alone or against its neighbour: in deviations."""
    columns = view.columns("frame")
    means = (signed_mean(columns), neighbours(columns))
    return max(float(np.abs(m).max(initial=0.0)) for m in means) * np.sqrt(view.n)
