"""What a party's trace shows, held against what its plan predicts."""

from collections.abc import Iterator

from pqjax.planner.plan import BEGIN_LAYER, Line, Plan
from pqjax.wire.trace import Entry, Trace


def differences(plan: Plan, trace: Trace, rank: int) -> list[str]:
    """Where a trace departs from the prediction; see `Plan.differences`.

    Bits are compared per layer, phase and direction, clocks at the end of every layer: both parties'
    are followed through all that the trace contains, and counted anew from a phase's begin where it
    lacks what ran before. No clock is ever more than one ahead of the other party's, so that message
    of rank 1 leaves rank 0's just one ahead.
    """
    found: list[tuple[int, str]] = []
    left: dict[int, Iterator[Line]] = {}
    begun: set[tuple[int | None, str]] = set()
    clocks, number, installed = (0, 0), 0, 0
    for entry in list(trace.entries):
        i, at = entry.inference, f"{entry.phase} {entry.layer}"
        begun.add((i, entry.phase))
        if i is None:
            continue
        lines = left.setdefault(i, iter(plan.schedule(i, trace.stored)))
        line = next(lines, None)
        while line is not None and line.phase == "install" and _missing(entry, line, installed):
            line = next(lines, None)  # a client may have hints already, or the first of them
        installed += entry.phase == "install" and entry.layer != BEGIN_LAYER
        if line is None or (entry.phase, entry.layer) != (line.phase, line.layer):
            text = f"{line.phase} {line.layer}: got {at}" if line else f"{at}: not planned"
            found.append((i, text))
            left.clear()
            break
        if line.layer == BEGIN_LAYER and entry.number != number:
            clocks = (entry.clock_after + rank, entry.clock_after + rank - 1)
        else:
            clocks = line.cost.clocks(clocks)
        number = entry.number + 1
        sent, received = line.cost.sent[rank], line.cost.sent[1 - rank]
        if (entry.sent_bits, entry.received_bits) != (sent, received):
            text = f"sent {entry.sent_bits} and received {entry.received_bits} bits"
            found.append((i, f"{at}: {text}, predicted {sent} and {received}"))
        if entry.clock_after != clocks[rank]:
            text = f"clock {entry.clock_after}, predicted {clocks[rank]}"
            found.append((i, f"{at}: {text}"))
    if not trace.entries:
        left[0] = iter(plan.schedule(0, trace.stored))
    over = any(i is None for i, _ in begun)
    for i, rest in left.items():
        for line in rest:
            may_lack = over or line.phase == "install"
            if not may_lack or (i, line.phase) in begun:
                found.append((i, f"{line.phase} {line.layer}: not in the trace"))
    return [f"inference {i}: {text}" if i else text for i, text in found]


def _missing(entry: Entry, line: Line, installed: int) -> bool:
    """Whether a line of the installation was left out where that is in order."""
    return not installed and (entry.phase, entry.layer) != (line.phase, line.layer)
