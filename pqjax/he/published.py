"""Which parameters two published systems take for a layer, and each of the second's ideas alone.

    CHEETAH   (eprint 2022/207) sums of 37 bits and N = 4096 everywhere, the whole modulus both ways,
              as few polynomials up as one filter an output polynomial allows
    HEQUANT   (arXiv 2401.15970) *widths* from the layer: its accumulator, N, q, and fewer bits back;
              *tiling* of fewest bits both ways, of several filters an output polynomial:
              dH dW (ceil(C / Cw) N log q + ceil(K / Kw) N b1) + K H' W' b0;
              *packing* of two sums in a coefficient

Encodings, tilings and packings are theirs; moduli are ours, of at most 64 bits, every c1 has its u, and
nothing is rounded that the layer's widths do not ask for.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

from pqjax.errors import InputError
from pqjax.he.exchange import TwoWay, parcels, sums
from pqjax.he.modulus import LIMITS, Modulus
from pqjax.he.packing import Packing, halved, packed_filter
from pqjax.he.phases import Geometry
from pqjax.he.precision import Filter
from pqjax.he.resharing import ReplyPrecision, Sharing, widths
from pqjax.he.tiling import Tiling, tilings

_UNIFORM = Modulus(4096, 64, static=False)


@dataclasses.dataclass(frozen=True)
class Options:
    """What of HEQuant is switched on; with none it is Cheetah.

    Attributes:
      widths: the layer's own accumulator and the smallest parameters for it.
      tiling: fewest bits both ways, instead of fewest up with one filter.
      packing: two sums a coefficient where that is cheaper, both ways together.
      sharing: how replies become shares.
      uniform_bits: the accumulator of all layers, without `widths`.
    """

    widths: bool
    tiling: bool
    packing: bool
    sharing: Sharing
    uniform_bits: int = 37

    def sum_bits(self, needed: int) -> int:
        """The accumulator of a layer that needs so many bits; InputError if uniform ones are fewer."""
        own = needed if self.widths else self.uniform_bits
        if own < needed:
            raise InputError(f"the layer has sums of {needed} bits, more than {own}")
        return own


CHEETAH = Options(False, False, False, Sharing.APPROXIMATE)
HEQUANT = Options(True, True, True, Sharing.GUARDED)


@functools.lru_cache(maxsize=1 << 12)
def two_way(
    m: Geometry,
    sum_bits: int,
    of: Filter,
    options: Options,
    wrap_bits: float = 0.0,
    lift_bits: float = 0.0,
) -> TwoWay:
    """A layer's parameters: the cheapest of what the options allow.

    Args:
      m: the layer.
      sum_bits: its accumulator: all sums, and all parts of them, fit with their sign.
      of: bounds on its filters.
      options: see there.
      wrap_bits: what one of `TwoWay.wraps` costs; 0 if errors of high slots are accepted.
      lift_bits: what one of `TwoWay.lifts` costs.

    InputError if no parameters do, with the widest sums that would have.
    """
    own = options.sum_bits(sum_bits)

    def total(at: TwoWay) -> float:
        lifts = at.lifts * lift_bits if lift_bits else 0
        return at.sent_cost + at.reply_cost + at.wraps * wrap_bits + lifts

    def first(at: TwoWay) -> tuple[float, ...]:
        return (total(at),) if options.tiling else (at.sent_cost, total(at))

    best = [min(group, key=first, default=None) for group in _groups(m, own, of, options)]
    found = min(filter(None, best), key=total, default=None)
    if found is None:
        good = [n for n in range(1, own) if _fits(m, n, of, options)]
        known = f"sums of at most {max(good)} bits would" if good else "no width of sums would"
        raise InputError(
            f"no parameters for {options.sharing.value} sums of {own} bits and filters of norm "
            f"{of.norm:.1f}; {known} do"
        )
    return found


def _fits(m: Geometry, sum_bits: int, of: Filter, options: Options) -> bool:
    return any(True for group in _groups(m, sum_bits, of, options) for _ in group)


def _groups(m: Geometry, sum_bits: int, of: Filter, options: Options) -> Iterator[Iterator[TwoWay]]:
    """All that the options allow: the tilings of every packing and degree."""
    for degree in LIMITS if options.widths else [_UNIFORM.degree]:
        yield _tiled(m, sum_bits, of, options, Packing.NONE, degree)
        if options.packing:
            yield _tiled(m, sum_bits, of, options, Packing.WITHIN, degree)
        if options.packing and m.groups == 1 and m.inputs > 1:
            yield _tiled(m, sum_bits, of, options, Packing.CROSS, degree)


def _tiled(
    m: Geometry, sum_bits: int, of: Filter, options: Options, packing: Packing, degree: int
) -> Iterator[TwoWay]:
    plain_bits = packing.plain_bits(sum_bits)
    if packing is Packing.CROSS:
        of, m = packed_filter(of, sum_bits), halved(m)
    if not widths_of(plain_bits, of, degree, options):
        return  # more filters need more room
    found = (t for t in tilings(m, degree) if t.filters == 1 or options.tiling)
    for tiling in _small(found, packing):
        for own in widths_of(plain_bits, of.packed(tiling.filters), degree, options):
            yield TwoWay(tiling, own, packing, sum_bits)


def _small(found: Iterable[Tiling], packing: Packing) -> list[Tiling]:
    """Without those that take at least as much both ways as one of as many filters, and equal widths."""
    kept: dict[int, list[tuple[tuple[int, int, int], Tiling]]] = {}
    for tiling in found:
        count, others = parcels(tiling, packing), kept.setdefault(tiling.filters, [])
        size = count * tiling.polynomials, count, sums(tiling, packing)
        if not any(_within(other, size) for other, _ in others):
            others[:] = [x for x in others if not _within(size, x[0])]
            others.append((size, tiling))
    return [tiling for others in kept.values() for _, tiling in others]


def _within(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def widths_of(
    plain_bits: int, of: Filter, degree: int, options: Options
) -> tuple[ReplyPrecision, ...]:
    """Widths that the options allow for sums, and filters as one polynomial holds them; none may do."""
    if options.widths:
        return widths(plain_bits, of, degree, options.sharing)
    most = _UNIFORM.bits
    try:
        return (ReplyPrecision(_UNIFORM, of, plain_bits, most, most, options.sharing),)
    except InputError:
        return ()
