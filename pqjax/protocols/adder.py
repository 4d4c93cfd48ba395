"""Carries of the sum of two private words, and in which range it lies, as circuits of least price.

Carries go upwards from bit 0: through a block of digits at once, whose lookups tell whether the block
makes a carry or hands one on (two halves of a block merge as  carry = carry_high ^ ones_high carry_low,
ones = ones_high ones_low), or bit by bit as  c' = c ^ (a ^ c)(b ^ c). Blocks take few rounds, single
bits few bits. Of all mixtures the cheapest is taken, for a price of a round in bits (`Forms.flow_bits`);
but where OTs are made on the spot all digits have 4 bits, as the published protocols have it.

Both parties search by themselves, so what is found is part of what a plan means: whoever changes it
raises `FORMAT` of plans (`pqjax.planner.document`).
"""

import functools
import typing
from collections.abc import Iterable, Iterator, Sequence

from pqjax.ot.source import MOST_PICK_BITS, Source
from pqjax.protocols.circuit import NEVER, ONE, Circuit, Draft, Entry, Signal, own_bit
from pqjax.protocols.forms import Forms

_CARRY, _ONES = Entry("carry"), Entry("ones")
_LONGEST = 16  # bits of a block above the first
_MINUS_ONE = 1  # its place in `Top.asked`

Digits = tuple[int, ...]  # widths, lowest first


class Top(typing.NamedTuple):
    """The bits of a sum from some place on, and what is asked about the number that they are.

    Attributes:
      bits: how many, the sign among them.
      both: whether -1 is inside, as 0 is; else only 0.
    """

    bits: int
    both: bool

    @property
    def inside(self) -> tuple[int, ...]:
        """The numbers that count as inside."""
        return (0, -1) if self.both else (0,)

    @property
    def asked(self) -> tuple[int, ...]:
        """The numbers that tell, with a carry and without."""
        return (0, -1, -2) if self.both else (0, -1)


class Found(typing.NamedTuple):
    """A way to compute, and what it takes.

    Attributes:
      rounds: after the lookups.
      bits: of every word.
      steps: from bit 0 upwards a block's digits, or no digits for a single bit's step.
      top: digits of the top's block; () if it is computed bit by bit, None if there is no top.
    """

    rounds: int
    bits: float
    steps: tuple[Digits, ...]
    top: Digits | None = None


@functools.lru_cache(maxsize=1 << 12)
def carry_circuit(source: Source, n: int, bits: int, forms: Forms) -> Circuit:
    """Whether a + b is at least 2^bits, of n pairs of words: one output."""
    if not source.has_store:
        return _radix_16(bits, ones=False)
    found = _cheapest(_ways(source.made_bits, (bits,), None), n, forms)
    draft = Draft()
    return draft.done(*_climb(draft, found.steps, (bits,)))


@functools.lru_cache(maxsize=1 << 10)
def carry_and_ones_circuit(source: Source, bits: int) -> Circuit:
    """Whether a + b is at least 2^bits, and whether it is 2^bits - 1: two outputs."""
    if not source.has_store:
        return _radix_16(bits, ones=True)
    draft = Draft()
    return draft.done(*_block(draft, 0, _even(bits, 2), lowest=False))


@functools.lru_cache(maxsize=1 << 12)
def range_circuit(source: Source, n: int, cut: int, keep: int, top: Top, forms: Forms) -> Circuit:
    """Three outputs of a + b mod 2^(cut + keep + top.bits), of n pairs of words.

    The carry into bit `cut`; whether the number that begins at bit cut + keep is inside; whether it is
    neither inside nor negative.
    """
    taps = (cut, cut + keep)
    found = _cheapest(_ways(source.made_bits, taps, top), n, forms)
    draft = Draft()
    below, into = _climb(draft, found.steps, taps)
    inside, over = _topped(draft, cut + keep, top, found.top or (), into)
    return draft.done(below, inside, over)


# Building.


def _radix_16(bits: int, ones: bool) -> Circuit:
    """Digits of 4 bits, of which the last may have padding: ones of rank 0, zeros of rank 1."""
    draft, q = Draft(), -(-bits // 4)
    if q == 1:
        entries = (_CARRY, _ONES) if ones else (_CARRY,)
        return draft.done(*draft.look_up(0, bits, *entries))
    digits = [draft.look_up(4 * i, 4, _CARRY, _ONES) for i in range(q)]
    while len(digits) > 1:
        pairs = list(zip(digits[0::2], digits[1::2], strict=False))
        carries = [draft.multiply(high[1], low[0])[0] for low, high in pairs]
        wanted = [(low[1], high[1]) for low, high in pairs[0 if ones else 1 :]]
        merged = [draft.multiply(high, low)[0] for low, high in wanted]
        if not ones:
            merged = [NEVER, *merged]
        made = [(high[0] ^ c, p) for (_, high), c, p in zip(pairs, carries, merged, strict=True)]
        digits = [*made, *digits[2 * len(pairs) :]]
    return draft.done(*digits[0][: 2 if ones else 1])


def _climb(draft: Draft, steps: Sequence[Digits], taps: Sequence[int]) -> list[Signal]:
    """Carries into the taps."""
    place, carry, known = 0, NEVER, {0: NEVER}
    for digits in steps:
        if not place:
            carry, _ = _block(draft, 0, digits, lowest=True)
            place = sum(digits)
        elif digits:
            made, ones = _block(draft, place, digits, lowest=False)
            carry = made ^ draft.multiply(ones, carry)[0]
            place += sum(digits)
        else:
            a, b = own_bit(0, place), own_bit(1, place)
            carry = carry ^ draft.multiply(a ^ carry, b ^ carry)[0]
            place += 1
        known[place] = carry
    return [known[tap] for tap in taps]


def _block(draft: Draft, low: int, digits: Digits, lowest: bool) -> tuple[Signal, Signal]:
    """Whether a block of digits makes a carry, and whether it hands one on (not asked of the lowest)."""
    parts = []
    for width in digits:
        if width == 1:  # what hands a carry on is known without a lookup
            (carry,) = draft.look_up(low, 1, _CARRY)
            parts.append((carry, own_bit(0, low) ^ own_bit(1, low)))
        elif lowest and not parts:
            parts.append((*draft.look_up(low, width, _CARRY), NEVER))
        else:
            parts.append(draft.look_up(low, width, _CARRY, _ONES))
        low += width
    while len(parts) > 1:
        made = []
        for i in range(0, len(parts) - 1, 2):
            (g0, p0), (g1, p1) = parts[i], parts[i + 1]
            if lowest and i == 0:
                made.append((g1 ^ draft.multiply(p1, g0)[0], NEVER))
            else:
                carry, ones = draft.multiply(p1, g0, p0)
                made.append((g1 ^ carry, ones))
        parts = made + parts[2 * len(made) :]
    return parts[0]


def _topped(
    draft: Draft, low: int, top: Top, digits: Digits, carry: Signal
) -> tuple[Signal, Signal]:
    """Whether the top's number is inside, and whether it is over, for a carry into it."""
    if not digits:
        return _top_by_bits(draft, low, top, carry)
    known, changes = _top_block(draft, low, top, digits)
    if carry:
        wanted = list(dict.fromkeys(change for change in changes if change))
        turned = dict(zip(wanted, draft.multiply(carry, *wanted), strict=True))
        known = [x ^ turned.get(change, NEVER) for x, change in zip(known, changes, strict=True)]
    if len(digits) == 1:
        return known[0], known[1]
    negative, zero, inside = known
    return inside, ONE ^ negative ^ zero


def _top_by_bits(draft: Draft, low: int, top: Top, carry: Signal) -> tuple[Signal, Signal]:
    """The sum's bits one by one: inside all are 0 or, if -1 is inside, all alike."""
    inside, last = ONE, NEVER
    for place in range(low, low + top.bits):
        a, b = own_bit(0, place), own_bit(1, place)
        bit = a ^ b ^ carry
        if place > low or not top.both:
            alike = ONE ^ bit ^ (last if top.both else NEVER)
            inside = alike if inside == ONE else draft.multiply(inside, alike)[0]
        if place + 1 < low + top.bits:
            carry = carry ^ draft.multiply(a ^ carry, b ^ carry)[0]
        last = bit
    if not top.both:
        return inside, ONE ^ last ^ inside  # what is inside is not negative
    return inside, draft.multiply(ONE ^ last, ONE ^ inside)[0]


def _top_block(
    draft: Draft, low: int, top: Top, digits: Digits
) -> tuple[list[Signal], list[Signal]]:
    """What is known without a carry, and how a carry changes it.

    Of a single digit whether it is inside and whether over; else whether it is negative, 0, inside.
    """
    whole = {"low": low, "width": top.bits}
    if len(digits) == 1:
        over = tuple(range(1, 1 << top.bits - 1))
        targets = [t for t in (top.inside, over) if t]
        after = [tuple(x - 1 for x in t) for t in targets]
        found = draft.look_up(low, top.bits, *(Entry("among", t, **whole) for t in targets + after))
        known, others = list(found[: len(targets)]), found[len(targets) :]
        changes = [x ^ y for x, y in zip(known, others, strict=True)]
        lack = [NEVER] * (2 - len(targets))
        return known + lack, changes + lack
    among = [Entry("among", (target,), **whole) for target in top.asked]
    parts, place = [], low
    for i, width in enumerate(digits):
        # Below the top, what hands a carry on is that the sum is -1.
        last = i == len(digits) - 1
        kinds = (Entry("sign"), Entry("flips")) if last else (_CARRY,)
        found = draft.look_up(place, width, *kinds, *among)
        parts.append(found if last else (found[0], found[1 + _MINUS_ONE], *found[1:]))
        place += width
    while len(parts) > 1:
        made = [_joined(draft, *parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
        parts = made + parts[2 * len(made) :]
    negative, flips, *equal = parts[0]
    zero, minus = equal[:2]
    if not top.both:
        return [negative, zero, zero], [flips, zero ^ minus, zero ^ minus]
    return [negative, zero, zero ^ minus], [flips, zero ^ minus, zero ^ equal[2]]


def _joined(draft: Draft, low: Sequence[Signal], high: Sequence[Signal]) -> tuple[Signal, ...]:
    """Two neighbours of a top: carry or sign, what hands on or turns, and equal to every target."""
    (g0, p0, *e0), (g1, p1, *e1) = low, high
    if p1 == e1[_MINUS_ONE]:
        carry, ones = draft.multiply(p1, g0, p0)
        minus = ones
    else:
        (carry,) = draft.multiply(p1, g0)
        ones, minus = draft.multiply(p0, p1, e1[_MINUS_ONE])
    equal = [
        minus if i == _MINUS_ONE else draft.multiply(x, y)[0]
        for i, (x, y) in enumerate(zip(e0, e1, strict=True))
    ]
    return g1 ^ carry, ones, *equal


# The search.


def _cheapest(ways: Iterable[Found], n: int, forms: Forms) -> Found:
    return min(ways, key=lambda way: way.bits * n + forms.flow_bits * way.rounds)


class _Prices(typing.NamedTuple):
    """What lookups and products cost where making a random OT takes so many bits."""

    made: float

    def lookup(self, m: int, t: int) -> float:
        """A lookup of m bits with t entries."""
        return t * ((1 << m) - 1) + m * (1 + self.made)

    def product(self, factors: int) -> float:
        """The openings and the random OTs of a product of a bit and so many others."""
        return 2 * (1 + factors) + 2 * self.made


@functools.lru_cache(maxsize=1 << 10)
def _ways(made: float, taps: tuple[int, ...], top: Top | None) -> tuple[Found, ...]:
    """Ways to the carries into the taps, and to the top: all that no other beats in both prices."""
    prices, last = _Prices(made), taps[-1]
    at: list[list[Found]] = [[] for _ in range(last + 1)]
    at[0] = [Found(0, 0.0, ())]
    for place in range(last):
        at[place] = _best(at[place])
        end = min(tap for tap in taps if tap > place)
        for way in at[place]:
            if place == 0:
                for length in range(1, end + 1):
                    for rounds, bits, digits in _blocks(made, length, lowest=True):
                        at[length].append(Found(rounds, bits, (digits,)))
                continue
            step = prices.product(1)
            at[place + 1].append(Found(way.rounds + 1, way.bits + step, (*way.steps, ())))
            for length in range(2, min(_LONGEST, end - place) + 1):
                for rounds, bits, digits in _blocks(made, length, lowest=False):
                    found = max(way.rounds, rounds) + 1, way.bits + bits + step
                    at[place + length].append(Found(*found, (*way.steps, digits)))
    ways = _best(at[last])
    if top is None:
        return tuple(ways)
    return tuple(_best(x for way in ways for x in _with_top(made, way, top)))


def _with_top(made: float, way: Found, top: Top) -> Iterator[Found]:
    prices, carry = _Prices(made), bool(way.steps)
    e = top.bits
    products = (2 * e - 2 if e > 1 else 0) if not top.both else 2 * e - 2
    rounds = (e if e > 1 else 0) if not top.both else e + (e > 2)
    yield Found(way.rounds + rounds, way.bits + products * prices.product(1), way.steps, ())
    for depth, more, digits, changed in _top_blocks(made, top):
        if carry:
            found = max(way.rounds, depth) + 1, way.bits + more + prices.product(changed)
        else:
            found = max(way.rounds, depth), way.bits + more
        yield Found(*found, way.steps, digits)


def _best(ways: Iterable[Found]) -> list[Found]:
    """Without those that another beats in rounds and bits."""
    kept: list[Found] = []
    for way in sorted(ways, key=lambda way: (way.rounds, way.bits, way.steps, way.top or ())):
        if not kept or way.bits < kept[-1].bits:
            kept.append(way)
    return kept


def _even(length: int, most: int) -> Digits:
    """As few digits of at most so many bits, as even as possible, the larger ones first."""
    count = -(-length // most)
    return tuple(length // count + (i < length % count) for i in range(count))


@functools.lru_cache(maxsize=1 << 10)
def _blocks(made: float, length: int, lowest: bool) -> list[tuple[int, float, Digits]]:
    """Blocks of so many bits: rounds, bits and digits."""
    prices = _Prices(made)
    shapes = {_even(length, m) for m in range(1, MOST_PICK_BITS + 1)}
    if lowest:
        sizes = range(1, min(MOST_PICK_BITS, length - 1) + 1)
        shapes |= {(k, *_even(length - k, m)) for k in sizes for m in range(1, MOST_PICK_BITS + 1)}
    found = []
    for digits in sorted(shapes):
        merges = len(digits) - 1
        single = merges.bit_length() if lowest else 0
        bits = single * prices.product(1) + (merges - single) * prices.product(2)
        bits += sum(
            prices.lookup(width, 1 if width == 1 or (lowest and i == 0) else 2)
            for i, width in enumerate(digits)
        )
        found.append((merges.bit_length(), bits, digits))
    return found


@functools.lru_cache(maxsize=1 << 8)
def _top_blocks(made: float, top: Top) -> list[tuple[int, float, Digits, int]]:
    """Blocks of a top: rounds, bits, digits and how many signals a carry changes."""
    prices, asked = _Prices(made), len(top.asked)
    found = []
    for digits in sorted({_even(top.bits, m) for m in range(1, MOST_PICK_BITS + 1)}):
        merges = len(digits) - 1
        changed = 2 + top.both if merges else 1 + (top.bits > 1)
        kinds = [(width, 1 + asked) for width in digits[:-1]]
        kinds.append((digits[-1], 2 + asked if merges else 2 * (1 + (top.bits > 1))))
        if any(t << m > 64 for m, t in kinds):
            continue
        bits = sum(prices.lookup(m, t) for m, t in kinds)
        bits += merges * (prices.product(2) + (asked - 1) * prices.product(1))
        bits += _edge(len(digits)) * prices.product(1)  # where the sign is, -1 hands nothing on
        found.append((merges.bit_length(), bits, digits, changed))
    return found


def _edge(parts: int) -> int:
    """How many merges the last of so many parts takes part in, if neighbours merge from the first on."""
    found = 0
    while parts > 1:
        found, parts = found + (parts % 2 == 0), parts - parts // 2
    return found
