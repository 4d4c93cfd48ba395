"""How far along an inference is, and how long it still takes, by what was predicted of it."""

import time
from collections.abc import Callable

from pqjax.web.outlook import Outlook

_SURE = 0.05  # of the work: before so much is done, predictions know better than what it took


class Way:
    """One inference on its way through an outlook's phases; told of every layer, as `Progress`."""

    def __init__(self, outlook: Outlook, now: Callable[[], float] = time.monotonic):
        self._outlook, self._now = outlook, now
        self._began: float | None = None
        self._phases = ["offline", "online"]
        self.phase, self.layer = "setup", ""
        self._done = self._next = 0.0

    def __call__(self, where: str, done: int, steps: int) -> None:
        """A layer begins or, without one, a phase is over."""
        if self._began is None:
            self._began = self._now()
        self.phase, _, self.layer = where.partition("/")
        if self.phase == "install" and "install" not in self._phases:
            self._phases.insert(0, "install")
        before = self._phases[: self._phases.index(self.phase)]
        passed = sum(self._outlook.seconds[phase] for phase in before)
        within = self._outlook.within(self.phase, self.layer)
        self._done, self._next = passed + within[0], passed + within[1]

    @property
    def _total(self) -> float:
        return sum(self._outlook.seconds[phase] for phase in self._phases) or 1e-9

    @property
    def fraction(self) -> float:
        """How much is done, by predicted seconds: 0 to 1."""
        return min(1.0, self._done / self._total)

    @property
    def left_s(self) -> float:
        """Seconds to go: as predicted, at the pace so far once that is known.

        Before, at no more than the pace at which the layer under way ended now.
        """
        left = self._total - self._done
        if self._began is None:
            return left
        passed = self._now() - self._began
        if self.fraction >= _SURE:
            return left * passed / self._done
        return left * max(1.0, passed / self._next) if self._next else left
