"""Setting up both directions of OT once per session, from 128 public-key OTs each.

For the direction in which rank s will be sender, s is the *receiver* of the base OTs: its choices
are its secret delta. With k = 1 the base keys are the two leaves of every tree; with k > 1 they
unmask the trees' sibling sums. KKOT's 256 keys come from one IKNP batch of the other direction. What
the base OTs said keys every hash of the direction.
"""

from __future__ import annotations

import numpy as np

from pqjax.crypto.crhash import Hash
from pqjax.crypto.prg import Randomness
from pqjax.ot.base import base_cost, base_receive, base_send
from pqjax.ot.endpoint import OtReceiver, OtSender, Scheme
from pqjax.ot.kkot import WIDTH as WIDE
from pqjax.ot.kkot import WideReceiver, WideSender
from pqjax.ot.pprf import expand, puncture
from pqjax.ot.softspoken import WIDTH, ExtensionReceiver, ExtensionSender
from pqjax.wire.cost import NOTHING, Cost, message
from pqjax.wire.messenger import Messenger

_BASE = 128
_ROWS, _TREES = 0, 1  # what a direction hashes: its domains are 2 * sender and one above


def _hash(transcript: bytes, sender: int, use: int) -> Hash:
    return Hash(transcript, 2 * sender + use)


def _receiver_leaves(
    messenger: Messenger, randomness: Randomness, k: int
) -> tuple[np.ndarray, bytes]:
    """The extension receiver's part: all leaves (128/k, 2^k, 2), and the base OTs' digest."""
    keys, transcript = base_send(messenger, randomness, _BASE)
    pairs = np.frombuffer(b"".join(a + b for a, b in keys), np.uint64).reshape(_BASE, 2, 2)
    if k == 1:
        return pairs, transcript
    roots = randomness.take(16 * (_BASE // k)).view(np.uint64).reshape(-1, 2)
    leaves, sums = expand(roots, k, _hash(transcript, 1 - messenger.rank, _TREES))
    masked = sums.reshape(_BASE, 2, 2) ^ pairs
    messenger.send(masked.reshape(-1).view(np.uint8), 8 * masked.nbytes)
    return leaves, transcript


def _sender_leaves(
    messenger: Messenger, randomness: Randomness, k: int
) -> tuple[np.ndarray, np.ndarray, bytes]:
    """The extension sender's part: delta (128,) bits, the leaves it may know, the base OTs' digest."""
    delta = randomness.bits(_BASE)
    # Level by level from the root the path is delta's bits, most significant first; the base OT
    # is asked for the other side.
    path = delta.reshape(-1, k)[:, ::-1]
    others = 1 - path.reshape(-1)
    keys, transcript = base_receive(messenger, randomness, others)
    known = np.frombuffer(b"".join(keys), np.uint64).reshape(_BASE, 2)
    if k == 1:
        leaves = np.zeros((_BASE, 2, 2), np.uint64)
        leaves[np.arange(_BASE), others] = known
        return delta, leaves, transcript
    raw = messenger.receive(8 * 2 * 16 * _BASE).view(np.uint64).reshape(_BASE, 2, 2)
    siblings = (raw[np.arange(_BASE), others] ^ known).reshape(-1, k, 2)
    hash = _hash(transcript, messenger.rank, _TREES)
    return delta, puncture(path, siblings, hash), transcript


def set_up(
    messenger: Messenger, randomness: Randomness, scheme: Scheme
) -> tuple[OtSender, OtReceiver]:
    """Runs the base OTs of both directions; this party's two ends. Cost: `set_up_cost`."""
    ends: dict[bool, OtSender | OtReceiver] = {}
    words = {}
    for sender in (0, 1):
        with messenger.step(f"base ot/rank {sender} sends"):
            if messenger.rank == sender:
                delta, leaves, said = _sender_leaves(messenger, randomness, scheme.k)
                words[sender] = np.packbits(delta, bitorder="little").view(np.uint64)
                extension = ExtensionSender(scheme.k, leaves, delta)
                hash = _hash(said, sender, _ROWS)
                ends[True] = OtSender(scheme, words[sender], extension, hash)
            else:
                leaves, said = _receiver_leaves(messenger, randomness, scheme.k)
                extension = ExtensionReceiver(scheme.k, leaves)
                ends[False] = OtReceiver(scheme, extension, _hash(said, sender, _ROWS))
    sends, receives = ends[True], ends[False]
    assert isinstance(sends, OtSender) and isinstance(receives, OtReceiver)
    if not scheme.stocked:
        for sender in (0, 1):
            with messenger.step(f"kkot/rank {sender} sends"):
                if messenger.rank == sender:
                    secret = randomness.bits(WIDE)
                    rows, raw = receives.offer(secret)
                    messenger.send(raw, WIDTH * WIDE)
                    keys = [key.tobytes() for key in receives.pads(rows, 1)]
                    sends.widen(WideSender(keys, secret))
                else:
                    rows = sends.accept(messenger.receive(WIDTH * WIDE), WIDE)
                    zero, one = sends.pads(rows, 1)
                    pairs = [(a.tobytes(), b.tobytes()) for a, b in zip(zero, one, strict=True)]
                    receives.widen(WideReceiver(pairs))
    return sends, receives


def set_up_cost(scheme: Scheme) -> Cost:
    """Base OTs, tree corrections where k > 1, and KKOT's keys where OTs are extended inline."""
    cost = NOTHING
    for sender in (0, 1):
        cost += base_cost(1 - sender, _BASE)
        if scheme.k > 1:
            cost += message(1 - sender, 8 * 2 * 16 * _BASE)
    if not scheme.stocked:
        for sender in (0, 1):
            cost += message(sender, WIDTH * WIDE)
    return cost


def _stock_chunk(k: int) -> int:
    """Random OTs per message: long columns spare AES calls, 2^k of them should stay in the cache."""
    return 1 << (18 if k <= 4 else 16)


def fill_stocks(
    messenger: Messenger, sends: OtSender, receives: OtReceiver, rots: tuple[int, int]
) -> None:
    """Puts rots[s] random OTs in store for the direction in which rank s sends.

    Cost: `fill_stocks_cost`. One message a chunk from receiver to sender.
    """
    for sender, n in enumerate(rots):
        k = sends.scheme.k
        chunk = _stock_chunk(k)
        sizes = [min(chunk, n - at) for at in range(0, n, chunk)]
        columns = WIDTH // k - 1
        with messenger.step(f"random ots/rank {sender} sends"):
            if messenger.rank == sender:
                raws = messenger.receive_each([columns * size for size in sizes])
                for size, raw in zip(sizes, raws, strict=True):
                    sends.stock_from(raw, size)
            else:
                for size in sizes:
                    messenger.send(receives.stock_corrections(size), columns * size)


def fill_stocks_cost(scheme: Scheme, rots: tuple[int, int]) -> Cost:
    """(128/k - 1) bits per random OT, from its receiver."""
    return scheme.stocking(0, rots[0]) + scheme.stocking(1, rots[1])
