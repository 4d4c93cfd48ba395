"""When a plan's layers are done: seconds of computing and messages, overlapped as they are run."""

from typing import NamedTuple

from pqjax.planner.plan import Line, Plan
from pqjax.wire.link import Link
from pqjax.wire.timeline import Clocks, Timeline


class Timed(NamedTuple):
    """A layer of a phase, and by how much later both parties are done than before it."""

    line: Line
    seconds: float


def forecast(plan: Plan, link: Link | None = None, inference: int = 1) -> list[Timed]:
    """Every layer of an inference, see `Plan.predicted`. Each phase begins with both parties idle."""
    line, clocks, phase = Timeline(link or plan.link, plan.rates), Clocks(), None
    found = []
    for each in plan.schedule(inference):
        if each.phase != phase:
            clocks, phase = Clocks(), each.phase
        after = line.after(each.cost, clocks)
        found.append(Timed(each, after.last - clocks.last))
        clocks = after
    return found


def phases(plan: Plan, link: Link | None = None, inference: int = 1) -> dict[str, float]:
    """Seconds of each phase but the setup, which nobody predicts."""
    sums: dict[str, float] = dict.fromkeys(("install", "offline", "online"), 0.0)
    for each, seconds in forecast(plan, link, inference):
        if each.phase in sums:
            sums[each.phase] += seconds
    return sums
