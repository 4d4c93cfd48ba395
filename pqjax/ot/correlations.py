"""Flavours of OT, each derived once from correlated rows: correlated, chosen, 1-of-2^m.

Halves that differ sit next to each other, `_send` and `_receive`. All are one message from receiver
to sender, then one back, streamed in chunks so that hashing one overlaps sending another.
"""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from pqjax.ot.endpoint import OtReceiver, OtSender, Scheme, check_pick
from pqjax.ring import Ring, blockwise, pack, unpack
from pqjax.wire.cost import NOTHING, Cost, crossing, message
from pqjax.wire.messenger import Messenger

CHUNK = 1 << 16  # OTs per message: a mebibyte of rows
_AHEAD = 3  # chunks the receiver runs ahead of the replies


class HasOt(typing.Protocol):
    """What the functions here need of a party: its messenger and both directions' ends."""

    messenger: Messenger
    sender: OtSender
    receiver: OtReceiver


class Give(typing.NamedTuple):
    """The sender's half of a batch: bits to expect for n OTs, and the reply to a request."""

    request_bits: Callable[[int], int]
    respond: Callable[[slice, np.ndarray], tuple[np.ndarray, int]]


class Take(typing.NamedTuple):
    """The receiver's half: a request with what to remember, bits of the reply, what to do with it."""

    offer: Callable[[slice], tuple[np.ndarray, int, typing.Any]]
    reply_bits: Callable[[int], int]
    collect: Callable[[slice, typing.Any, np.ndarray], None]


def spans(n: int, width: int = 1) -> list[slice]:
    """Chunks of n OTs whose messages hold `width` elements each."""
    step = max(256, CHUNK // max(1, width // 16))
    return [slice(at, min(at + step, n)) for at in range(0, n, step)]


def _count(span: slice) -> int:
    return span.stop - span.start


def give(messenger: Messenger, half: Give, chunks: Sequence[slice]) -> None:
    """Runs the sender's half alone."""
    requests = messenger.receive_each([half.request_bits(_count(c)) for c in chunks])
    for chunk, raw in zip(chunks, requests, strict=True):
        messenger.send(*half.respond(chunk, raw))


def take(messenger: Messenger, half: Take, chunks: Sequence[slice]) -> None:
    """Runs the receiver's half alone; requests depend on nothing that arrives meanwhile."""
    mark = messenger.clock
    waiting: deque = deque()

    def collect() -> None:
        chunk, kept, pending = waiting.popleft()
        half.collect(chunk, kept, pending.wait())

    for chunk in chunks:
        payload, bits, kept = half.offer(chunk)
        messenger.send(payload, bits, after=mark)
        waiting.append((chunk, kept, messenger.expect(half.reply_bits(_count(chunk)))))
        if len(waiting) > _AHEAD:
            collect()
    while waiting:
        collect()


def give_and_take(messenger: Messenger, mine: Give, theirs: Take, chunks: Sequence[slice]) -> None:
    """Runs both directions at the same time, in both parties: requests cross, then replies cross."""
    mark = messenger.clock

    def request(chunk: slice) -> tuple:
        payload, bits, kept = theirs.offer(chunk)
        pending = messenger.expect(mine.request_bits(_count(chunk)))
        messenger.send(payload, bits, after=mark)
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


def pad_words(pads: np.ndarray, ring: Ring) -> np.ndarray:
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


def _both_keys(
    sender: OtSender, raw: np.ndarray, n: int, width: int, ring: Ring
) -> tuple[np.ndarray, np.ndarray]:
    """The keys of both messages, (n, at least width) words each, from the receiver's request."""
    zero, one = sender.pads(sender.accept(raw, n), pad_blocks(width, ring))
    return pad_words(zero, ring), pad_words(one, ring)


def _offer_keys(party: HasOt, choices: np.ndarray, width: int, ring: Ring):
    """The `offer` of a `Take` that remembers the chosen message's key, (n, at least width) words."""
    receiver = party.receiver

    def offer(span: slice) -> tuple[np.ndarray, int, np.ndarray]:
        rows, raw = receiver.offer(choices[span])
        key = pad_words(receiver.pads(rows, pad_blocks(width, ring)), ring)
        return raw, receiver.request_bits(_count(span)), key

    return offer


def _cot_give(party: HasOt, x: np.ndarray, ring: Ring, share: np.ndarray) -> Give:
    width = x.shape[1]

    def respond(span: slice, raw: np.ndarray) -> tuple[np.ndarray, int]:
        zero, one = _both_keys(party.sender, raw, _count(span), width, ring)
        offered, share[span] = _correlate_rows(x[span], zero, one, bits=ring.bits)
        return pack(offered.reshape(-1), ring.bits), offered.size * ring.bits

    return Give(party.sender.request_bits, respond)


def _cot_take(party: HasOt, choices: np.ndarray, ring: Ring, share: np.ndarray) -> Take:
    width = share.shape[1]

    def collect(span: slice, key: np.ndarray, raw: np.ndarray) -> None:
        offered = unpack(raw, _count(span) * width, ring.bits).reshape(-1, width)
        share[span] = _correlated_rows(choices[span], key, offered, bits=ring.bits)

    return Take(_offer_keys(party, choices, width, ring), lambda n: n * width * ring.bits, collect)


def _columns(x: np.ndarray) -> np.ndarray:
    return x[:, None] if x.ndim == 1 else x


def cot_send(party: HasOt, x: np.ndarray, ring: Ring) -> np.ndarray:
    """Correlated OT as sender: shares of c * x, c the receiver's bits.

      1. receiver -> sender   the request.                    128 n bits inline, n stocked
      2. sender -> receiver   k0 + x - k1 for every element.  ring.bits each

    Args:
      party: this party.
      x: (n,) or (n, width) ring elements; all of a row share one choice bit.
      ring: where the product lives.

    Returns:
      This party's share, of x's shape: -k0.
    """
    wide = _columns(np.asarray(x))
    share = np.empty(wide.shape, ring.dtype)
    give(party.messenger, _cot_give(party, wide, ring, share), spans(len(wide), wide.shape[1]))
    return share.reshape(x.shape)


def cot_receive(party: HasOt, choices: np.ndarray, ring: Ring, width: int | None = None):
    """Correlated OT as receiver, see `cot_send`: choices (n,) uint8; a share (n,) or (n, width)."""
    share = np.empty((choices.size, width or 1), ring.dtype)
    take(party.messenger, _cot_take(party, choices, ring, share), spans(len(share), width or 1))
    return share if width else share[:, 0]


def cot_both(party: HasOt, x: np.ndarray, choices: np.ndarray, ring: Ring) -> np.ndarray:
    """Both parties are sender of their `x` (n,) and receiver for their `choices` (n,) at once.

    Returns:
      (n,) shares of x0 * c1 + x1 * c0. Two flows: the requests cross, then the replies.
    """
    mine = np.empty((x.size, 1), ring.dtype)
    theirs = np.empty((x.size, 1), ring.dtype)
    give_and_take(
        party.messenger,
        _cot_give(party, _columns(x), ring, mine),
        _cot_take(party, choices, ring, theirs),
        spans(x.size),
    )
    return ring.add(mine, theirs)[:, 0]


def cot_cost(scheme: Scheme, sender: int, n: int, ring: Ring, width: int = 1) -> Cost:
    """A request per OT and `width` elements back."""
    if not n:
        return NOTHING
    return scheme.request(sender, n) + message(sender, n * width * ring.bits)


def cot_both_cost(scheme: Scheme, n: int, ring: Ring) -> Cost:
    """`cot_cost` in both directions, messages crossing."""
    return _both(scheme, n, n * ring.bits)


def _both(scheme: Scheme, n: int, reply_bits: int) -> Cost:
    if not n:
        return NOTHING
    one = scheme.request(0, n)
    rots = Cost(rots=(one.rots[0], one.rots[0]))
    return crossing(one.bits) + crossing(reply_bits) + rots


def _chosen_give(party: HasOt, first: np.ndarray, second: np.ndarray, ring: Ring) -> Give:
    width = first.shape[1]

    def respond(span: slice, raw: np.ndarray) -> tuple[np.ndarray, int]:
        zero, one = _both_keys(party.sender, raw, _count(span), width, ring)
        both = _seal_rows(first[span], second[span], zero, one, bits=ring.bits)
        return pack(both.reshape(-1), ring.bits), both.size * ring.bits

    return Give(party.sender.request_bits, respond)


def _chosen_take(party: HasOt, choices: np.ndarray, ring: Ring, got: np.ndarray) -> Take:
    width = got.shape[1]

    def collect(span: slice, key: np.ndarray, raw: np.ndarray) -> None:
        both = unpack(raw, 2 * _count(span) * width, ring.bits).reshape(-1, 2, width)
        got[span] = _unseal_rows(choices[span], key, both, bits=ring.bits)

    offer = _offer_keys(party, choices, width, ring)
    return Take(offer, lambda n: 2 * n * width * ring.bits, collect)


def chosen_send(party: HasOt, first: np.ndarray, second: np.ndarray, ring: Ring) -> None:
    """Chosen OT as sender: the receiver gets `first` where its bit is 0 and `second` where it is 1.

      1. receiver -> sender   the request.             128 n bits inline, n stocked
      2. sender -> receiver   both messages, masked.   2 * width * ring.bits each

    Args:
      party: this party.
      first: (n,) or (n, width) ring elements.
      second: like `first`.
      ring: the messages' width.
    """
    half = _chosen_give(party, _columns(np.asarray(first)), _columns(np.asarray(second)), ring)
    give(party.messenger, half, spans(len(first), _columns(first).shape[1]))


def chosen_receive(party: HasOt, choices: np.ndarray, ring: Ring, width: int | None = None):
    """Chosen OT as receiver: (n,), or (n, width), of the messages that `choices` (n,) select."""
    got = np.empty((choices.size, width or 1), ring.dtype)
    take(party.messenger, _chosen_take(party, choices, ring, got), spans(len(got), width or 1))
    return got if width else got[:, 0]


def chosen_both(
    party: HasOt, first: np.ndarray, second: np.ndarray, choices: np.ndarray, ring: Ring
) -> np.ndarray:
    """Both parties offer (n,) `first` and `second` and take by `choices`, at once; what it took."""
    got = np.empty((choices.size, 1), ring.dtype)
    give_and_take(
        party.messenger,
        _chosen_give(party, _columns(first), _columns(second), ring),
        _chosen_take(party, choices, ring, got),
        spans(choices.size),
    )
    return got[:, 0]


def chosen_cost(scheme: Scheme, sender: int, n: int, ring: Ring, width: int = 1) -> Cost:
    """A request per OT and twice `width` elements back."""
    if not n:
        return NOTHING
    return scheme.request(sender, n) + message(sender, 2 * n * width * ring.bits)


def chosen_both_cost(scheme: Scheme, n: int, ring: Ring) -> Cost:
    """`chosen_cost` in both directions, messages crossing."""
    return _both(scheme, n, 2 * n * ring.bits)


def pick_send(party: HasOt, tables: np.ndarray, m: int, t: int) -> None:
    """1-of-2^m OT as sender.

      1. receiver -> sender   the request.            256 n bits by KKOT (m = 1: 128), m n stocked
      2. sender -> receiver   whole tables, masked.   t * 2^m each

    Args:
      party: this party.
      tables: (n,) uint64 words; entry v of a table stands in bits v*t .. v*t + t - 1.
      m: bits of a choice, 1..4.
      t: bits of an entry, t * 2^m <= 64.
    """
    check_pick(m, t)

    def respond(span: slice, raw: np.ndarray) -> tuple[np.ndarray, int]:
        pads = party.sender.pick_pads(raw, _count(span), m, t)
        ring = Ring(t << m)
        return pack((tables[span] ^ pads).astype(ring.dtype), ring.bits), pads.size * ring.bits

    request = Give(lambda n: party.sender.request_pick_bits(n, m), respond)
    give(party.messenger, request, spans(len(tables)))


def pick_receive(party: HasOt, choices: np.ndarray, m: int, t: int) -> np.ndarray:
    """1-of-2^m OT as receiver: the entries (n,) uint8 that `choices` (n,) uint8 select."""
    check_pick(m, t)
    receiver = party.receiver
    got = np.empty(choices.size, np.uint8)

    def offer(span: slice) -> tuple[np.ndarray, int, np.ndarray]:
        pads, raw = receiver.offer_pick(choices[span], m, t)
        return raw, receiver.request_pick_bits(_count(span), m), pads.astype(np.uint8)

    def collect(span: slice, pads: np.ndarray, raw: np.ndarray) -> None:
        words = unpack(raw, _count(span), t << m).astype(np.uint64)
        entry = words >> (choices[span].astype(np.uint64) * np.uint64(t))
        got[span] = (entry & np.uint64((1 << t) - 1)).astype(np.uint8) ^ pads

    take(party.messenger, Take(offer, lambda n: n * t << m, collect), spans(choices.size))
    return got


def pick_cost(scheme: Scheme, sender: int, n: int, m: int, t: int) -> Cost:
    """A request per OT and a table of 2^m entries back."""
    if not n:
        return NOTHING
    return scheme.request_pick(sender, n, m) + message(sender, n * t << m)


def rows_send(party: HasOt, n: int) -> np.ndarray:
    """Sender's rows q (n, 2) uint64 of n OTs whose messages follow later, in any number.

      1. receiver -> sender   the request, in chunks.   128 n bits inline, n stocked

    Keys come from `party.sender.pads(rows, ...)`, at the other end from `party.receiver.pads`.
    """
    rows = np.empty((n, 2), np.uint64)
    chunks = spans(n)
    requests = party.messenger.receive_each(
        [party.sender.request_bits(_count(chunk)) for chunk in chunks]
    )
    for chunk, raw in zip(chunks, requests, strict=True):
        rows[chunk] = party.sender.accept(raw, _count(chunk))
    return rows


def rows_receive(party: HasOt, choices: np.ndarray) -> np.ndarray:
    """Receiver's rows t (n, 2) uint64 for its choices (n,) uint8, see `rows_send`."""
    rows = np.empty((choices.size, 2), np.uint64)
    mark = party.messenger.clock
    for chunk in spans(choices.size):
        rows[chunk], raw = party.receiver.offer(choices[chunk])
        party.messenger.send(raw, party.receiver.request_bits(_count(chunk)), after=mark)
    return rows
