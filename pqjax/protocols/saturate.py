"""Truncate, ReLU or clamp, and extend in one pass over the bits of a shared value.

    y = min(max(floor(x / 2^cut), low), high)     [low, high] = [0, 2^b - 1]  or  [-2^(b-1), 2^(b-1) - 1]

One circuit (`pqjax.protocols.adder`) gives the carry A into bit `cut`; whether y is x / 2^cut, for it
lies inside; whether it is `high`, for that lies over. Less `low`, the result is
inside (h + A) + over (2^b - 1)  with the shares' own b + 1 lowest kept bits h, which hold all of it
that counts. So

  1. both               the circuit.
  2. both at once       inside at both, A and over at rank 1, as choices.
  3. rank 0 -> rank 1   correlations: its A, its h + A, its over.             b, b + 1, b bits
  4. rank 1 -> rank 0   the correlation of its h + A.                         b + 1 bits
     and its top bit, which is the wrap's, as a choice: the result's is 0.
  5. rank 0 -> rank 1   that correlation, where the result is to be wider.    out - b - 1 bits

References: the parts are those of CrypTFlow2 (eprint 2020/1002) and SiRNN (eprint 2021/459).
"""

import typing

import numpy as np

from pqjax.ot.correlations import correlated_rows, pad_words
from pqjax.ot.source import Source, keys_work
from pqjax.ot.triples import unpack_planes
from pqjax.protocols.adder import Top, range_circuit
from pqjax.protocols.circuit import NEVER, Circuit, circuit_cost, evaluate
from pqjax.protocols.clamp import clamp, clamp_cost
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Bits, Party, Share
from pqjax.protocols.resize import extend, extend_cost, truncate_reduce, truncate_reduce_cost
from pqjax.ring import Ring, blockwise, pack, unpack
from pqjax.wire.cost import NOTHING, Cost, crossing, draw, message, total, work


class _Shape(typing.NamedTuple):
    """What follows of the widths.

    Attributes:
      kept: bits of the result, less its low end.
      low: its low end.
      keep: bits between the cut and those that tell the range.
      top: these.
      ring: that of the result before it is extended.
    """

    kept: int
    low: int
    keep: int
    top: Top
    ring: Ring

    @classmethod
    def of(cls, bits: int, cut: int, low: int, high: int, out: Ring) -> "_Shape":
        kept, both = (high - low).bit_length(), low < 0
        keep = kept - both
        return cls(kept, low, keep, Top(bits - cut - keep, both), Ring(min(kept + 1, out.bits)))


def saturate(
    party: Party, x: Share, bits: int, cut: int, low: int, high: int, out: Ring, forms: Forms
) -> Share:
    """[min(max(floor(x / 2^cut), low), high)]^out of a signed x: see above.

    From (n,) shares mod 2^bits to (n,) shares in `out`. What it needs: `saturate_unfit`. Without a store
    of OTs it is a truncation, a clamp and an extension, one after the other.

    Cost: `saturate_cost`.
    """
    if not party.source.has_store:
        return saturate_by_steps(party, x, bits, cut, low, high, out, forms)
    n, shape = x.size, _Shape.of(bits, cut, low, high, out)
    ring = shape.ring
    with party.messenger.step("saturate"):
        circuit = range_circuit(party.source, n, cut, shape.keep, shape.top, forms)
        found = evaluate(party, circuit, x)
        signals = zip(found, circuit.outputs, strict=True)
        choices = [unpack_planes(plane, n) for plane, signal in signals if signal != NEVER]
        kept = ring.reduce(x >> x.dtype.type(cut))
        if party.rank == 0:
            kept = ring.add(kept, ring.reduce(-low))
        form = {
            "bits": ring.bits,
            "cut": cut > 0,
            "over": (1 << shape.kept) - 1 if circuit.outputs[2] != NEVER else 0,
        }
        share = (_serve if party.rank == 0 else _ask)(party, kept, choices, ring, form)
        share = extend(party, share, ring.bits, out.bits, True, True, forms)
    return out.sub(share, out.reduce(-low)) if party.rank == 0 and low else share


def saturate_by_steps(
    party: Party, x: Share, bits: int, cut: int, low: int, high: int, out: Ring, forms: Forms
) -> Share:
    """The same by a truncation, a clamp and an extension. Cost: `saturate_by_steps_cost`."""
    ring = _Shape.of(bits, cut, low, high, out).ring
    with party.messenger.step("saturate"):
        short = truncate_reduce(party, x, bits, cut, None, forms)
        share = clamp(party, short, bits - cut, low, high, ring, False, forms)
        if party.rank == 0:
            share = ring.add(share, ring.reduce(-low))
        share = extend(party, share, ring.bits, out.bits, True, True, forms)
    return out.sub(share, out.reduce(-low)) if party.rank == 0 and low else share


def _serve(party: Party, kept: Share, choices: list[Bits], ring: Ring, form: dict) -> Share:
    n, k, own = kept.size, len(choices), choices[int(form["cut"])]
    rows, raw = party.receiver.offer(own)
    rows_of_other = party.sender.accept(_swap(party, raw, n, n * k), n * k)
    pads = [party.sender.pads(part, 1) for part in rows_of_other.reshape(k, n, 2)]
    words = [pad_words(pad, ring) for both in pads for pad in both]
    *offered, share = _offers(kept, *choices, *words, **form)
    for column, of in zip(offered, _rings(ring, form), strict=True):
        party.messenger.send_elements(of.reduce(column), of)
    key = pad_words(party.receiver.pads(rows, 1), ring)
    reply = unpack(party.messenger.receive(n * ring.bits), n, ring.bits)
    return ring.add(share, correlated_rows(own, key, reply[:, None], bits=ring.bits)[:, 0])


def _ask(party: Party, kept: Share, choices: list[Bits], ring: Ring, form: dict) -> Share:
    n, k = kept.size, len(choices)
    # Three choices an element at most, of which the other party hears at once: `MOST_OFFERED`.
    rows, raw = party.receiver.offer(np.concatenate(choices))
    rows_of_other = party.sender.accept(_swap(party, raw, n * k, n), n)
    keys = [pad_words(party.receiver.pads(part, 1), ring) for part in rows.reshape(k, n, 2)]
    zero, one = (pad_words(p, ring) for p in party.sender.pads(rows_of_other, 1))
    raws = [(party.messenger.receive(n * of.bits), of) for of in _rings(ring, form)]
    offered = [unpack(raw, n, of.bits) for raw, of in raws]
    reply, share = _answers(kept, zero, one, *choices, *keys, *offered, **form)
    party.messenger.send(pack(reply, ring.bits), n * ring.bits)
    return share


def _swap(party: Party, raw: np.ndarray, sent: int, received: int) -> np.ndarray:
    pending = party.messenger.expect(received)
    party.messenger.send(raw, sent)
    return pending.wait()


def _rings(ring: Ring, form: dict) -> list[Ring]:
    """Of what rank 0 offers: products of two bits of which twice is taken lack a bit."""
    half = Ring(max(1, ring.bits - 1))
    return [half] * form["cut"] + [ring] + [half] * (form["over"] > 0)


def _product(base, mine, got, ring, cut, over):
    """Own correlation and share, but for the other's, of inside (h + A) + over (2^b - 1).

    Bits are x0 + x1 - 2 x0 x1, and `got` are own shares of the products.
    """
    one, at = ring.dtype.type(1), int(cut)
    own = base + mine[0] - (got[0] << one) if cut else base
    correlation = own * (one - (mine[at] << one))
    share = own * mine[at] + got[at]
    if over:
        bit = mine[at + 1] - (got[at + 1] << one)
        share = share + ring.dtype.type(over & int(ring.mask)) * bit
    return correlation, share


def _offer(base, *columns, bits, cut, over):
    ring = Ring(bits)
    k = len(columns) // 3
    mine = [x.astype(ring.dtype) for x in columns[:k]]
    zero, one = ([pad[:, 0] for pad in columns[k + i :: 2]] for i in (0, 1))
    got = [-pad for pad in zero]
    correlation, share = _product(base.astype(ring.dtype), mine, got, ring, cut, over)
    mine[int(cut)] = correlation
    offered = (x + z - o for x, z, o in zip(mine, zero, one, strict=True))
    return *offered, ring.reduce(share)


def _answer(base, zero, one, *columns, bits, cut, over):
    ring = Ring(bits)
    k = len(columns) // 3
    mine, keys, offered = (columns[i * k : (i + 1) * k] for i in range(3))
    mine = [x.astype(ring.dtype) for x in mine]
    triples = zip(keys, mine, offered, strict=True)
    got = [key[:, 0] + bit * x.astype(ring.dtype) for key, bit, x in triples]
    correlation, share = _product(base.astype(ring.dtype), mine, got, ring, cut, over)
    zero, one = zero[:, 0], one[:, 0]
    return ring.reduce(zero + correlation - one), ring.reduce(share - zero)


_offers = blockwise(_offer, static=("bits", "cut", "over"))
_answers = blockwise(_answer, static=("bits", "cut", "over"))


def saturate_unfit(bits: int, signed: bool, cut: int, low: int, high: int) -> str | None:
    """Why there is no `saturate` of shares mod 2^bits; None where there is."""
    span = high - low + 1
    if not signed:
        return "saturates signed values; extend its source to a signed format first"
    if span & (span - 1) or span < 2 or low not in (0, -span // 2):
        return (
            f"limits 0 and 2^b - 1, or -2^(b-1) and 2^(b-1) - 1, expected, got [{low}, {high}]: "
            "shift and clamp by themselves"
        )
    kept = span.bit_length() - 1
    if bits - cut - kept < 1:
        return f"leaves {max(bits - cut, 0)} bits, which never leave [{low}, {high}]: only shift"
    if bits - cut == 64 and low < 0:
        return (
            "may compare in one bit more than its source has, and 64 is the most: narrow it before"
        )
    return None


def saturate_cost(
    source: Source, n: int, bits: int, cut: int, low: int, high: int, out: Ring, forms: Forms
) -> Cost:
    """The circuit, then a COT of b + 1 bits from rank 1 and up to three from rank 0; the extension."""
    if not n:
        return NOTHING
    shape = _Shape.of(bits, cut, low, high, out)
    if not source.has_store:
        return saturate_by_steps_cost(source, n, bits, cut, low, high, out, forms)
    circuit = range_circuit(source, n, cut, shape.keep, shape.top, forms)
    k, width = _asked(circuit), shape.ring.bits
    form = {"cut": circuit.outputs[0] != NEVER, "over": circuit.outputs[2] != NEVER}
    offered = sum(ring.bits for ring in _rings(shape.ring, form))
    asks, offers = zip(keys_work(0, k * n), keys_work(1, n), strict=True)
    cost = circuit_cost(source, n, circuit) + draw(0, k * n) + draw(1, n)
    cost += total([*asks, crossing(n, k * n), *offers, work("words", k * n)])
    cost += message(0, offered * n) + work("words", k * n) + message(1, n * width)
    return cost + extend_cost(source, n, width, out.bits, True, True, forms)


def saturate_by_steps_cost(
    source: Source, n: int, bits: int, cut: int, low: int, high: int, out: Ring, forms: Forms
) -> Cost:
    """Those of truncation, clamp and extension."""
    ring = _Shape.of(bits, cut, low, high, out).ring
    cost = truncate_reduce_cost(source, n, bits, cut, None, forms)
    cost += clamp_cost(source, n, bits - cut, low, ring, False, forms)
    return cost + extend_cost(source, n, ring.bits, out.bits, True, True, forms)


def _asked(circuit: Circuit) -> int:
    """Which of carry, inside and over there are."""
    return sum(signal != NEVER for signal in circuit.outputs)
