"""Thousands of inferences of a tiny network between two parties, and all that either of them saw.

Parties, OTs and engine are the real ones, in one process; randomness is of fixed keys. Sessions last for
all inferences of a run, since every inference draws masks, secrets and OTs of its own.
"""

import contextlib
import dataclasses
from typing import Any
from unittest import mock

import numpy as np
from networks import ENCRYPTED
from tiny import ANSWER, tiny_graph, tiny_input
from views import Unaligned, View, ideal_parties, observed, sequential_packing

from pqjax.crypto.prg import Randomness
from pqjax.engine import execute
from pqjax.engine.execute import Own, infer, prepare
from pqjax.engine.model import ServedModel
from pqjax.graph import ScaleUp
from pqjax.he import Version
from pqjax.planner import find_preset, plan
from pqjax.planner.presets import OTS
from pqjax.protocols.party import make_party, run_pair
from pqjax.wire.channel import as_bytes

BY_OT = dataclasses.replace(find_preset("pqjax-ot"), source=OTS["softspoken"])
BY_RLWE = dataclasses.replace(ENCRYPTED, source=OTS["softspoken"])
INLINE = find_preset("privquant")
PRESETS = {"ot": BY_OT, "rlwe": BY_RLWE, "inline": INLINE}
# Inferences: OTs that are made where they are used take several times as long.
RUNS = {"ot": 2000, "rlwe": 2000, "inline": 500}
FEW = 60  # of a test that a fault is noticed


def key(seed, rank=0):
    """A key for a generator."""
    return (1000 * seed + rank + 1).to_bytes(16, "little")


class Noted:
    """A wire that keeps a copy of what is sent through it, by lane."""

    def __init__(self, wire):
        self._wire, self.sent = wire, []

    def __getattr__(self, name):
        return getattr(self._wire, name)

    def send(self, payload, clock, where, lane=0):
        self.sent.append((lane, where, np.frombuffer(bytes(as_bytes(payload)), np.uint8)))
        self._wire.send(payload, clock, where, lane)


class _Rule:
    """A node's rule, which tells what share its run made."""

    def __init__(self, rule, told):
        self._rule, self._told = rule, told

    def __getattr__(self, name):
        return getattr(self._rule, name)

    def run(self, party, at, task, *rest):
        made = self._rule.run(party, at, task, *rest)
        self._told(party.rank, task.node, made)
        return made


@contextlib.contextmanager
def shares_told(told):
    """Calls told(rank, node, share) for every step's."""
    rule_of = execute.rule_of
    with mock.patch.object(execute, "rule_of", lambda node: _Rule(rule_of(node), told)):
        yield


@dataclasses.dataclass
class Seen:
    """Of n inferences.

    Attributes:
      shares: by rank and step: (n, elements), and bits of its ring.
      frames: by sender, lane and number in the inference: its place in the plan, and (n, bytes).
      answers: (n, outputs), the client's.
    """

    shares: dict
    frames: dict
    answers: np.ndarray

    def sent(self, rank):
        """Frames that a party sent: what the other one received."""
        return {at: found for at, found in self.frames.items() if at[0] == rank}


def seen(made, weights, x, n, seed=0):
    """Runs n inferences of one input in one session."""
    version = Version(key(seed, 8), key(seed, 9))
    model = ServedModel.of_version(made, weights, version)
    hints = model.hints.by_layer(made) if model.hints else {}
    shares, frames = {}, {}

    def told(rank, node, share):
        # What is scaled up is a multiple on both sides: of what, is the secret.
        shift = node.shift if isinstance(node, ScaleUp) else 0
        flat = np.array(share).reshape(-1)
        assert not (flat & flat.dtype.type((1 << shift) - 1)).any()
        of = shares.setdefault((rank, node.name), ([], node.out.share_bits - shift))
        of[0].append(flat >> flat.dtype.type(shift))

    def side(rank):
        def run(wire):
            noted: Any = Noted(wire)
            source, tuning = made.preset.source, made.preset.tuning
            party = make_party(noted, rank, source, Randomness(key(seed, rank)), tuning)
            mine = Own(hints, version.seed) if rank else model.own
            answers = []
            for _ in range(n):
                noted.sent.clear()
                ready = prepare(party, made, mine)
                answers.append(infer(party, made, mine, ready, x if rank else None))
                lanes = {}
                for lane, where, payload in noted.sent:
                    number = lanes[lane] = lanes.get(lane, -1) + 1
                    frames.setdefault((rank, lane, number), (where, []))[1].append(payload)
            return answers

        return run

    with shares_told(told):
        answers = run_pair(side(0), side(1), 600.0)[1]
    return Seen(
        {at: (np.stack(found), bits) for at, (found, bits) in shares.items()},
        {at: (where, np.stack(found)) for at, (where, found) in frames.items()},
        np.stack(answers),
    )


def honest(name, weights, value, n, seed=0):
    """The tiny network by one of `PRESETS`, whose answers have to be right."""
    found = seen(plan(tiny_graph(), PRESETS[name]), weights, tiny_input(value), n, seed)
    np.testing.assert_array_equal(found.answers, np.tile(ANSWER, (n, 1)))
    return found


MOST_BITS = 4096  # of a message of elements: keys are longer, and looked at one by one


def opened(name, weights, value, who, n, seed=0):
    """Rank `who`'s view of n inferences with ideal OTs: frames are what it can decrypt (`views`)."""
    made = plan(tiny_graph(), PRESETS[name])
    make = ideal_parties(made.preset.source, who, seed + 1)
    version = Version(key(seed, 8), key(seed, 9))
    model = ServedModel.of_version(made, weights, version)
    hints = model.hints.by_layer(made) if model.hints else {}
    x = tiny_input(value)

    def side(rank):
        def run(wire):
            party = make(wire, rank)
            mine = Own(hints, version.seed) if rank else model.own
            for _ in range(n):
                ready = prepare(party, made, mine)
                infer(party, made, mine, ready, x if rank else None)
            return party

        return run

    with sequential_packing():
        party = run_pair(side(0), side(1), 600.0)[who]
    party.messenger.frames = [
        frame for frame in party.messenger.frames
        if frame.element_bits is None or frame.total <= MOST_BITS
    ]  # fmt: skip
    view = observed(party, n, repeats=n)
    if not view.records:
        raise Unaligned("nothing was seen")
    return View(view.records, n)
