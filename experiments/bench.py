"""`make bench`: kernels and protocols beside what AES and memory of this machine allow.

Both parties run as threads of this process over a local wire, so one party has about one core. The
AES limit of a row is the machine's bulk ECB rate over the AES bytes that the busier party was counted
to need per unit; the copy limit is the rate of one copy of the bytes that travel.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from Crypto.Cipher import AES

from experiments import bench_ring
from experiments.command import parser
from experiments.record import RESULTS, table, write
from pqjax.crypto import crhash, prg
from pqjax.engine.process import settle
from pqjax.ot.source import Source
from pqjax.ot.stocked import SoftSpoken, Stock, StockedReceiver, StockedSender
from pqjax.planner import find_preset
from pqjax.planner.cost import TILE
from pqjax.protocols.linear_ot import (
    Product,
    multiply,
    multiply_cost,
    product_bits,
    product_bits_cost,
)
from pqjax.protocols.nonlinear import relu, relu_cost
from pqjax.protocols.party import Party, make_party, run_pair
from pqjax.ring import Ring
from pqjax.wire.cost import Cost

_REPEATS = 4


class _AesCounter:
    """Counts AES bytes per thread while it is installed."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}

    def _add(self, n: int) -> None:
        me = threading.get_ident()
        self.bytes[me] = self.bytes.get(me, 0) + n

    def __enter__(self) -> _AesCounter:
        self._kept = crhash.Tweaks.permute, prg.Stream.encrypt
        permute, encrypt = self._kept

        def counted_permute(tweaks, x, out):
            self._add(x.nbytes)
            permute(tweaks, x, out)

        def counted_encrypt(stream, blocks, out):
            self._add(blocks.nbytes)
            encrypt(stream, blocks, out)

        crhash.Tweaks.permute, prg.Stream.encrypt = counted_permute, counted_encrypt
        return self

    def __exit__(self, *_: object) -> None:
        crhash.Tweaks.permute, prg.Stream.encrypt = self._kept


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
    counter = _AesCounter()
    seconds: dict[int, list[float]] = {0: [], 1: []}
    spent: dict[int, int] = {}

    def side(rank: int):
        def run(wire):
            party = make_party(wire, rank, source)
            for repeat in range(_REPEATS):
                party.fill(cost.rots)
                if repeat == _REPEATS - 1:
                    counter.bytes[threading.get_ident()] = 0
                begin = time.perf_counter()
                work(party)
                seconds[rank].append(time.perf_counter() - begin)
            spent[rank] = counter.bytes.get(threading.get_ident(), 0)

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
    rows = []
    n = 1 << 19
    for k in (1, 2, 4, 8):
        source = SoftSpoken(k)

        def stock(party: Party) -> None:
            party.fill((n, 0))
            for end in (party.sender, party.receiver):
                assert isinstance(end, (StockedSender, StockedReceiver))
                end.stock = Stock()

        seconds, aes = _both(source, Cost(), stock)
        bits = source.fill((0, 0), (n, 0))[0].bits / n
        name = f"random OT, k={k} ({bits:.0f} bits each)"
        rows.append(machine.row(name, "OT/s", n, seconds, aes, round(bits * n)))
    n = TILE
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
    for shape in bench_ring.CONVOLUTIONS:
        for name, variant in (("privquant", "4-extend-x-choose-w"), ("pqjax", "full-choose-w")):
            rows.append(_convolution_row(machine, shape, name, variant))
    return rows


def _convolution_row(
    machine: _Machine, shape: bench_ring.Convolution, name: str, variant: str
) -> dict:
    """W3A6 with its wraps inline; from a store without, for there the operand fills the ring."""
    preset = find_preset(name)
    bits = 3 + 6 + (shape.inner - 1).bit_length()
    d1, d2, d3 = shape.out_channels, shape.inner, shape.side**2
    product = Product(d1, d2, d3, 3, 6, True, True, bits, variant)
    weights = np.ones((d1, d2), np.int64)
    if preset.ahead:
        cost = product_bits_cost(preset.source, product)
        width = product.extended
    else:
        cost = multiply_cost(preset.source, product, preset.forms)
        width = product.x_bits

    def run(party: Party) -> None:
        x = party.randomness.elements(d2 * d3, Ring(width)).reshape(d2, d3)
        own = weights if party.rank == 0 else None
        if preset.ahead:
            product_bits(party, product, own, x if party.rank == 1 else None)
        else:
            multiply(party, product, own, x, preset.forms)

    seconds, aes = _both(preset.source, cost, run)
    label = f"OT convolution {shape}, W3A6, {bits} bits, {name}"
    return machine.row(label, "bytes/s", cost.bits / 8, seconds, aes, cost.bits)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table and writes `results/bench.json` and `.md`."""
    parser("bench", __doc__).parse_args(arguments)
    settle()
    aes, copy = aes_rate(), copy_rate()
    rows = bench_ring.rows() + protocol_rows(_Machine(aes, copy))
    text = (
        "# Benches\n\n"
        f"AES {aes / 1e9:.2f} GB/s, copy {copy / 1e9:.2f} GB/s. Best of a few runs, both parties "
        "threads of one process.\n\n"
        + table(rows, list(dict.fromkeys(key for row in rows for key in row)))
    )
    write("bench", {"repeats": _REPEATS, "seed": None}, rows, aes_rate=aes, copy_rate=copy)
    (RESULTS / "bench.md").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
