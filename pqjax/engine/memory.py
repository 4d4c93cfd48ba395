"""Whether there is memory for a plan, asked before anything is sent."""

import pathlib

from pqjax.errors import PlanError
from pqjax.planner.plan import Plan

_OT_BYTES = 16  # of a stored random OT, at either end
_WORD_BYTES = 8


def least_bytes(plan: Plan) -> int:
    """What a party holds at once at the least: stored OTs, and its largest tensor."""
    return _OT_BYTES * plan.stored + _WORD_BYTES * max(node.out.n for node in plan.graph)


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
            "available: end other programs, or use a smaller network or narrower widths"
        )
