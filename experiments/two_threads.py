"""Runs protocols between two parties in this process and meters them, for rows marked *measured*."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np

from pqjax.engine.process import peak_bytes
from pqjax.errors import PqjaxError
from pqjax.ot.source import Source
from pqjax.protocols.party import make_party, run_pair
from pqjax.ring import Ring
from pqjax.wire.cost import Cost

_DEADLINE_S = 600.0  # other work may share the machine


@dataclasses.dataclass(frozen=True)
class Call:
    """A protocol between two parties, and what is known of it beforehand.

    Attributes:
      name: for messages.
      function: takes the party and that rank's arguments; returns its share of the result.
      args: arguments of rank 0 and of rank 1.
      ring: of the shares returned; one bit for XOR shares.
      expected: the result, modulo the ring.
      cost: the prediction.
    """

    name: str
    function: Callable[..., np.ndarray]
    args: tuple[tuple, tuple]
    ring: Ring
    expected: np.ndarray
    cost: Cost


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one call sent, both directions together, and how long it took."""

    bits: int
    flows: int
    seconds: float
    peak_bytes: int


def measure(calls: list[Call], source: Source) -> list[Measured]:
    """Runs the calls one after the other in one session over real OT.

    Raises:
      PqjaxError: a result is not the expected one, or bits or flows are not those predicted.
    """

    def side(rank: int):
        def work(wire):
            party = make_party(wire, rank, source)
            entries, shares, clocks = [], [], []
            for call in calls:
                clocks.append(party.messenger.clock)
                with party.messenger.layer("online", call.name):
                    shares.append(call.function(party, *call.args[rank]))
                entries.append(party.messenger.trace.entries[-1])
            return entries, shares, clocks

        return work

    (mine, shares0, clocks0), (theirs, shares1, clocks1) = run_pair(side(0), side(1), _DEADLINE_S)
    found = []
    for i, call in enumerate(calls):
        result = call.ring.add(shares0[i], shares1[i])
        if not np.array_equal(result, call.ring.reduce(call.expected)):
            raise PqjaxError(f"{call.name}: the result is wrong")
        sent = (mine[i].sent_bits, theirs[i].sent_bits)
        if sent != call.cost.sent:
            raise PqjaxError(f"{call.name}: sent {sent} bits, predicted {call.cost.sent}")
        after = (mine[i].clock_after, theirs[i].clock_after)
        if after != call.cost.clocks((clocks0[i], clocks1[i])):
            raise PqjaxError(f"{call.name}: flows are not the {call.cost.flows} predicted")
        seconds = max(mine[i].seconds, theirs[i].seconds)
        found.append(Measured(sum(sent), call.cost.flows, seconds, peak_bytes()))
        print(f"{call.name}: {sum(sent)} bits as predicted, {seconds:.2f} s", file=sys.stderr)
    return found


def share(rng: np.random.Generator, x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of public test data modulo 2^bits, for rank 0 and rank 1."""
    ring = Ring(bits)
    mask = ring.reduce(rng.integers(0, 2**64, x.shape, dtype=np.uint64))
    return ring.share(ring.reduce(x), mask)
