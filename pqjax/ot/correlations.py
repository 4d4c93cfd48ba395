"""Flavours of OT, each derived once from correlated rows: correlated, chosen, 1-of-2^m.

Halves that differ sit next to each other, `_send` and `_receive`. All are one message from receiver
to sender, then one back, streamed in chunks so that hashing one overlaps sending another.
"""

from __future__ import annotations

import math
import typing
from collections import deque
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt

from pqjax.ot.source import Choices, HasOt, Pads, Rows, Source, Words, check_pick
from pqjax.ring import Ring, blockwise, pack, unpack
from pqjax.wire.cost import NOTHING, Cost, crossing, message

Elements = UInt[np.ndarray, " n"]
Vectors = UInt[np.ndarray, "n *width"]
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
    requests = party.messenger.receive_each([half.request_bits(_count(c)) for c in chunks])
    for chunk, raw in zip(chunks, requests, strict=True):
        party.messenger.send(*half.respond(chunk, raw))


def take(party: HasOt, half: Take, chunks: list[slice]) -> None:
    """Runs the receiver's half alone; requests depend on nothing that arrives meanwhile."""
    messenger = party.messenger
    mark = messenger.clock
    waiting: deque = deque()

    def collect() -> None:
        chunk, kept, pending = waiting.popleft()
        half.collect(chunk, kept, pending.wait())

    for chunk in chunks:
        payload, kept = half.offer(chunk)
        messenger.send(payload, half.request_bits(_count(chunk)), after=mark)
        waiting.append((chunk, kept, messenger.expect(half.reply_bits(_count(chunk)))))
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
_correlated_rows = blockwise(_correlated, static=("bits",))
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
        share[span] = _correlated_rows(choices[span], key, offered, bits=ring.bits)

    return _keyed_take(party, choices, ring, share.shape[1:], finish)


def _columns(x: np.ndarray) -> np.ndarray:
    return x[:, None] if x.ndim == 1 else x


def cot_send(party: HasOt, x: Vectors, ring: Ring) -> Vectors:
    """Correlated OT as sender: shares of c * x, c the receiver's bits.

      1. receiver -> sender   the request.                    128 n bits inline, n stocked
      2. sender -> receiver   k0 + x - k1 for every element.  ring.bits each

    Args:
      party: this party.
      x: (n,) or (n, width) ring elements; all of a row share one choice bit.
      ring: where the product lives.

    Returns:
      This party's share, of x's shape: -k0.

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

    Returns:
      Shares of x0 * c1 + x1 * c0. Two flows: the requests cross, then the replies.

    Cost: `cot_both_cost`. Reference: see `cot_send`.
    """
    mine, theirs = (np.empty((x.size, 1), ring.dtype) for _ in range(2))
    ours = _cot_give(party, _columns(x), ring, mine), _cot_take(party, choices, ring, theirs)
    give_and_take(party, *ours, party.tuning.chunks(x.size))
    return ring.add(mine, theirs)[:, 0]


def cot_cost(source: Source, sender: int, n: int, ring: Ring, width: int = 1) -> Cost:
    """A request per OT and `width` elements back."""
    return _replied(source.request(sender, n), sender, n * width * ring.bits)


def _replied(request: Cost, sender: int, reply_bits: int) -> Cost:
    return request + message(sender, reply_bits) if reply_bits else NOTHING


def cot_both_cost(source: Source, n: int, ring: Ring) -> Cost:
    """`cot_cost` in both directions, messages crossing."""
    return _both(source, n, n * ring.bits)


def _both(source: Source, n: int, reply_bits: int) -> Cost:
    if not n:
        return NOTHING
    one = source.request(0, n)
    rots = Cost(rots=(one.rots[0], one.rots[0]))
    return crossing(one.bits) + crossing(reply_bits) + rots


def _chosen_give(party: HasOt, first: np.ndarray, second: np.ndarray, ring: Ring) -> Give:
    def answer(span: slice, zero: np.ndarray, one: np.ndarray) -> np.ndarray:
        return _seal_rows(first[span], second[span], zero, one, bits=ring.bits)

    return _keyed_give(party, first.shape[1], ring, answer)


def _chosen_take(party: HasOt, choices: np.ndarray, ring: Ring, got: np.ndarray) -> Take:
    def finish(span: slice, key: np.ndarray, both: np.ndarray) -> None:
        got[span] = _unseal_rows(choices[span], key, both, bits=ring.bits)

    return _keyed_take(party, choices, ring, (2, got.shape[1]), finish)


def chosen_send(party: HasOt, first: Vectors, second: Vectors, ring: Ring) -> None:
    """Chosen OT as sender: the receiver gets `first` where its bit is 0 and `second` where it is 1.

      1. receiver -> sender   the request.             128 n bits inline, n stocked
      2. sender -> receiver   both messages, masked.   2 * width * ring.bits each

    Args:
      party: this party.
      first: (n,) or (n, width) ring elements.
      second: like `first`.
      ring: the messages' width.

    Cost: `chosen_cost`. Reference: IKNP, CRYPTO 2003.
    """
    first, second = _columns(np.asarray(first)), _columns(np.asarray(second))
    give(party, _chosen_give(party, first, second, ring), party.tuning.chunks(*first.shape))


def chosen_receive(party: HasOt, choices: Choices, ring: Ring, width: int | None = None) -> Vectors:
    """Chosen OT as receiver: (n,), or (n, width), of the messages that `choices` select.

    Cost, reference: see `chosen_send`.
    """
    got = np.empty((choices.size, width or 1), ring.dtype)
    take(party, _chosen_take(party, choices, ring, got), party.tuning.chunks(*got.shape))
    return got if width else got[:, 0]


def chosen_both(
    party: HasOt, first: Elements, second: Elements, choices: Choices, ring: Ring
) -> Elements:
    """Both parties offer `first` and `second` and take by `choices`, at once; what it took.

    Cost: `chosen_both_cost`. Reference: see `chosen_send`.
    """
    got = np.empty((choices.size, 1), ring.dtype)
    mine = _chosen_give(party, _columns(first), _columns(second), ring)
    theirs = _chosen_take(party, choices, ring, got)
    give_and_take(party, mine, theirs, party.tuning.chunks(choices.size))
    return got[:, 0]


def chosen_cost(source: Source, sender: int, n: int, ring: Ring, width: int = 1) -> Cost:
    """A request per OT and twice `width` elements back."""
    return _replied(source.request(sender, n), sender, 2 * n * width * ring.bits)


def chosen_both_cost(source: Source, n: int, ring: Ring) -> Cost:
    """`chosen_cost` in both directions, messages crossing."""
    return _both(source, n, 2 * n * ring.bits)


def pick_send(party: HasOt, tables: Words, m: int, t: int) -> None:
    """1-of-2^m OT as sender.

      1. receiver -> sender   the request.            256 n bits by KKOT (m = 1: 128), m n stocked
      2. sender -> receiver   whole tables, masked.   t * 2^m each

    Args:
      party: this party.
      tables: (n,) uint64 words; entry v of a table stands in bits v*t .. v*t + t - 1.
      m: bits of a choice, 1..4.
      t: bits of an entry, t * 2^m <= 64.

    Cost: `pick_cost`. Reference: KKOT, eprint 2013/491; of stored OTs Naor and Pinkas, STOC 1999.
    """
    check_pick(m, t)
    ring = Ring(t << m)

    def respond(span: slice, raw: np.ndarray) -> tuple[np.ndarray, int]:
        pads = party.sender.pick_pads(raw, _count(span), m, t)
        return pack((tables[span] ^ pads).astype(ring.dtype), ring.bits), pads.size * ring.bits

    give(party, Give(_request_bits(party, m), respond), party.tuning.chunks(len(tables)))


def pick_receive(party: HasOt, choices: Choices, m: int, t: int) -> Choices:
    """1-of-2^m OT as receiver: the entries that `choices` select. Cost, reference: see `pick_send`."""
    check_pick(m, t)
    got = np.empty(choices.size, np.uint8)

    def offer(span: slice) -> tuple[np.ndarray, np.ndarray]:
        pads, raw = party.receiver.offer_pick(choices[span], m, t)
        return raw, pads.astype(np.uint8)

    def collect(span: slice, pads: np.ndarray, raw: np.ndarray) -> None:
        words = unpack(raw, _count(span), t << m).astype(np.uint64)
        entry = words >> (choices[span].astype(np.uint64) * np.uint64(t))
        got[span] = (entry & np.uint64((1 << t) - 1)).astype(np.uint8) ^ pads

    half = Take(_request_bits(party, m), offer, lambda n: n * t << m, collect)
    take(party, half, party.tuning.chunks(choices.size))
    return got


def pick_cost(source: Source, sender: int, n: int, m: int, t: int) -> Cost:
    """A request per OT and a table of 2^m entries back."""
    return _replied(source.pick(sender, n, m), sender, n * t << m)


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
