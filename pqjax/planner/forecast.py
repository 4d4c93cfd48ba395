"""When a plan's layers are done: seconds of computing and messages, overlapped as they are run."""

import itertools
from typing import NamedTuple

from pqjax.planner.plan import STOCK_LAYER, Line, Plan
from pqjax.wire.link import Link
from pqjax.wire.timeline import Clocks, Timeline


class Timed(NamedTuple):
    """A layer of a phase, and by how much later both parties are done than before it."""

    line: Line
    seconds: float


def forecast(plan: Plan, link: Link | None = None, inference: int = 1) -> list[Timed]:
    """Every layer of an inference, see `Plan.predicted`. Each phase begins with both parties idle.

    Random OTs that are made beside the other layers take what time these leave a party.
    """
    timeline = Timeline(link or plan.link, plan.rates)
    found: list[Timed] = []
    for _, lines in itertools.groupby(plan.schedule(inference), lambda line: line.phase):
        clocks, busy, at = Clocks(), [0.0, 0.0], None
        for line in lines:
            if line.layer == STOCK_LAYER and plan.streamed:
                at, beside = len(found), line
                found.append(Timed(line, 0.0))
                continue
            after = timeline.after(line.cost, clocks)
            found.append(Timed(line, after.last - clocks.last))
            busy = [a + b for a, b in zip(busy, timeline.computing(line.cost), strict=True)]
            clocks = after
        if at is not None:
            making = timeline.computing(beside.cost)
            lacking = [make - (clocks.last - own) for make, own in zip(making, busy, strict=True)]
            found[at] = Timed(beside, max(0.0, *lacking))
    return found


def phases(plan: Plan, link: Link | None = None, inference: int = 1) -> dict[str, float]:
    """Seconds of each phase but the setup, which nobody predicts."""
    sums: dict[str, float] = dict.fromkeys(("install", "offline", "online"), 0.0)
    for each, seconds in forecast(plan, link, inference):
        if each.phase in sums:
            sums[each.phase] += seconds
    return sums
