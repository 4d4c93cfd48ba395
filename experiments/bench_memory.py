"""Most memory that a party has resident while it makes silent OTs, each party a process of its own."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np

from pqjax.engine.process import peak_bytes, settle
from pqjax.errors import WireError
from pqjax.ot.silent import Silent
from pqjax.ot.silent_sets import SETS
from pqjax.ot.stocked import StockedReceiver, StockedSender
from pqjax.protocols.party import make_party
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.listener import Listener
from pqjax.wire.tcp import TcpWire, dial

_FILLS = 3  # the first has the seeds to make, the others find them


def rows() -> list[dict]:
    """One row per set and end: everything, the interpreter and compiled kernels included."""
    found = []
    for name in SETS:
        for role, most in zip(("sender", "receiver"), peaks(name), strict=True):
            label = f"peak memory of a {role}'s process, {_source(name).name}, OTs one way"
            found.append({"name": label, "value": most / 2**20, "unit": "MiB"})
    return found


def peaks(name: str) -> tuple[int, int]:
    """Bytes at the sender and at the receiver of a few rounds of a set, one way.

    Raises:
      WireError: either ended early.
    """
    root = pathlib.Path(__file__).parents[1]
    command = [sys.executable, "-m", "experiments.bench_memory", name]
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    assert sender.stdout is not None
    try:
        dialling = [*command, sender.stdout.readline().strip()]
        receiver = subprocess.run(dialling, stdout=subprocess.PIPE, text=True, cwd=root)
        if receiver.returncode:
            raise WireError(f"the receiver ended with {receiver.returncode}")
        said = sender.communicate(timeout=DEADLINE_S)[0]
    finally:
        sender.kill()
        sender.wait()
    if sender.returncode:
        raise WireError(f"the sender ended with {sender.returncode}")
    return int(said), int(receiver.stdout)


def _source(name: str) -> Silent:
    return Silent((name, name))


def _make(wire: TcpWire, rank: int, name: str) -> None:
    """What a session does: a round as soon as one is lacking, its OTs drawn in messages."""
    n = SETS[name].gain
    with wire:
        party = make_party(wire, rank, _source(name))
        end = party.receiver if rank else party.sender
        assert isinstance(end, (StockedSender, StockedReceiver))
        for _ in range(_FILLS):
            party.fill((n, 0))
            for chunk in party.tuning.chunks(n):
                end.stock.draw(chunk.stop - chunk.start)
        if rank:
            party.messenger.send(np.zeros(1, np.uint8), 8)
        else:
            party.messenger.receive(8)  # who hung up earlier would cut off what is on its way


def main(name: str, address: str | None = None) -> None:
    """One party, which prints its peak: the receiver, or without an address the sender."""
    settle()
    if address is None:
        with Listener("127.0.0.1:0") as listener:
            print(listener.address, flush=True)
            sock, _ = listener.accept(DEADLINE_S)
            _make(TcpWire(sock, DEADLINE_S), 0, name)
    else:
        _make(dial(address), 1, name)
    print(peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
