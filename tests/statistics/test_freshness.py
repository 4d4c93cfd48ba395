"""Nothing that has to be used once comes twice, within a session or in another, in a thousand sessions.

Of what is on the wire: points of base OTs, and every 16 bytes of a frame. Of what nobody sees: keys and
nonces from the operating system, deltas, what hashes are keyed by, secrets of RLWE, blocks of streams.
That 16 random bytes come twice by chance in all of this is less likely than 1e-20.
"""

import collections
import contextlib
import os
import threading
from typing import Any
from unittest import mock

import numpy as np
import pytest
from evidence import record
from runs import BY_RLWE, Noted
from tiny import ANSWER, tiny_graph, tiny_input, tiny_weights

from pqjax.crypto import prg, sealed
from pqjax.crypto.crhash import Hash
from pqjax.crypto.prg import Randomness, Stream
from pqjax.engine import execute
from pqjax.engine.execute import Own
from pqjax.engine.model import ServedModel
from pqjax.fleet.tickets import Tickets
from pqjax.he import Secret, Version
from pqjax.ot.base import POINT_BYTES
from pqjax.planner import plan
from pqjax.protocols.party import make_party, run_pair

SESSIONS, FEW = 1000, 4
INFERENCES = 2  # of every session: what must differ within one
_BLOCK = 16
_POINTS = POINT_BYTES, 128 * POINT_BYTES  # messages of base OTs that are points


class Once:
    """Values that are to come once, by kind; which of them came again."""

    def __init__(self):
        self._lock = threading.Lock()
        self._seen = collections.defaultdict(set)
        self.counts, self.again = collections.Counter(), collections.Counter()

    def add(self, kind, *values):
        with self._lock:
            for value in values:
                assert len(value) >= 8, "too short to be different by chance"
                self.counts[kind] += 1
                self.again[kind] += value in self._seen[kind]
                self._seen[kind].add(value)


class Blocks:
    """All 16 bytes of frames, in few arrays: there are millions."""

    def __init__(self):
        self._parts = []

    def add(self, payload):
        whole = payload.size // _BLOCK * _BLOCK
        if whole:
            self._parts.append(payload[:whole].copy())

    def twice(self):
        """How many there are, and how many of them came before."""
        words = np.concatenate(self._parts).view(np.uint64).reshape(-1, 2)
        order = np.lexsort(words.T)
        same = (words[order][1:] == words[order][:-1]).all(1)
        return len(words), int(same.sum())


@contextlib.contextmanager
def watched(once):
    """Notes what is drawn inside, by either party and by whatever they call."""
    urandom, take, draw, keyed = os.urandom, Stream.take, Secret.__init__, Hash.__init__
    ends = {}  # of every stream: the first block that is not used up

    def drawn(n):
        found = urandom(n)
        if n >= _BLOCK:
            once.add("from the operating system", found)
        return found

    def taken(self, n_bytes):
        start = self._next
        found = take(self, n_bytes)
        if isinstance(self, Randomness) and n_bytes:
            kept, end = ends.get(id(self), (self, 0))  # kept: no other object has its place
            once.counts["draws of streams"] += 1
            once.again["draws of streams"] += start < end
            ends[id(self)] = kept, max(end, start + -(-n_bytes // _BLOCK))
        return found

    def secret(self, modulus, randomness):
        draw(self, modulus, randomness)
        once.add("secrets of RLWE", self._s.tobytes())

    def hashed(self, transcript, domain):
        keyed(self, transcript, domain)
        if threading.current_thread().name.endswith("0"):  # both parties have the same
            once.add("keys of hashes", domain.to_bytes(8, "little") + transcript)

    with (
        mock.patch.object(prg.os, "urandom", drawn),
        mock.patch.object(Stream, "take", taken),
        mock.patch.object(Secret, "__init__", secret),
        mock.patch.object(Hash, "__init__", hashed),
    ):
        yield


def session(once, blocks, made, model):
    """One session with new randomness; what its parties sent and know."""
    hints = model.hints.by_layer(made)
    x = tiny_input()

    def side(rank):
        def run(wire):
            noted: Any = Noted(wire)
            party = make_party(noted, rank, made.preset.source, tuning=made.preset.tuning)
            once.add("deltas", party.sender._delta.tobytes())
            mine = Own(hints, model.own.seed) if rank else model.own
            for _ in range(INFERENCES):
                ready = execute.prepare(party, made, mine)
                y: Any = execute.infer(party, made, mine, ready, x if rank else None)
                assert rank == 0 or tuple(y) == ANSWER
            return noted.sent

        return run

    for sent in run_pair(side(0), side(1), 120.0):
        for _, where, payload in sent:
            if "base ot" in where and payload.size in _POINTS:
                raw = payload.tobytes()
                at = range(0, len(raw), POINT_BYTES)
                once.add("points of base OTs", *(raw[i : i + POINT_BYTES] for i in at))
            blocks.add(payload)


def ran(sessions):
    """All that has to be fresh in so many sessions."""
    once, blocks = Once(), Blocks()
    made = plan(tiny_graph(), BY_RLWE)
    model = ServedModel.of_version(made, tiny_weights(), Version(bytes(16), bytes(range(16))))
    master, tickets = bytes(32), Tickets()
    with watched(once):
        for _ in range(sessions):
            session(once, blocks, made, model)
            once.add(
                "salts of sealed files", sealed.seal(master, b"about", b"")[: sealed.KEY_BYTES]
            )
            once.add("tickets", tickets.issue("owner"))
    once.counts["16 bytes of frames"], once.again["16 bytes of frames"] = blocks.twice()
    return once


def told(case, sessions, once, control=False):
    found = sum(once.again.values())
    outcome = f"{found} came twice" + (", as must be noticed" if control else "")
    record("statistics", f"fresh: {case}", outcome, runs=sessions, statistics=once.counts.total(),
           control=int(control), false_alarms_at_most=1e-20)  # fmt: skip
    return found


KINDS = {
    "points of base OTs", "16 bytes of frames", "from the operating system", "deltas",
    "keys of hashes", "secrets of RLWE", "draws of streams", "salts of sealed files", "tickets",
}  # fmt: skip


def test_nothing_comes_twice_in_a_few_sessions():
    once = ran(FEW)

    assert told("a few sessions", FEW, once) == 0, once.again
    assert set(once.counts) == KINDS and min(once.counts.values()) >= FEW


@pytest.mark.slow
def test_nothing_comes_twice_in_a_thousand_sessions():
    once = ran(SESSIONS)

    assert told("a thousand sessions", SESSIONS, once) == 0, once.again
    assert set(once.counts) == KINDS and min(once.counts.values()) >= SESSIONS
    # Two base OTs of 128 each way, and a key of the sender's.
    assert once.counts["points of base OTs"] == SESSIONS * 2 * 129


def _constant_entropy(monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda n: bytes(range(n % 256)) or b"\0" * n)


def _streams_that_stand(monkeypatch):
    def standing(self, n_bytes):
        return self.blocks(0, -(-n_bytes // _BLOCK)).reshape(-1)[:n_bytes]

    monkeypatch.setattr(Stream, "take", standing)


def _one_secret(monkeypatch):
    draw = Secret.__init__
    monkeypatch.setattr(
        Secret, "__init__", lambda self, modulus, _: draw(self, modulus, Randomness(bytes(16)))
    )


REUSED = {
    "entropy": (_constant_entropy, {"deltas", "points of base OTs", "keys of hashes", "tickets"}),
    "streams": (_streams_that_stand, {"draws of streams", "16 bytes of frames"}),
    "a secret of RLWE": (_one_secret, {"secrets of RLWE", "16 bytes of frames"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", REUSED)
def test_what_is_used_again_is_noticed(what, monkeypatch):
    change, kinds = REUSED[what]
    change(monkeypatch)

    once = ran(2)

    assert told(f"control, {what}", 2, once, control=True) > 0
    assert kinds <= {kind for kind, count in once.again.items() if count}
