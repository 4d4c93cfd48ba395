"""The wire trace: a line for every protocol and scheme, of what it sends under fixed seeds.

    python -m wire_trace      records tests/wire_trace.txt anew (`make trace`)

A line holds the case, the scheme, bits sent by rank 0 and by rank 1, flows, and a digest of all bytes
in each direction. A change that should not touch the wire leaves the file as it is.
"""

import functools
import pathlib

import numpy as np
from cases import CASES
from pairs import SCHEMES, run_dealt

FILE = pathlib.Path(__file__).with_name("wire_trace.txt")
FEW = 300  # repetitions: beyond 128 lanes, so that both layouts of packed messages occur
ROUNDS = 3
SEED = 12


def traced(case, scheme):
    """The case's inputs and its run, everything random fixed."""
    n = ROUNDS if case.rounds else FEW
    inputs = case.inputs(np.random.default_rng(SEED), n)
    return inputs, run_dealt(case.run, *inputs, scheme, case.cost(scheme, n), SEED)


def line(case, scheme, run):
    """The case's line."""
    n = ROUNDS if case.rounds else FEW
    cost = case.cost(SCHEMES[scheme], n)
    fields = [*cost.sent, cost.flows, *run.digests]
    return "\t".join([case.name, scheme, *map(str, fields)])


@functools.cache
def recorded():
    """The lines on file, by case and scheme."""
    return {tuple(text.split("\t")[:2]): text for text in FILE.read_text().splitlines()}


def record():
    """Writes the file."""
    lines = [
        line(case, scheme, traced(case, SCHEMES[scheme])[1])
        for case in CASES.values() for scheme in SCHEMES
    ]  # fmt: skip
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    record()
