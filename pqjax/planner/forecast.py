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

    Random OTs that are made beside the other layers take what time these leave a party, see `_lacking`.
    """
    timeline = Timeline(link or plan.link, plan.rates)
    found: list[Timed] = []
    for _, lines in itertools.groupby(plan.schedule(inference), lambda line: line.phase):
        clocks, at, beside = Clocks(), 0, None
        begin = len(found)
        for line in lines:
            if line.layer == STOCK_LAYER and plan.streamed:
                at, beside = len(found), line
                found.append(Timed(line, 0.0))
                continue
            after = timeline.after(line.cost, clocks)
            found.append(Timed(line, after.last - clocks.last))
            clocks = after
        if beside is not None:
            others = [timed for timed in found[begin:] if timed.line is not beside]
            found[at] = Timed(beside, _lacking(plan, timeline, beside, others))
    return found


def _lacking(plan: Plan, timeline: Timeline, making: Line, layers: list[Timed]) -> float:
    """Seconds by which layers are delayed that wait for OTs, made while layers before them wait.

    A party makes them in time that its layers leave it, but never more of them than it may hold, and
    beyond that while a layer waits for them. All in seconds of making; what is begun with is nothing.
    """
    whole = timeline.computing(making.cost)
    drawn = sum(sum(layer.line.cost.rots) for layer in layers)
    if not drawn:
        return max(whole)
    held, most = [0.0, 0.0], [seconds * plan.stored / drawn for seconds in whole]
    delay = 0.0
    for line, seconds in layers:
        busy, part = timeline.computing(line.cost), sum(line.cost.rots) / drawn
        left = [
            have + max(0.0, seconds - own) - part * each
            for have, own, each in zip(held, busy, whole, strict=True)
        ]
        wait = max(0.0, *(-each for each in left))
        delay += wait
        held = [min(each + wait, room) for each, room in zip(left, most, strict=True)]
    return delay


def phases(plan: Plan, link: Link | None = None, inference: int = 1) -> dict[str, float]:
    """Seconds of each phase but the setup, which nobody predicts."""
    sums: dict[str, float] = dict.fromkeys(("install", "offline", "online"), 0.0)
    for each, seconds in forecast(plan, link, inference):
        if each.phase in sums:
            sums[each.phase] += seconds
    return sums
