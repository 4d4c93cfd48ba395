"""Silent OT: a store filled by rounds, each of which makes millions of OTs of a few and a short message.

  1. receiver -> sender   SoftSpoken's corrections, once: the seeds of the first round.   15 bits a seed
  2. sender -> receiver   a block for every level of every tree, by groups.   128 t depth bits a round

The first round is one of the smallest set, which serves a small network alone. The rounds that follow
are of the direction's own set. Seeds come out of the store, so that it never holds fewer than the next
round takes. (Ferret, eprint 2020/924, semi-honest and with regular noise.)
"""

import dataclasses
import typing
from collections.abc import Iterator
from functools import partial

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.ot.making import Hear, Maker, Round
from pqjax.ot.setup import Hashes, extend_both, extend_both_cost
from pqjax.ot.silent_round import RoundReceiver, RoundSender, clear_lowest
from pqjax.ot.silent_sets import SETS, NoiseSet
from pqjax.ot.softspoken import WIDTH, ExtensionReceiver, ExtensionSender
from pqjax.ot.source import OtReceiver, OtSender, Pool, Rows, Words, one_sided
from pqjax.ot.stock import Part, joined_parts
from pqjax.ot.stocked import Stocked, StockedReceiver, StockedSender
from pqjax.ot.tuning import MOST_OFFERED, Tuning
from pqjax.wire.cost import NOTHING, Cost, beside, message, work
from pqjax.wire.messenger import Messenger, Pending
from pqjax.wire.work import Sent

FIRST, USUAL = "b10", "b12"
_K = 8  # of SoftSpoken, which makes so few that bits count and time does not
_SEED_BITS = WIDTH // _K - 1


@dataclasses.dataclass(frozen=True)
class Silent(Stocked):
    """A store filled by rounds of one parameter set a direction: 0.2 (b13) to 1.4 (b10) bits an OT.

    Attributes:
      noise: names of sets in `SETS`, by sending rank. A larger one sends less for each OT and makes more
        at once.

    Raises:
      InputError: no such set.
    """

    noise: tuple[str, str]
    delta_bits: typing.ClassVar[int] = WIDTH - 1  # the lowest is 1
    assumes: typing.ClassVar[str] = "AES and LPN with regular noise"

    def __post_init__(self) -> None:
        if len(self.noise) != 2 or not set(self.noise) <= set(SETS):
            raise InputError(f"silent OT has the sets {', '.join(SETS)}, got {self.noise!r}")

    @property
    def sets(self) -> tuple[NoiseSet, NoiseSet]:
        """The sets, by sending rank."""
        return SETS[self.noise[0]], SETS[self.noise[1]]

    @property
    def made_bits(self) -> float:
        """Those of a set of middle size, whichever they are: they are chosen last."""
        return SETS[USUAL].block_bits / SETS[USUAL].gain

    @property
    def name(self) -> str:
        """Such as silent-b13-b11."""
        return f"silent-{self.noise[0]}-{self.noise[1]}"

    def set_up(self, messenger: Messenger, randomness: Randomness) -> tuple[OtSender, OtReceiver]:
        """Base OTs and SoftSpoken's trees. Cost: `set_up_cost`."""
        sends, receives = extend_both(messenger, randomness, _K, odd=True)
        mine, theirs = self.sets[messenger.rank], self.sets[1 - messenger.rank]
        roots = Randomness(randomness.block())
        return SilentSender(*sends, mine, roots), SilentReceiver(*receives, theirs)

    def set_up_cost(self) -> Cost:
        """Base OTs and tree corrections."""
        return extend_both_cost(_K)

    def fill(self, pool: Pool, wanted: Pool) -> tuple[Cost, Pool]:
        """Rounds for what the pool lacks; it keeps the seeds of the next one beside what is drawn."""
        costs, left, first = [NOTHING, NOTHING], list(pool), SETS[FIRST]
        for sender, (noise, n) in enumerate(zip(self.sets, wanted, strict=True)):
            if not n:
                continue
            if not left[sender]:
                costs[sender] += message(1 - sender, _SEED_BITS * first.seeds)
                costs[sender] += _grown(FIRST, sender, 1)
                left[sender] = first.made
            rounds = max(0, -(-(n + noise.seeds - left[sender]) // noise.gain))
            if rounds:
                costs[sender] += _grown(self.noise[sender], sender, rounds)
            left[sender] += rounds * noise.gain - n
        return beside(costs), (left[0], left[1])

    def share(self, wanted: Pool) -> Cost:
        """Of a round, what is theirs of all that it makes; and no flows, for others share them."""
        bits = [-(-n * s.block_bits // s.gain) for s, n in zip(self.sets, wanted, strict=True)]
        cost = Cost((bits[0], bits[1]), part=Sent((bits[0], bits[1])) if any(bits) else None)
        for name, n, s in zip(self.noise, wanted, self.sets, strict=True):
            cost += work(name, -(-n * s.made // s.gain))
        return cost

    def stored(self, wanted: Pool, streamed: bool) -> int:
        """Beside what is drawn no more than a round makes, or what the first one left of its own.

        Or two such, or as many as the receiver may draw first.
        """
        least = SETS[FIRST].made
        return sum(
            max(s.made, least) + (max(s.made, least, MOST_OFFERED) if streamed else n)
            for s, n in zip(self.sets, wanted, strict=True)
            if n
        )


def _grown(name: str, sender: int, rounds: int) -> Cost:
    """Rounds of a set: each group's blocks leave when its trees are grown."""
    noise = SETS[name]
    made = noise.made * rounds
    cost = one_sided(name, sender, made) + message(sender, noise.block_bits * rounds)
    cost += one_sided(name, 1 - sender, made)
    return cost.piped(len(noise.groups) * rounds)


EVERY = tuple(Silent((a, b)) for a in SETS for b in SETS)


def _rounds(own: NoiseSet, begun: bool, n: int) -> list[NoiseSet]:
    """The rounds that put n more OTs in store."""
    first = SETS[FIRST]
    if begun or not n:
        return [own] * (n // own.gain)
    return [first, *[own] * ((n - first.made) // own.gain)]


class _Seeds:
    """What each round leaves to the next: the first rows that it makes."""

    def __init__(self, n: int):
        self._n = n
        self._kept: list[Part] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(len(rows) for rows, _ in self._kept)

    def take(self) -> Part:
        """All of them, for good."""
        kept, self._kept = self._kept, []
        return joined_parts(kept)

    def keep(self, part: Part) -> Part:
        """Takes what is lacking out of a part, and leaves the rest."""
        n = min(self._n - self.count, len(part[0]))
        if n:
            self._kept.append((part[0][:n], part[1][:n]))
        return part[0][n:], part[1][n:]


class SilentSender(StockedSender):
    """Grows trees for its store; delta is odd and its rows are even."""

    def __init__(
        self,
        delta: Words,
        hashes: Hashes,
        extension: ExtensionSender,
        noise: NoiseSet,
        randomness: Randomness,
    ):
        super().__init__(delta, hashes.rows)
        self.maker = Maker(self.stock, MOST_OFFERED)  # the receiver waits for its rounds
        self._rounds_hash, self._extension, self._noise = hashes.rounds, extension, noise
        self._randomness, self._seeds, self._begun = randomness, _Seeds(noise.seeds), False

    @property
    def left(self) -> int:
        """OTs in store, and the seeds of the next round."""
        return self.stock.left + self._seeds.count

    def order(self, lane: Messenger, tuning: Tuning, n: int) -> None:
        """Seeds at the first time, then rounds. Cost: `Silent.fill`."""
        rounds = _rounds(self._noise, self._begun, n)
        if rounds and not self._begun:
            corrections = lane.expect(_SEED_BITS * rounds[0].seeds)
            first = partial(self._first, rounds.pop(0), corrections, lane)
            self._begun = True
            self.maker.order([Round(SETS[FIRST].made - self._noise.seeds, first)])
        self.maker.order(Round(x.gain, partial(self._usual, x, lane)) for x in rounds)

    def _first(
        self, noise: NoiseSet, corrections: Pending, lane: Messenger, hear: Hear
    ) -> Iterator[Part]:
        rows = self._extension.extend_random(hear(corrections), noise.seeds)
        clear_lowest(rows)
        return self._round(noise, rows, lane)

    def _usual(self, noise: NoiseSet, lane: Messenger, hear: Hear) -> Iterator[Part]:
        return self._round(noise, self._seeds.take()[0], lane)

    def _round(self, noise: NoiseSet, seeds: Rows, lane: Messenger) -> Iterator[Part]:
        half = RoundSender(noise, seeds, self._delta, self._rounds_hash)
        for group in noise.groups:
            roots = self._randomness.take(16 * (group.stop - group.start)).view(np.uint64)
            rows, blocks = half.grow(group, roots.reshape(-1, 2))
            lane.send(blocks.reshape(-1).view(np.uint8), 8 * blocks.nbytes)
            yield self._seeds.keep((rows, np.zeros(len(rows), np.uint8)))


class SilentReceiver(StockedReceiver):
    """Grows the same trees but for one leaf each; its choices are the lowest bits of its rows."""

    def __init__(self, hashes: Hashes, extension: ExtensionReceiver, noise: NoiseSet):
        super().__init__(hashes.rows)
        self._rounds_hash, self._extension, self._noise = hashes.rounds, extension, noise
        self._seeds, self._begun = _Seeds(noise.seeds), False

    @property
    def left(self) -> int:
        """OTs in store, and the seeds of the next round."""
        return self.stock.left + self._seeds.count

    def order(self, lane: Messenger, tuning: Tuning, n: int) -> None:
        """Seeds at the first time, then rounds. Cost: `Silent.fill`."""
        rounds = _rounds(self._noise, self._begun, n)
        if rounds and not self._begun:
            noise = rounds.pop(0)
            first = partial(self._first, noise, _blocks(lane, noise), lane)
            self._begun = True
            self.maker.order([Round(SETS[FIRST].made - self._noise.seeds, first)])
        self.maker.order(Round(x.gain, partial(self._usual, x, _blocks(lane, x))) for x in rounds)

    def _first(
        self, noise: NoiseSet, blocks: list[Pending], lane: Messenger, hear: Hear
    ) -> Iterator[Part]:
        rows, bits, raw = self._extension.extend_random(noise.seeds)
        lane.send(raw, _SEED_BITS * noise.seeds)
        clear_lowest(rows)
        rows[:, 0] |= bits
        return self._round(noise, (rows, bits), blocks, hear)

    def _usual(self, noise: NoiseSet, blocks: list[Pending], hear: Hear) -> Iterator[Part]:
        return self._round(noise, self._seeds.take(), blocks, hear)

    def _round(
        self, noise: NoiseSet, seeds: Part, blocks: list[Pending], hear: Hear
    ) -> Iterator[Part]:
        half = RoundReceiver(noise, *seeds, self._rounds_hash)
        for group, asked in zip(noise.groups, blocks, strict=True):
            raw = hear(asked).view(np.uint64)
            yield self._seeds.keep(half.grow(group, raw.reshape(-1, noise.depth, 2)))


def _blocks(lane: Messenger, noise: NoiseSet) -> list[Pending]:
    """Asks for the blocks of a round."""
    return [lane.expect(128 * noise.depth * (g.stop - g.start)) for g in noise.groups]
