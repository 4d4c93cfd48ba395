"""A linear layer before its input is known, on a share that rank 1 draws for it.

W x = W (x - r) + W r: rank 1 draws r, the method makes shares of W r ahead, and online rank 1 sends its
share of x masked by r.
"""

import dataclasses

from pqjax.linear.job import Encoded, Job, multiply_plain, plain_work
from pqjax.linear.map import Image
from pqjax.linear.method import Method
from pqjax.ot.source import Source
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import Cost, message, work


@dataclasses.dataclass(frozen=True, repr=False)  # shares
class Ready:
    """A layer done ahead, to be used once: r (H, W, C) at rank 1, own share (H', W', K) of W r."""

    drawn: Image | None
    share: Image


def prepare_serve(party: Party, method: Method, job: Job, encoded: Encoded) -> Ready:
    """Rank 0's half of what is done ahead: as the method. Cost: the first of `ahead_cost`."""
    return Ready(None, method.serve(party, job, encoded))


def prepare_ask(party: Party, method: Method, job: Job) -> Ready:
    """Rank 1's half: draws r in Ring(L), then as the method."""
    drawn = party.randomness.elements(job.map.pixels, Ring(job.bits)).reshape(job.map.in_shape)
    return Ready(drawn, method.ask(party, job, drawn))


def serve(party: Party, job: Job, encoded: Encoded, x: Image, ready: Ready) -> Image:
    """Rank 0's half online: [W x]^L of a shared x, (H, W, C) in Ring(L), to (H', W', K).

      1. rank 1 -> rank 0   its share of x, minus r.   L bits an element

    Cost: the second of `ahead_cost`.
    """
    ring = Ring(job.bits)
    with party.messenger.step("masked input"):
        masked = party.messenger.receive_elements(x.size, ring).reshape(x.shape)
    return ring.add(ready.share, multiply_plain(job, encoded, ring.add(x, masked)))


def ask(party: Party, job: Job, x: Image, ready: Ready) -> Image:
    """Rank 1's half, see `serve`."""
    assert ready.drawn is not None
    ring = Ring(job.bits)
    with party.messenger.step("masked input"):
        party.messenger.send_elements(ring.sub(x, ready.drawn), ring)
    return ready.share


def ahead_cost(source: Source, method: Method, job: Job) -> tuple[Cost, Cost]:
    """Offline and online: the method, then one masked operand."""
    steps, n = work("steps", 1), job.map.pixels
    online = work("words", n) + message(1, n * job.bits) + plain_work(job, job.bits)
    return steps + method.cost(source, job), steps + online
