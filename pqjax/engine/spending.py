"""How two parties keep preparations, and agree which of them they spend, another day.

Kept is a preparation in a session (`KEEP`), once it is made:

  1. client -> server   the batch's name and key, the same for all of a session.   384 bits
  2. server -> client   whether it keeps its half.                                 8 bits

Then a client that has any says so as it greets, and for one batch after the other

  1. client -> server   the batch's name, a nonce, how many it wants to spend
  2. server -> client   a nonce
  3. client -> server   which preparations it has
  4. server -> client   which of these it has, too; all others both throw away
  5. client -> server   which of these it has claimed
  6. server -> client   which of these it has claimed, too

From 3 on everything comes with a proof that who says it holds the batch's key. Without one, or of a
batch that the server does not have, it says in 4 "none", with a proof that is none: a stranger cannot
tell. Both claim before they say so: nothing that may have been used is ever found again (`Store.claim`).
These frames carry clock 0 and belong to no plan.
"""

import enum
import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.crypto.sealed import KEY_BYTES, fresh_key, proof, same
from pqjax.engine.execute import Preparation
from pqjax.engine.half import from_bytes, set_aside, to_bytes
from pqjax.engine.store import MOST_IN_BATCH, NAME_BYTES, Batch, Store
from pqjax.errors import CheckpointError, Drift, StoreError
from pqjax.planner.plan import Plan
from pqjax.protocols.party import Party, make_party
from pqjax.wire.interface import Wire
from pqjax.wire.messenger import Messenger
from pqjax.wire.trace import Trace

MOST_OFFERED = 64  # batches, in one greeting
KEEP_LAYER = "keep"
_TICKET_BITS, _ANSWER_BITS = 8 * (NAME_BYTES + KEY_BYTES), 8
_NONCE_BYTES = 16
_OFFER = struct.Struct(f"<{NAME_BYTES}s{_NONCE_BYTES}sB7x")
_SAID = struct.Struct(f"<Q{KEY_BYTES}s")
_DONE = bytes(NAME_BYTES)
_WHERE = "stored preparations"
Note = Callable[[str], None]


class Answer(enum.IntEnum):
    """What a server says to a preparation that it is to keep."""

    KEPT = 0
    NO_STORE = 1
    NO_ROOM = 2


_REFUSED: dict[int, str] = {
    Answer.NO_STORE: "the server keeps no preparations (`pqjax serve --store DIR` does)",
    Answer.NO_ROOM: "the server has no room for more preparations, in all or of this client",
}


class Shelf(NamedTuple):
    """Where a client keeps preparations, and what it calls the server that has the other halves."""

    store: Store
    server: str


class Keeping(NamedTuple):
    """A session's batch, and how many preparations it has had so far."""

    batch: Batch
    count: int


def about(plan: Plan, identity: bytes) -> bytes:
    """What preparations are of, at a party: the plan, and at the server the model."""
    return hashlib.sha256(b"pqjax about" + plan.digest + identity).digest()


def fresh_batch(plan: Plan) -> Batch:
    """A client's new one."""
    return Batch(fresh_key()[:NAME_BYTES], fresh_key(), about(plan, b""))


def begin(wire: Wire, rank: int, plan: Plan, spent: Sequence[Preparation]) -> tuple[Party, Trace]:
    """A session's party: set up, or standing on the ends of what it spends first."""
    if not spent:
        party = make_party(wire, rank, plan.preset.source, tuning=plan.preset.tuning)
        return party, party.messenger.trace
    trace = Trace(stored=len(spent))
    assert spent[0].ends is not None
    messenger, tuning = Messenger(wire, rank, trace), plan.preset.tuning
    return Party(messenger, Randomness(), plan.preset.source, *spent[0].ends, tuning), trace


def keep_at_client(
    party: Party, plan: Plan, shelf: Shelf, kept: Keeping, made: Preparation
) -> Keeping:
    """The client's half of keeping, once the command is given; the batch with one more.

    Raises:
      StoreError: one of both has no room. What was prepared is gone.
    """
    batch, number = kept
    half = to_bytes(set_aside(party, plan, made, _name(batch, number)))
    with party.messenger.layer("offline", KEEP_LAYER):
        party.messenger.send(np.frombuffer(batch.name + batch.key, np.uint8), _TICKET_BITS)
        said = int(party.messenger.receive(_ANSWER_BITS)[0])
    if said != Answer.KEPT:
        raise StoreError(_REFUSED.get(said, f"the server refused for an unknown reason ({said})"))
    shelf.store.put(batch, shelf.server, number, half)
    return Keeping(batch, number + 1)


def keep_at_server(
    party: Party, plan: Plan, identity: bytes, store: Store | None, owner: str,
    kept: Keeping | None, made: Preparation, note: Note,
) -> Keeping:  # fmt: skip
    """The server's half.

    Raises:
      Drift: the client begins another batch before one is full.
    """
    with party.messenger.layer("offline", KEEP_LAYER):
        told = party.messenger.receive(_TICKET_BITS).tobytes()
        own = Batch(told[:NAME_BYTES], told[NAME_BYTES:], about(plan, identity))
        if kept is None or kept.count == MOST_IN_BATCH:
            kept = Keeping(own, 0)
        batch, number = kept
        if batch != own or own.name == _DONE:
            raise Drift("one batch expected until it is full")
        half, said = to_bytes(set_aside(party, plan, made, _name(batch, number))), Answer.KEPT
        try:
            if store is None:
                said = Answer.NO_STORE
            else:
                store.put(batch, owner, number, half)
        except StoreError as error:
            note(f"a preparation is not kept: {error}")
            said = Answer.NO_ROOM
        party.messenger.send(np.array([said], np.uint8), _ANSWER_BITS)
    return Keeping(batch, number + 1)


def spend_at_client(
    wire: Wire, plan: Plan, store: Store, batches: Iterable[Batch], most: int, note: Note
) -> list[Preparation]:
    """Claims up to so many preparations at both sides, in their order; `note` hears what is lost."""
    found: list[Preparation] = []
    for batch in list(batches)[:MOST_OFFERED]:
        if batch.about != about(plan, b""):
            lost = store.retain(batch, set())
            note(f"{lost} stored preparations thrown away: the server's plan is another one now")
        elif len(found) < most:
            found += _offer(wire, plan, store, batch, most - len(found), note)
    wire.send(_OFFER.pack(_DONE, bytes(_NONCE_BYTES), 0), 0, _WHERE)
    return found


def _offer(
    wire: Wire, plan: Plan, store: Store, batch: Batch, most: int, note: Note
) -> list[Preparation]:
    nonce = fresh_key()[:_NONCE_BYTES]
    wire.send(_OFFER.pack(batch.name, nonce, most), 0, _WHERE)
    talk = _Talk(wire, batch, nonce + wire.recv(_NONCE_BYTES, _WHERE)[0].tobytes())
    own = store.numbers(batch)
    talk.say(3, own)
    both, proved = talk.hear(4, own)
    if not proved:
        lost = store.retain(batch, set())
        note(
            f"{lost} stored preparations thrown away: the server lacks its half of them (too old, "
            "damaged, or of another version of the model)"
        )
        return []
    lost = store.retain(batch, both)
    if lost:
        note(f"{lost} stored preparations thrown away: the server has used its half, or lost it")
    if not both:
        return []
    claimed = _claimed(plan, 1, store, batch, sorted(both), most, note)
    talk.say(5, set(claimed))
    ready, proved = talk.hear(6, set(claimed))
    if not proved:
        raise Drift("stored preparations: the server's proof is wrong")
    if len(ready) < len(claimed):
        note(f"{len(claimed) - len(ready)} stored preparations lost: the server's are damaged")
    return [claimed[number] for number in sorted(ready)]


def spend_at_server(
    wire: Wire, plan: Plan, identity: bytes, store: Store | None, most: int, note: Note
) -> list[Preparation]:
    """The server's half: up to `most` preparations are claimed in all.

    Raises:
      Drift: the client offers too many batches, or claims what was not agreed on.
    """
    found: list[Preparation] = []
    for _ in range(MOST_OFFERED + 1):
        name, nonce, wanted = _OFFER.unpack(wire.recv(_OFFER.size, _WHERE)[0].tobytes())
        if name == _DONE:
            return found
        batch = None if store is None else store.find(name)
        known = batch or Batch(name, fresh_key(), b"")  # nobody can prove that he holds this one
        own = fresh_key()[:_NONCE_BYTES]
        wire.send(own, 0, _WHERE)
        talk = _Talk(wire, known, nonce + own)
        theirs, proved = talk.hear(3, None)
        if not proved or store is None or batch is None:
            if batch is not None:
                note("a client did not prove that it holds the preparations that it named")
            talk.say(4, set(), proved=False)
            continue
        current = batch.about == about(plan, identity)
        both = theirs & store.numbers(batch) if current else set()
        lost = store.retain(batch, both)
        if lost:
            why = "the client lacks its half" if current else "they are of another model"
            note(f"{lost} stored preparations thrown away: {why}")
        talk.say(4, both)
        if not both:
            continue
        claimed, proved = talk.hear(5, both)
        if not proved or len(claimed) > min(wanted, most - len(found)):
            raise Drift("stored preparations: claimed are more than may be")
        ready = _claimed(plan, 0, store, batch, sorted(claimed), len(claimed), note)
        talk.say(6, set(ready))
        found += [ready[number] for number in sorted(ready)]
    raise Drift(f"stored preparations: more than {MOST_OFFERED} batches offered")


def _claimed(
    plan: Plan, rank: int, store: Store, batch: Batch, numbers: Iterable[int], most: int, note: Note
) -> dict[int, Preparation]:
    """Claims up to so many of these; what is damaged is gone, too."""
    found: dict[int, Preparation] = {}
    for number in numbers:
        if len(found) == most:
            break
        try:
            half = store.claim(batch, number)
            if half is not None:
                found[number] = from_bytes(half, plan, rank)
        except CheckpointError as error:
            note(f"a stored preparation is lost: {error}")
    return found


class _Talk:
    """Sets of preparations, said and heard with proofs."""

    def __init__(self, wire: Wire, batch: Batch, nonces: bytes):
        self._wire, self._batch, self._nonces = wire, batch, nonces

    def say(self, step: int, numbers: set[int], proved: bool = True) -> None:
        """Says which; without a proof what nobody can tell from one."""
        bits = sum(1 << number for number in numbers)
        shown = self._proof(step, bits) if proved else fresh_key()
        self._wire.send(_SAID.pack(bits, shown), 0, _WHERE)

    def hear(self, step: int, among: set[int] | None) -> tuple[set[int], bool]:
        """Which, and whether that is proved: if so it must be among these."""
        bits, shown = _SAID.unpack(self._wire.recv(_SAID.size, _WHERE)[0].tobytes())
        if not same(shown, self._proof(step, bits)):
            return set(), False
        found = {number for number in range(MOST_IN_BATCH) if bits >> number & 1}
        if among is not None and not found <= among:
            raise Drift("stored preparations: more of them than were named")
        return found, True

    def _proof(self, step: int, bits: int) -> bytes:
        what = bytes([step]), bits.to_bytes(8, "little")
        return proof(self._batch.key, self._batch.name, self._nonces, *what)


def _name(batch: Batch, number: int) -> bytes:
    """What a preparation's hashes are named by, at both parties."""
    return batch.name + number.to_bytes(8, "little")
