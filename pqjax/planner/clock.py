"""How long planning may take: a stranger's plan is made again under the deadline of its connection."""

import dataclasses
import time

from pqjax.errors import PlanError


@dataclasses.dataclass(frozen=True)
class Clock:
    """When planning must be done: `deadline_s` after it began; None for whenever it is."""

    deadline_s: float | None
    start_s: float = dataclasses.field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises a `PlanError` when it has taken too long."""
        if self.deadline_s is not None and time.monotonic() - self.start_s > self.deadline_s:
            raise PlanError(
                f"planning takes longer than the {self.deadline_s:g} s allowed: allow more, or mistrust "
                "who sent the plan"
            )
