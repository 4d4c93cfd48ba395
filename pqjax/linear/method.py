"""What a way of multiplying is to the wrappers around it, and which ways there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Integer, UInt

from pqjax.linear.by_ot import ByOt
from pqjax.linear.choice import Choice, Form
from pqjax.linear.job import Encoded, Job
from pqjax.ot.source import Source
from pqjax.protocols.party import Party
from pqjax.wire.cost import Cost


class Method(Protocol):
    """Shares of [W c]^L for rank 0's plain W and rank 1's plain c.

    Attributes:
      name: its key in `METHODS`.
      form: whether wrappers extend an operand by patches or by pixels.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def form(self) -> Form: ...  # noqa: D102

    def extended(self, job: Job) -> int:
        """Width of the ring that c comes from, at most job.bits."""
        ...

    def fits(self, job: Job, plain: bool) -> str | None:
        """Why the job cannot be done so; None where it can.

        Args:
          job: the layer.
          plain: whether one party holds the operand in the clear, so that no shares of it wrap.
        """
        ...

    def cost(self, source: Source, job: Job) -> Cost:
        """Exact bits, flows and OTs of `serve` and `ask`."""
        ...

    def encode(self, job: Job, weights: Integer[np.ndarray, " *w"]) -> Encoded:
        """The weights made ready: once a process, immutable, shared by all sessions."""
        ...

    def serve(self, party: Party, job: Job, encoded: Any) -> UInt[np.ndarray, "H2 W2 K"]:
        """Rank 0's half: its share in Ring(job.bits)."""
        ...

    def ask(
        self, party: Party, job: Job, c: UInt[np.ndarray, "H W C"]
    ) -> UInt[np.ndarray, "H2 W2 K"]:
        """Rank 1's half: its share in Ring(job.bits); c are elements of Ring(extended(job))."""
        ...


METHODS: dict[str, Callable[[str, Form], Method]] = {"ot": ByOt}


def method_of(choice: Choice) -> Method:
    """The method that a choice names, in its variant and form."""
    return METHODS[choice.method](choice.variant, choice.form)
