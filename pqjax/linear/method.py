"""What a way of multiplying is to the wrappers around it, and which ways there are."""

from typing import Any, Protocol

import numpy as np
from jaxtyping import Integer

from pqjax.linear.by_ot import ByOt
from pqjax.linear.choice import Choice, Form
from pqjax.linear.job import Encoded, Job
from pqjax.linear.map import Image
from pqjax.ot.source import Source
from pqjax.protocols.party import Party
from pqjax.wire.cost import Cost


class Method(Protocol):
    """Shares of [W c]^L for rank 0's plain W and rank 1's plain c.

    Attributes:
      name: its key in `METHODS`.
      variants: the names of those there are; the first argument of the class.
      form: whether wrappers extend an operand by patches or by pixels.
    """

    name: str
    variants: tuple[str, ...]

    @property
    def form(self) -> Form: ...  # noqa: D102

    def extended(self, job: Job) -> int:
        """Width of the ring that c comes from, at most job.bits."""
        ...

    def fits(self, job: Job, plain: bool) -> str | None:
        """Why the job cannot be done so, None where it can; `plain`: one party holds the operand."""
        ...

    def cost(self, source: Source, job: Job) -> Cost:
        """Exact bits, flows and OTs of `serve` and `ask`."""
        ...

    def encode(self, job: Job, weights: Integer[np.ndarray, " *w"]) -> Encoded:
        """The weights made ready: once a process, immutable, shared by all sessions."""
        ...

    def serve(self, party: Party, job: Job, encoded: Any) -> Image:
        """Rank 0's half: its share (H', W', K) in Ring(job.bits)."""
        ...

    def ask(self, party: Party, job: Job, c: Image) -> Image:
        """Rank 1's half, on elements c of Ring(extended(job))."""
        ...


METHODS: dict[str, Any] = {"ot": ByOt}  # classes of methods, made of a variant and a form


def method_of(choice: Choice) -> Method:
    """The method that a choice names, in its variant and form."""
    return METHODS[choice.method](choice.variant, choice.form)
