"""Whether there is memory for a plan, asked before anything is sent."""

import pathlib

from pqjax.errors import PlanError
from pqjax.planner.plan import KEYS_LAYER, Plan

_OT_BYTES = 16  # of a stored random OT, at either end
_WORD_BYTES = 8


def least_bytes(plan: Plan) -> int:
    """What a client holds at once at the least.

    That is stored OTs, its largest tensor, and what it has prepared of encrypted layers: whatever of
    them travels was in its memory when it was made.
    """
    prepared = plan.cost("offline", KEYS_LAYER).bits + sum(s.cost.both.bits for s in plan.hinted)
    largest = max(node.out.n for node in plan.graph)
    return _OT_BYTES * plan.stored + _WORD_BYTES * plan.batch * largest + prepared // 8


def available_bytes() -> int | None:
    """Memory that can be had without swapping, where the system says so (Linux)."""
    try:
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def check_memory(plan: Plan) -> None:
    """Refuses a plan that cannot be run in the memory there is.

    Raises:
      PlanError: says how much it takes at the least, and how much there is.
    """
    least, there = least_bytes(plan), available_bytes()
    if there is not None and least > there:
        raise PlanError(
            f"an inference takes more than {least / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are "
            "available: end other programs, or use a smaller network, narrower widths"
            f"{' or a smaller batch' if plan.batch > 1 else ''}"
        )


def check_room(needed: int, there: int | None, what: str) -> None:
    """Refuses to keep so many bytes of what clients get once where there is less than that.

    Raises:
      PlanError: says how much it takes, and how much there is.
    """
    if there is not None and needed > there:
        raise PlanError(
            f"what the network's clients get once takes {needed / 1e9:.2f} GB, and there are "
            f"{there / 1e9:.2f} GB of {what}: make room, or ask for a plan for fewer inferences"
        )
