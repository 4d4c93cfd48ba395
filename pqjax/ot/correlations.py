"""Flavours of OT, each derived once from correlated rows: correlated, chosen, 1-of-2^m.

Halves that differ sit next to each other, `_send` and `_receive`. All are one message from receiver
to sender, then one back, streamed in chunks so that hashing one overlaps sending another.
"""

import math
import typing
from collections import deque
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt

from pqjax.ot.source import (
    Choices,
    HasOt,
    Pads,
    Rows,
    Source,
    Words,
    check_pick,
    keys_work,
    one_sided,
)
from pqjax.ot.tuning import Tuning
from pqjax.ring import Ring, blockwise, pack, unpack
from pqjax.wire.cost import NOTHING, Cost, crossing, message, total, work

Elements = UInt[np.ndarray, " n"]
Vectors = UInt[np.ndarray, "n *width"]
_CHUNK = Tuning().chunk_ots  # about, to say what overlaps
_AHEAD = 3  # chunks the receiver runs ahead of the replies


class Give(typing.NamedTuple):
    """The sender's half of a batch: bits to expect for n OTs, and the reply to a request."""

    request_bits: Callable[[int], int]
    respond: Callable[[slice, np.ndarray], tuple[np.ndarray, int]]


class Take(typing.NamedTuple):
    """The receiver's half: a request with what to remember, bits of the reply, what to do with it."""

    request_bits: Callable[[int], int]
    offer: Callable[[slice], tuple[np.ndarray, typing.Any]]
    reply_bits: Callable[[int], int]
    collect: Callable[[slice, typing.Any, np.ndarray], None]


def _count(span: slice) -> int:
    return span.stop - span.start


def give(party: HasOt, half: Give, chunks: list[slice]) -> None:
    """Runs the sender's half alone."""
    give_each(party, [(half, chunk) for chunk in chunks])


def give_each(party: HasOt, jobs: list[tuple[Give, slice]]) -> None:
    """Runs the sender's halves of several batches, in this order."""
    requests = party.messenger.receive_each([h.request_bits(_count(c)) for h, c in jobs])
    for (half, chunk), raw in zip(jobs, requests, strict=True):
        party.messenger.send(*half.respond(chunk, raw))


def take(party: HasOt, half: Take, chunks: list[slice]) -> None:
    """Runs the receiver's half alone."""
    take_each(party, [(half, chunk) for chunk in chunks])


def take_each(party: HasOt, jobs: list[tuple[Take, slice]]) -> None:
    """Runs the receiver's halves of several batches; requests depend on nothing that arrives."""
    messenger = party.messenger
    mark = messenger.clock
    waiting: deque = deque()

    def collect() -> None:
        half, chunk, kept, pending = waiting.popleft()
        half.collect(chunk, kept, pending.wait())

    for half, chunk in jobs:
        payload, kept = half.offer(chunk)
        messenger.send(payload, half.request_bits(_count(chunk)), after=mark)
        waiting.append((half, chunk, kept, messenger.expect(half.reply_bits(_count(chunk)))))
        if len(waiting) > _AHEAD:
            collect()
    while waiting:
        collect()


def give_and_take(party: HasOt, mine: Give, theirs: Take, chunks: list[slice]) -> None:
    """Runs both directions at the same time, in both parties: requests cross, then replies cross."""
    messenger = party.messenger
    mark = messenger.clock

    def request(chunk: slice) -> tuple:
        payload, kept = theirs.offer(chunk)
        pending = messenger.expect(mine.request_bits(_count(chunk)))
        messenger.send(payload, theirs.request_bits(_count(chunk)), after=mark)
        return kept, pending

    if not chunks:
        return
    following = request(chunks[0])
    for i, chunk in enumerate(chunks):
        kept, pending = following
        # The next request leaves before this reply, and is asked for before it, in both parties.
        if i + 1 < len(chunks):
            following = request(chunks[i + 1])
        raw, clock = pending.wait_clocked()
        payload, bits = mine.respond(chunk, raw)
        reply = messenger.expect(theirs.reply_bits(_count(chunk)))
        messenger.send(payload, bits, after=max(mark, clock))
        theirs.collect(chunk, kept, reply.wait())


def pad_blocks(width: int, ring: Ring) -> int:
    """128-bit blocks that hold `width` words of the ring's dtype."""
    return -(-width * ring.dtype.itemsize // 16)


def pad_words(pads: Pads, ring: Ring) -> UInt[np.ndarray, "n words"]:
    """Reads pads (n, blocks, 2) as words of the ring's dtype, not reduced: (n, at least the width).

    What is too much is cut off inside of kernels, where that copies nothing.
    """
    return pads.reshape(len(pads), -1).view(ring.dtype)


def _correlate(x, zero, one, bits):
    ring, width = Ring(bits), x.shape[1]
    zero, one = zero[:, :width], one[:, :width]
    return ring.reduce(zero + x - one), ring.reduce(-zero)


def _correlated(choice, key, offered, bits):
    ring = Ring(bits)
    key = key[:, : offered.shape[1]]
    return ring.reduce(key + choice[:, None].astype(ring.dtype) * offered)


def _seal(first, second, zero, one, bits):
    ring, width = Ring(bits), first.shape[1]
    zero, one = zero[:, :width], one[:, :width]
    return jnp.stack([ring.reduce(first ^ zero), ring.reduce(second ^ one)], axis=1)


def _unseal(choice, key, both, bits):
    key = key[:, : both.shape[2]]
    return Ring(bits).reduce(key ^ jnp.where(choice[:, None] != 0, both[:, 1], both[:, 0]))


_correlate_rows = blockwise(_correlate, static=("bits",))
correlated_rows = blockwise(_correlated, static=("bits",))
_seal_rows = blockwise(_seal, static=("bits",))
_unseal_rows = blockwise(_unseal, static=("bits",))


def _request_bits(party: HasOt, m: int = 1) -> Callable[[int], int]:
    """Bits of the message for n 1-of-2^m OTs, as they are priced."""
    return lambda n: party.source.pick(0, n, m).bits


def _keyed_give(party: HasOt, width: int, ring: Ring, answer: Callable) -> Give:
    """A `Give` whose replies are answer(span, zero, one): of both keys, (n, at least width) words."""
    blocks = pad_blocks(width, ring)

    def respond(span: slice, raw: np.ndarray) -> tuple[np.ndarray, int]:
        pads = party.sender.pads(party.sender.accept(raw, _count(span)), blocks)
        reply = answer(span, *(pad_words(p, ring) for p in pads)).reshape(-1)
        return pack(reply, ring.bits), reply.size * ring.bits

    return Give(_request_bits(party), respond)


def _keyed_take(
    party: HasOt, choices: np.ndarray, ring: Ring, shape: tuple[int, ...], finish: Callable
) -> Take:
    """A `Take` of replies of `shape` elements an OT, for finish(span, the chosen key, reply)."""
    blocks, each = pad_blocks(shape[-1], ring), math.prod(shape)

    def offer(span: slice) -> tuple[np.ndarray, np.ndarray]:
        rows, raw = party.receiver.offer(choices[span])
        return raw, pad_words(party.receiver.pads(rows, blocks), ring)

    def collect(span: slice, key: np.ndarray, raw: np.ndarray) -> None:
        reply = unpack(raw, _count(span) * each, ring.bits)
        finish(span, key, reply.reshape(-1, *shape))

    return Take(_request_bits(party), offer, lambda n: n * each * ring.bits, collect)


def _cot_give(party: HasOt, x: np.ndarray, ring: Ring, share: np.ndarray) -> Give:
    def answer(span: slice, zero: np.ndarray, one: np.ndarray) -> np.ndarray:
        offered, share[span] = _correlate_rows(x[span], zero, one, bits=ring.bits)
        return offered

    return _keyed_give(party, x.shape[1], ring, answer)


def _cot_take(party: HasOt, choices: np.ndarray, ring: Ring, share: np.ndarray) -> Take:
    def finish(span: slice, key: np.ndarray, offered: np.ndarray) -> None:
        share[span] = correlated_rows(choices[span], key, offered, bits=ring.bits)

    return _keyed_take(party, choices, ring, share.shape[1:], finish)


def _columns(x: np.ndarray) -> np.ndarray:
    return x[:, None] if x.ndim == 1 else x


def cot_send(party: HasOt, x: Vectors, ring: Ring) -> Vectors:
    """Correlated OT as sender: shares of c * x, c the receiver's bits.

      1. receiver -> sender   the request.                    128 n bits inline, n stocked
      2. sender -> receiver   k0 + x - k1 for every element.  ring.bits each

    x is (n,) or (n, width): all of a row share one choice bit. This party's share, of x's shape, is -k0.

    Cost: `cot_cost`. Reference: Asharov et al., eprint 2013/552.
    """
    wide = _columns(np.asarray(x))
    share = np.empty(wide.shape, ring.dtype)
    give(party, _cot_give(party, wide, ring, share), party.tuning.chunks(*wide.shape))
    return share.reshape(x.shape)


def cot_receive(party: HasOt, choices: Choices, ring: Ring, width: int | None = None) -> Vectors:
    """Correlated OT as receiver: a share (n,) or (n, width). Cost, reference: see `cot_send`."""
    share = np.empty((choices.size, width or 1), ring.dtype)
    take(party, _cot_take(party, choices, ring, share), party.tuning.chunks(*share.shape))
    return share if width else share[:, 0]


def cot_both(party: HasOt, x: Elements, choices: Choices, ring: Ring) -> Elements:
    """Both parties are sender of their `x` and receiver for their `choices` at once.

    Makes shares of x0 * c1 + x1 * c0, in two flows: the requests cross, then the replies.

    Cost: `cot_both_cost`. Reference: see `cot_send`.
    """
    mine, theirs = (np.empty((x.size, 1), ring.dtype) for _ in range(2))
    ours = _cot_give(party, _columns(x), ring, mine), _cot_take(party, choices, ring, theirs)
    give_and_take(party, *ours, party.tuning.chunks(x.size))
    return ring.add(mine, theirs)[:, 0]


def cot_cost(source: Source, sender: int, n: int, ring: Ring, width: int = 1) -> Cost:
    """A request per OT and `width` elements back."""
    keys = keys_work(sender, n, pad_blocks(width, ring))
    request = source.extending_work(n, 1) + source.request(sender, n)
    return _replied(request, keys, sender, n * width * ring.bits, n, n * width)


def _replied(
    request: Cost, keys: tuple[Cost, Cost], sender: int, reply_bits: int, n: int, words: int
) -> Cost:
    """A request and its reply, in chunks of n OTs in all; `words` are what kernels make of them."""
    if not reply_bits:
        return NOTHING
    asked, answered = keys
    answered += one_sided("words", sender, words) + message(sender, reply_bits)
    cost = asked + request + answered + one_sided("words", 1 - sender, words)
    return cost.piped(n / _CHUNK)


def cot_both_cost(source: Source, n: int, ring: Ring) -> Cost:
    """`cot_cost` in both directions, messages crossing."""
    return _both(source, n, n * ring.bits)


def _both(source: Source, n: int, reply_bits: int) -> Cost:
    if not n:
        return NOTHING
    one = source.request(0, n)
    extended = source.extending_work(n, 1).repeated(2)
    asked, answered = zip(keys_work(0, n), keys_work(1, n), strict=True)
    cost = total([extended, *asked, crossing(one.bits), *answered, work("words", n)])
    cost += crossing(reply_bits) + Cost(rots=(one.rots[0], one.rots[0])) + work("words", n)
    return cost.piped(n / _CHUNK)


def chosen_both(
    party: HasOt, first: Elements, second: Elements, choices: Choices, ring: Ring
) -> Elements:
    """Chosen OT both ways: each party gets the other's `first` where its bit is 0, else `second`.

      1. both at once   the request.             128 n bits inline, n stocked, each way
      2. both at once   both messages, masked.   2 * ring.bits each, each way

    Cost: `chosen_both_cost`. Reference: IKNP, CRYPTO 2003.
    """
    got = np.empty((choices.size, 1), ring.dtype)
    offered = _columns(first), _columns(second)

    def answer(span: slice, zero: np.ndarray, one: np.ndarray) -> np.ndarray:
        return _seal_rows(*(x[span] for x in offered), zero, one, bits=ring.bits)

    def finish(span: slice, key: np.ndarray, both: np.ndarray) -> None:
        got[span] = _unseal_rows(choices[span], key, both, bits=ring.bits)

    mine = _keyed_give(party, 1, ring, answer)
    theirs = _keyed_take(party, choices, ring, (2, 1), finish)
    give_and_take(party, mine, theirs, party.tuning.chunks(choices.size))
    return got[:, 0]


def chosen_both_cost(source: Source, n: int, ring: Ring) -> Cost:
    """A request per OT and two elements back, in both directions, messages crossing."""
    return _both(source, n, 2 * n * ring.bits)


class Tables(typing.NamedTuple):
    """Messages of 1-of-2^m OTs, as sender: see `pick_send`."""

    words: Words
    m: int
    t: int


class Picks(typing.NamedTuple):
    """Choices in 1-of-2^m OTs, as receiver: see `pick_receive`."""

    choices: Choices
    m: int
    t: int


def pick_send(party: HasOt, *batches: Tables) -> list[Choices]:
    """1-of-2^m OTs as sender: XOR shares of the entries that the receiver chooses, one batch or more.

      1. receiver -> sender   the request.            256 n bits by KKOT (m = 1: 128), m n stocked
      2. sender -> receiver   whole tables, masked.   t * 2^m each; stocked, t * (2^m - 1)

    A choice has m bits, 1..4, an entry t, with t * 2^m <= 64. Entry v of a table, a uint64 word, stands
    in its bits v*t .. v*t + t - 1. Own shares are uniform: of stored OTs those for which the first
    message is its pad and need not be sent.

    Cost: `pick_cost`. Reference: KKOT, eprint 2013/491; of stored OTs Naor and Pinkas, STOC 1999.
    """
    shares = [np.empty(len(batch.words), np.uint8) for batch in batches]
    jobs = []
    for batch, share in zip(batches, shares, strict=True):
        check_pick(batch.m, batch.t)
        half = _pick_give(party, batch, share)
        jobs += [(half, chunk) for chunk in party.tuning.chunks(len(share))]
    give_each(party, jobs)
    return shares


def _pick_give(party: HasOt, batch: Tables, share: Choices) -> Give:
    tables, m, t = batch
    if not party.source.has_store:
        share[...] = _drawn_masks(party, len(share), t)
    ring, sent = Ring(t << m), Ring(reply_bits(party.source, m, t))
    every = ring.dtype.type(sum(1 << v * t for v in range(1 << m)))

    def respond(span: slice, raw: np.ndarray) -> tuple[np.ndarray, int]:
        pads = party.sender.pick_pads(raw, _count(span), m, t)
        words = (tables[span] ^ pads).astype(ring.dtype)
        if party.source.has_store:
            share[span] = words & words.dtype.type((1 << t) - 1)
        words ^= share[span].astype(ring.dtype) * every
        if party.source.has_store:
            words = (words >> words.dtype.type(t)).astype(sent.dtype)
        return pack(words, sent.bits), words.size * sent.bits

    return Give(_request_bits(party, m), respond)


def _drawn_masks(party: HasOt, n: int, t: int) -> Choices:
    return np.packbits(party.randomness.bits(n * t).reshape(n, t), axis=1, bitorder="little")[:, 0]


def pick_receive(party: HasOt, *batches: Picks) -> list[Choices]:
    """1-of-2^m OTs as receiver: XOR shares of the entries that `choices` select.

    Cost, reference: see `pick_send`.
    """
    got = [np.empty(batch.choices.size, np.uint8) for batch in batches]
    jobs = []
    for batch, share in zip(batches, got, strict=True):
        check_pick(batch.m, batch.t)
        half = _pick_take(party, batch, share)
        jobs += [(half, chunk) for chunk in party.tuning.chunks(share.size)]
    take_each(party, jobs)
    return got


def _pick_take(party: HasOt, batch: Picks, got: Choices) -> Take:
    choices, m, t = batch
    ring, sent = Ring(t << m), Ring(reply_bits(party.source, m, t))

    def offer(span: slice) -> tuple[np.ndarray, np.ndarray]:
        pads, raw = party.receiver.offer_pick(choices[span], m, t)
        return raw, pads.astype(np.uint8)

    def collect(span: slice, pads: np.ndarray, raw: np.ndarray) -> None:
        words = unpack(raw, _count(span), sent.bits).astype(ring.dtype)
        if party.source.has_store:
            words <<= words.dtype.type(t)
        words >>= choices[span].astype(ring.dtype) * ring.dtype.type(t)
        got[span] = (words & words.dtype.type((1 << t) - 1)).astype(np.uint8) ^ pads

    return Take(_request_bits(party, m), offer, lambda n: n * sent.bits, collect)


def reply_bits(source: Source, m: int, t: int) -> int:
    """Bits of the reply of one 1-of-2^m OT."""
    return t * ((1 << m) - source.has_store)


def pick_cost(source: Source, sender: int, *batches: tuple[int, int, int]) -> Cost:
    """Requests for n OTs, then their tables of 2^m entries of t bits, of every batch (n, m, t)."""
    replied = sum(n * reply_bits(source, m, t) for n, m, t in batches)
    requests = [source.pick(sender, n, m) for n, m, t in batches]
    asked = message(1 - sender, sum(cost.bits for cost in requests))
    drawn = total(Cost(rots=cost.rots) for cost in requests)
    made = total(source.extending_work(n, m) for n, m, t in batches)
    each = [source.pads_work(sender, n, m) for n, m, t in batches]
    keys, count = (total(x for x, _ in each), total(x for _, x in each)), sum(b[0] for b in batches)
    return _replied(made + asked + drawn, keys, sender, replied, count, count)


def rows_send(party: HasOt, n: int) -> Rows:
    """Sender's rows q of n OTs whose messages follow later, in any number.

      1. receiver -> sender   the request, in chunks.   128 n bits inline, n stocked

    Keys come from `party.sender.pads(rows, ...)`, at the other end from `party.receiver.pads`.

    Cost: `Source.request`. Reference: IKNP, CRYPTO 2003; stored, Beaver, CRYPTO 1995.
    """
    rows = np.empty((n, 2), np.uint64)
    chunks, bits = party.tuning.chunks(n), _request_bits(party)
    requests = party.messenger.receive_each([bits(_count(chunk)) for chunk in chunks])
    for chunk, raw in zip(chunks, requests, strict=True):
        rows[chunk] = party.sender.accept(raw, _count(chunk))
    return rows


def rows_receive(party: HasOt, choices: Choices) -> Rows:
    """Receiver's rows t for its choices. Cost, reference: see `rows_send`."""
    rows = np.empty((choices.size, 2), np.uint64)
    mark, bits = party.messenger.clock, _request_bits(party)
    for chunk in party.tuning.chunks(choices.size):
        rows[chunk], raw = party.receiver.offer(choices[chunk])
        party.messenger.send(raw, bits(_count(chunk)), after=mark)
    return rows
