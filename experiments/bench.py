"""`make bench`: kernels and protocols beside what AES and memory of this machine allow.

Both parties run as threads of this process over a local wire, so one party has about one core. The
AES limit of a row is the machine's bulk ECB rate over the AES bytes that the busier party was counted
to need per unit; the copy limit is the rate of one copy of the bytes that travel.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from Crypto.Cipher import AES

from experiments import bench_he, bench_memory, bench_ring
from experiments.command import parser, run
from experiments.record import table
from pqjax.crypto import crhash, prg
from pqjax.engine.process import settle
from pqjax.graph.ir import TensorType
from pqjax.linear import ByOt, Job, LinearMap, on_shares, on_shares_cost
from pqjax.ot.silent import Silent
from pqjax.ot.silent_sets import SETS
from pqjax.ot.source import Source
from pqjax.ot.stocked import SoftSpoken, StockedReceiver, StockedSender
from pqjax.ot.tuning import Tuning
from pqjax.planner import find_preset
from pqjax.protocols.forms import Forms
from pqjax.protocols.nonlinear import relu, relu_cost
from pqjax.protocols.party import Party, make_party, run_pair
from pqjax.protocols.saturate import (
    saturate,
    saturate_by_steps,
    saturate_by_steps_cost,
    saturate_cost,
)
from pqjax.ring import Ring
from pqjax.wire.cost import Cost

_REQUANTIZED = 1 << 17  # elements
_REPEATS = 4
_CIPHERS = ((crhash.Tweaks, "permute"), (prg.Stream, "encrypt"))  # all AES there is


class AesCounter:
    """Counts AES bytes by party while it is installed: names of its threads end with the rank."""

    def __init__(self) -> None:
        self.bytes = [0, 0]

    def _add(self, n: int) -> None:
        self.bytes[int(threading.current_thread().name[-1])] += n

    def __enter__(self) -> AesCounter:
        self._kept = [getattr(of, name) for of, name in _CIPHERS]
        for (of, name), cipher in zip(_CIPHERS, self._kept, strict=True):
            setattr(of, name, self._counted(cipher))
        return self

    def _counted(self, cipher: Callable[..., None]) -> Callable[..., None]:
        def counted(own, blocks: np.ndarray, out: np.ndarray) -> None:
            self._add(blocks.nbytes)
            cipher(own, blocks, out)

        return counted

    def __exit__(self, *_: object) -> None:
        for (of, name), cipher in zip(_CIPHERS, self._kept, strict=True):
            setattr(of, name, cipher)


def aes_rate() -> float:
    """Bytes a second of bulk AES-128-ECB on blocks that stay in the cache."""
    cipher = AES.new(bytes(16), AES.MODE_ECB)
    data, out = bytearray(1 << 18), bytearray(1 << 18)
    return (1 << 18) / _best(lambda: cipher.encrypt(data, output=out), 50)


def copy_rate() -> float:
    """Bytes a second of copying a warm array that exceeds the caches."""
    a, b = np.ones(1 << 26, np.uint8), np.ones(1 << 26, np.uint8)
    return a.nbytes / _best(lambda: np.copyto(b, a), 5)


def _best(work: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


def _both(source: Source, cost: Cost, work: Callable[[Party], object]) -> tuple[float, int]:
    """Best seconds of the slower party, and AES bytes of the busier one, over a few runs."""
    counter = AesCounter()
    seconds: dict[int, list[float]] = {0: [], 1: []}
    spent: dict[int, int] = {}

    def side(rank: int):
        def run(wire):
            party = make_party(wire, rank, source)
            for repeat in range(_REPEATS):
                party.fill(cost.rots)
                if repeat == _REPEATS - 1:
                    counter.bytes[rank] = 0
                begin = time.perf_counter()
                work(party)
                seconds[rank].append(time.perf_counter() - begin)
            spent[rank] = counter.bytes[rank]

        return run

    with counter:
        run_pair(side(0), side(1))
    slower = min(max(pair) for pair in zip(seconds[0][1:], seconds[1][1:], strict=True))
    return slower, max(spent.values())


@dataclasses.dataclass(frozen=True)
class _Machine:
    """Bytes a second of bulk AES and of copying."""

    aes: float
    copy: float

    def row(self, name: str, unit: str, amount: float, seconds: float, aes: int, bits: int) -> dict:
        """A rate beside what AES, and the copying of what travels, would allow."""
        limits = {"AES": amount * self.aes / aes} if aes else {}
        limits["copy"] = amount * self.copy * 8 / bits
        return bench_ring.limited(name, amount / seconds, unit, limits)


def protocol_rows(machine: _Machine) -> list[dict]:
    """Random OTs, the steps of activations, and OT convolutions of every size in ResNet50."""
    rows = ot_rows(machine)
    n = Tuning().tile_elements
    for name in ("privquant", "pqjax"):
        preset = find_preset(name)
        for bits in (8, 16, 32):
            ring = Ring(bits)
            cost = relu_cost(preset.source, n, bits, preset.forms)

            def rectify(party: Party, bits=bits, ring=ring, preset=preset) -> None:
                x = party.randomness.elements(n, ring)
                relu(party, x, bits, preset.forms)

            seconds, aes = _both(preset.source, cost, rectify)
            label = f"ReLU, {bits} bits, {name} ({cost.bits / 8 / n:.0f} bytes each, online)"
            rows.append(machine.row(label, "elements/s", n, seconds, aes, cost.bits))
    rows += requantization_rows(machine)
    for shape in bench_ring.CONVOLUTIONS:
        for name, variant in (("privquant", "4-extend-x-choose-w"), ("pqjax", "full-choose-w")):
            rows.append(_convolution_row(machine, shape, name, variant))
    return rows


def requantization_rows(machine: _Machine) -> list[dict]:
    """Truncate, ReLU, clamp and extend an accumulator with a guard bit: by steps and in one pass."""
    rows, preset = [], find_preset("pqjax")
    for bits, shift, kept, after in ((16, 9, 6, 16), (8, 2, 4, 8), (32, 22, 8, 32)):
        cut, high, out = shift + 1, (1 << kept) - 1, Ring(after)
        few_bits, few_flows = (Forms(flow_bits=worth) for worth in (0, 1 << 40))
        for how, step, price, forms in (
            ("by steps", saturate_by_steps, saturate_by_steps_cost, few_flows),
            ("one pass, few flows", saturate, saturate_cost, few_flows),
            ("one pass, few bits", saturate, saturate_cost, few_bits),
        ):
            how_wide = bits + 1, cut, 0, high, out, forms
            cost = price(preset.source, _REQUANTIZED, *how_wide)

            def run(party: Party, step=step, how_wide=how_wide) -> None:
                x = party.randomness.elements(_REQUANTIZED, Ring(how_wide[0]))
                step(party, x, *how_wide)

            seconds, aes = _both(preset.source, cost, run)
            sizes = f"({bits}, {shift}, {kept}, {after})"
            label = (
                f"requantization {sizes}, {how} ({cost.bits / _REQUANTIZED:.0f} bits in "
                f"{cost.flows} flows, {sum(cost.rots) / _REQUANTIZED:.0f} OTs each)"
            )
            rows.append(machine.row(label, "elements/s", _REQUANTIZED, seconds, aes, cost.bits))
    return rows


def ot_rows(machine: _Machine) -> list[dict]:
    """Random OTs as they are made, and hashed to keys, one way; silent ones a round at a time."""
    rows = []
    for source in (*map(SoftSpoken, (1, 2, 4, 8)), *(Silent((name, name)) for name in SETS)):
        n = source.sets[0].gain if isinstance(source, Silent) else 1 << 19
        _, pool = source.fill((0, 0), (n, 0))
        bits = source.fill(pool, (n, 0))[0].bits  # of later fills: seeds are there
        for hashed in (False, True):

            def make(party: Party, n=n, hashed=hashed) -> None:
                party.fill((n, 0))
                end = party.receiver if party.rank else party.sender
                assert isinstance(end, (StockedSender, StockedReceiver))
                for chunk in party.tuning.chunks(n):
                    rows, _ = end.stock.draw(chunk.stop - chunk.start)
                    if hashed:
                        end.pads(rows, 1)

            seconds, aes = _both(source, Cost(), make)
            name = (
                f"{'hashed' if hashed else 'random'} OT, {source.name} ({bits / n:.2f} bits each)"
            )
            rows.append(machine.row(name, "OT/s", n, seconds, aes, bits))
    return rows


def _convolution_row(
    machine: _Machine, shape: bench_ring.Convolution, name: str, variant: str
) -> dict:
    """W3A6 with its wraps inline; from a store without, for there the operand fills the ring."""
    preset = find_preset(name)
    bits = 3 + 6 + (shape.inner - 1).bit_length()
    linear_map = LinearMap.pointwise((shape.side, shape.side), shape.inner, shape.out_channels)
    job = Job(linear_map, 3, TensorType(linear_map.in_shape, 6, 0, nonnegative=True), bits)
    method = ByOt(variant, "patches")
    encoded = method.encode(job, np.ones(linear_map.weight_shape, np.int64))
    if not preset.masked_input:
        cost, width = method.cost(preset.source, job), method.extended(job)
    else:
        cost, width = on_shares_cost(preset.source, method, job, preset.forms), job.x.bits

    def run(party: Party) -> None:
        x = party.randomness.elements(linear_map.pixels, Ring(width)).reshape(linear_map.in_shape)
        if not preset.masked_input and party.rank == 0:
            method.serve(party, job, encoded)
        elif not preset.masked_input:
            method.ask(party, job, x)
        elif party.rank == 0:
            on_shares.serve(party, method, job, encoded, x, preset.forms)
        else:
            on_shares.ask(party, method, job, x, preset.forms)

    seconds, aes = _both(preset.source, cost, run)
    label = f"OT convolution {shape}, W3A6, {bits} bits, {name}"
    return machine.row(label, "bytes/s", cost.bits / 8, seconds, aes, cost.bits)


def compute(args: argparse.Namespace) -> dict:
    """The machine's limits, then every row."""
    settle()
    aes, copy = aes_rate(), copy_rate()
    runs = bench_ring.rows() + bench_he.rows() + protocol_rows(_Machine(aes, copy))
    runs += bench_memory.rows()
    config = {"repeats": _REPEATS, "seed": None}
    return {"config": config, "runs": runs, "aes_rate": aes, "copy_rate": copy}


def report(tree: dict) -> str:
    """The table."""
    runs = tree["runs"]
    return (
        "# Benches\n\n"
        f"AES {tree['aes_rate'] / 1e9:.2f} GB/s, copy {tree['copy_rate'] / 1e9:.2f} GB/s. Best of a "
        "few runs, both parties threads of one process.\n\n" + table(runs) + "\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/bench.json` and `.md`."""
    return run(parser("bench", __doc__), compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
