"""The wire trace: a line for every protocol and source, of what it sends under fixed seeds.

    make trace      records tests/wire_trace.txt anew

A line holds the case, the source, bits sent by rank 0 and by rank 1, flows, and a digest of all bytes
in each direction. A change that should not touch the wire leaves the file as it is.
"""

import functools
import pathlib

from cases import CASES, Case
from pairs import KINDS, Run, digested_pair, run_dealt

from pqjax.crypto.prg import Randomness
from pqjax.ot.stocked import Stocked
from pqjax.protocols.party import make_party

FILE = pathlib.Path(__file__).with_name("wire_trace.txt")
FEW = 300  # repetitions: beyond 128 lanes, so that both layouts of packed messages occur
ROUNDS = 3
SEED = 12
SET_UP = "set-up"
ROTS = (130, 70)


def traced(case: Case, source):
    """The case's inputs and its run, everything random fixed."""
    n = ROUNDS if case.rounds else FEW
    inputs = case.inputs(Randomness(bytes([SEED] * 16)), n)
    return inputs, run_dealt(case.run, *inputs, source, case.cost(source, n), SEED)


def line(case, source, run):
    """The case's line."""
    n = ROUNDS if case.rounds else FEW
    return _line(case.name, source, case.cost(KINDS[source], n), run)


def _line(name, source, cost, run):
    return "\t".join([name, source, *map(str, (*cost.sent, cost.flows)), *run.digests])


def set_up_line(source):
    """The line of the base OTs, the keys made from them and, if stocked, of filling a store."""
    chosen = KINDS[source]
    rots = ROTS if isinstance(chosen, Stocked) else (0, 0)

    def side(wire, rank):
        party = make_party(wire, rank, chosen, Randomness(bytes([SEED, rank] * 8)))
        with party.messenger.layer("offline", "stock"):
            party.fill(rots)
        return party.messenger.trace.bits()

    outputs, digests = digested_pair(side)
    cost = chosen.set_up_cost() + chosen.fill((0, 0), rots)[0]
    assert outputs[0] == cost.sent, "set-up's bits are not those predicted"
    return _line(SET_UP, source, cost, Run(outputs, digests))


@functools.cache
def recorded():
    """The lines on file, by case and source."""
    return {tuple(text.split("\t")[:2]): text for text in FILE.read_text().splitlines()}


def record():
    """Writes the file."""
    lines = [set_up_line(source) for source in KINDS]
    lines += [
        line(CASES[name], source, traced(CASES[name], KINDS[source])[1])
        for name in CASES
        for source in KINDS
    ]
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    record()
