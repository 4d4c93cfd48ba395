"""Silent OT whose sets are chosen for a plan: for each direction, by what the plan draws of it."""

import dataclasses

from pqjax.ot.silent import EVERY, FIRST, USUAL, Silent
from pqjax.ot.silent_sets import SETS
from pqjax.ot.source import MOST_STORED, Need
from pqjax.wire.link import Link

_SOME_LINK = Link(mbps=100.0, rtt_ms=13.0)  # where none is named


@dataclasses.dataclass(frozen=True)
class SilentChoice(Silent):
    """Silent OT of the sets that serve a plan best. Where nothing is known of the plan they are b12."""

    noise: tuple[str, str] = (USUAL, USUAL)

    def chosen(self, need: Need) -> Silent:
        """The pair of sets that sends the fewest bits over all inferences, or takes the fewest seconds.

        Before that comes memory: sets whose OTs can all be made ahead, then those that keep to
        `MOST_STORED` where they are made while others are drawn. There the inference waits for them, so
        seconds decide in any case, those of making them included. Of equals, the one that makes fewer.
        """

        def key(source: Silent) -> tuple:
            streamed = source.stored(need.drawn, streamed=False) > need.ahead
            excess = max(0, source.stored(need.drawn, streamed) - MOST_STORED) if streamed else 0
            prices = [_price(source, need, sender, streamed) for sender in (0, 1)]
            return streamed, excess, *map(sum, zip(*prices, strict=True))

        return min(EVERY, key=key)


def _price(source: Silent, need: Need, sender: int, streamed: bool) -> tuple[float, int]:
    """Bits or seconds of one direction over all inferences, and the OTs made."""
    n, noise = need.drawn[sender] * need.inferences, source.sets[sender]
    cost, left = source.fill((0, 0), (n, 0) if sender == 0 else (0, n))
    made = n + left[sender]
    if streamed or need.timed:
        link = need.link or (None if need.timed else _SOME_LINK)
        sending = link.seconds(*cost.sent, 0) if link else 0.0
        return sending + made * need.rates.of(source.noise[sender]), made
    if need.link is None or not n:
        return cost.bits, made
    rounds = (made - SETS[FIRST].made) // noise.gain
    # One flow before the first round; the rounds of an inference follow each other in one.
    return need.link.seconds(*cost.sent, 1 + min(need.inferences, rounds)), made
