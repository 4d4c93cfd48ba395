"""Setting up both directions of an extension once per session, from 128 public-key OTs each.

For the direction in which rank s will be sender, s is the *receiver* of the base OTs: its choices
are its secret delta. With k = 1 the base keys are the two leaves of every tree; with k > 1 they
unmask the trees' sibling sums. What the base OTs said keys every hash of the direction.
"""

import typing
from collections.abc import Callable

import numpy as np

from pqjax.crypto.crhash import Hash
from pqjax.crypto.prg import Randomness
from pqjax.ot.base import base_cost, base_receive, base_send
from pqjax.ot.pprf import expand, puncture
from pqjax.ot.softspoken import ExtensionReceiver, ExtensionSender, Leaves
from pqjax.ot.source import Choices, Words
from pqjax.wire.cost import NOTHING, Cost, message
from pqjax.wire.messenger import Messenger

S = typing.TypeVar("S")
R = typing.TypeVar("R")
_BASE = 128
_ROWS, _TREES, _ROUNDS = range(3)  # what a direction hashes: its domains are 3 * sender and above


class Hashes(typing.NamedTuple):
    """A direction's hashes: of rows that are used, and of what is grown into rows, in its own time."""

    rows: Hash
    rounds: Hash


def _hash(transcript: bytes, sender: int, use: int) -> Hash:
    return Hash(transcript, 3 * sender + use)


def row_hash(transcript: bytes, sender: int) -> Hash:
    """The hash of a direction's rows."""
    return _hash(transcript, sender, _ROWS)


def _hashes(transcript: bytes, sender: int) -> Hashes:
    return Hashes(*(_hash(transcript, sender, use) for use in (_ROWS, _ROUNDS)))


def _receiver_leaves(messenger: Messenger, randomness: Randomness, k: int) -> tuple[Leaves, bytes]:
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
    messenger: Messenger, randomness: Randomness, k: int, odd: bool
) -> tuple[Choices, Leaves, bytes]:
    """The extension sender's part: delta (128,) bits, the leaves it may know, the base OTs' digest."""
    delta = randomness.bits(_BASE)
    delta[0] |= odd
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


def each_way(
    messenger: Messenger, what: str, send: Callable[[], S], receive: Callable[[], R]
) -> tuple[S, R]:
    """Runs this party's halves of a step in which first rank 0 is sender and then rank 1."""

    def run(sender: int, half: Callable[[], typing.Any]) -> typing.Any:
        with messenger.step(f"{what}/rank {sender} sends"):
            return half()

    if messenger.rank == 0:
        return run(0, send), run(1, receive)
    received = run(0, receive)
    return run(1, send), received


def extend_both(
    messenger: Messenger, randomness: Randomness, k: int, odd: bool = False
) -> tuple[tuple[Words, Hashes, ExtensionSender], tuple[Hashes, ExtensionReceiver]]:
    """Base OTs and trees of both directions: what the sender of one and the receiver of the other keep.

    If `odd`, delta's lowest bit is 1 and not a secret.

    Cost: `extend_both_cost`. Reference: SoftSpokenOT, eprint 2022/192; base OTs see `base`.
    """
    rank = messenger.rank

    def send() -> tuple[Words, Hashes, ExtensionSender]:
        delta, leaves, said = _sender_leaves(messenger, randomness, k, odd)
        words = np.packbits(delta, bitorder="little").view(np.uint64)
        return words, _hashes(said, rank), ExtensionSender(k, leaves, delta)

    def receive() -> tuple[Hashes, ExtensionReceiver]:
        leaves, said = _receiver_leaves(messenger, randomness, k)
        return _hashes(said, 1 - rank), ExtensionReceiver(k, leaves)

    return each_way(messenger, "base ot", send, receive)


def extend_both_cost(k: int) -> Cost:
    """Base OTs and, where k > 1, tree corrections."""
    cost = NOTHING
    for sender in (0, 1):
        cost += base_cost(1 - sender, _BASE)
        if k > 1:
            cost += message(1 - sender, 8 * 2 * 16 * _BASE)
    return cost
