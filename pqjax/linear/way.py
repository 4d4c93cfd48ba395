"""How a linear layer is run as a whole, from installation to its shares; and which ways there are.

A way has halves at both parties and a price in every phase. Those by oblivious transfer wrap a `Method`,
which multiplies one party's numbers by the other's: on the operand's shares, or ahead of it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_args

import numpy as np
from jaxtyping import Integer, UInt8

from pqjax.he import Version
from pqjax.linear import ahead, on_shares
from pqjax.linear.by_reply import SYSTEMS, ByReply
from pqjax.linear.by_rlwe import VARIANTS, ByRlwe
from pqjax.linear.choice import Choice, Form, When
from pqjax.linear.job import Encoded, Job, Parts, filling, unfilled
from pqjax.linear.keys import Keys, Secrets
from pqjax.linear.map import Image
from pqjax.linear.method import METHODS, Method, method_of
from pqjax.linear.shared import SHARED
from pqjax.ot.source import Source
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party

RLWE = "rlwe"


class Way(Protocol):
    """Shares of [W x]^L for rank 0's weights W and a shared x.

    Attributes:
      guards: whether its shares have guard bits.
      exact: whether no sum is ever off by one.
    """

    @property
    def guards(self) -> bool: ...  # noqa: D102
    @property
    def exact(self) -> bool: ...  # noqa: D102

    def unfit(self, job: Job, own: bool) -> str | None:
        """Why the layer cannot be run so, None where it can; `own`: it reads the client's own input."""
        ...

    def options(self, choice: Choice, job: Job, inferences: int) -> Sequence[Choice]:
        """The choice with all that is to be found for a layer, for so many inferences of a client."""
        ...

    def secrets(self, job: Job) -> Secrets:
        """What it uses of an inference's secrets."""
        ...

    def parts(self, source: Source, forms: Forms, job: Job) -> Parts:
        """Exact cost, by phase and part."""
        ...

    def load(
        self, job: Job, weights: Integer[np.ndarray, " *w"], name: str, version: Version
    ) -> Any:
        """The weights made ready: once a process, immutable, shared by all sessions."""
        ...

    def hint(self, job: Job, own: Any, name: str, version: Version) -> UInt8[np.ndarray, " bytes"]:
        """What every client gets once, where the price says that it gets anything."""
        ...

    def prepare(self, party: Party, job: Job, name: str, own: Any, keys: Keys | None) -> Any:
        """This party's half of what needs no input; `own` is what `load` made, or the client's hint."""
        ...

    def run(self, party: Party, forms: Forms, job: Job, own: Any, x: Image, ready: Any) -> Image:
        """This party's half: (H', W', K) of own share x (H, W, C), in the ring of its shares."""
        ...


class ByTransfer:
    """What ways by oblivious transfer have in common."""

    guards, exact = False, True

    def options(self, choice: Choice, job: Job, inferences: int) -> Sequence[Choice]:
        """As it is."""
        return [choice]

    def secrets(self, job: Job) -> Secrets:
        """None."""
        return Secrets()

    def hint(self, job: Job, own: Any, name: str, version: Version) -> UInt8[np.ndarray, " bytes"]:
        """Nothing."""
        return np.zeros(0, np.uint8)


@dataclasses.dataclass(frozen=True)
class OnShares(ByTransfer):
    """A product of shares, see `pqjax.linear.on_shares`."""

    method: Method

    def unfit(self, job: Job, own: bool) -> str | None:
        """As the method says."""
        return self.method.fits(job, plain=False)

    def parts(self, source: Source, forms: Forms, job: Job) -> Parts:
        """All of it online."""
        return Parts(
            online={
                "extension": on_shares.extension_cost(source, self.method, job, forms),
                "product": self.method.cost(source, job),
                "wrap & mux": on_shares.wraps_cost(source, self.method, job, forms),
            }
        )

    def load(
        self, job: Job, weights: Integer[np.ndarray, " *w"], name: str, version: Version
    ) -> Encoded:
        """As the method does."""
        return self.method.encode(job, weights)

    def prepare(self, party: Party, job: Job, name: str, own: Any, keys: Keys | None) -> None:
        """Nothing."""

    def run(self, party: Party, forms: Forms, job: Job, own: Any, x: Image, ready: Any) -> Image:
        """This party's half."""
        if party.rank == 1:
            return on_shares.ask(party, self.method, job, x, forms)
        return on_shares.serve(party, self.method, job, own, x, forms)


@dataclasses.dataclass(frozen=True)
class Ahead(ByTransfer):
    """A product with what the client draws, see `pqjax.linear.ahead`."""

    method: Method

    def unfit(self, job: Job, own: bool) -> str | None:
        """An operand that does not fill the ring, or as the method says."""
        if self.method.extended(job) < job.bits:
            return "extends its operand, which nobody has ahead: only `full` variants do not"
        return unfilled(job, own) or self.method.fits(job, own)

    def parts(self, source: Source, forms: Forms, job: Job) -> Parts:
        """The product offline."""
        offline, online = ahead.ahead_cost(source, self.method, job)
        return Parts(offline={"product": offline}, online={"masked input": online})

    def load(
        self, job: Job, weights: Integer[np.ndarray, " *w"], name: str, version: Version
    ) -> Encoded:
        """As the method does."""
        return self.method.encode(job, weights)

    def prepare(
        self, party: Party, job: Job, name: str, own: Any, keys: Keys | None
    ) -> ahead.Ready:
        """This party's half of the product."""
        if party.rank == 1:
            return ahead.prepare_ask(party, self.method, job)
        return ahead.prepare_serve(party, self.method, job, own)

    def run(self, party: Party, forms: Forms, job: Job, own: Any, x: Image, ready: Any) -> Image:
        """This party's half."""
        x = filling(job, x)
        if party.rank == 1:
            return ahead.ask(party, job, x, ready)
        return ahead.serve(party, job, own, x, ready)


def way_of(choice: Choice) -> Way:
    """The way that a choice names, with its method, layout and widths."""
    if choice.method == RLWE:
        return ByRlwe(choice.packing, choice.when, choice.variant)
    if choice.method in SYSTEMS:
        return ByReply(SYSTEMS[choice.method][choice.variant], choice.packing, choice.when)
    return (Ahead if choice.when == "ahead" else OnShares)(method_of(choice))


def unknown(choice: Mapping[str, object]) -> tuple[str, object, Sequence[str]] | None:
    """The first field of a choice whose value is not known here, the value, and what is known.

    None where all are known. Takes the fields as they come, of any type.
    """
    variants = {name: tuple(method.variants) for name, method in METHODS.items()}
    variants |= {
        **SHARED,
        RLWE: VARIANTS,
        **{name: tuple(ideas) for name, ideas in SYSTEMS.items()},
    }
    known = {"method": tuple(variants), "form": get_args(Form), "when": get_args(When)}
    method = choice.get("method")
    if method in known["method"]:
        known["variant"] = variants[str(method)]
    found = [field for field, values in known.items() if choice.get(field) not in values]
    return (found[0], choice.get(found[0]), known[found[0]]) if found else None
