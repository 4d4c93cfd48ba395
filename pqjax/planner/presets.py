"""Named ways of running a network, as data: each field is one published or own choice."""

from __future__ import annotations

import dataclasses

from pqjax.errors import PlanError
from pqjax.graph.passes import Pass, absorb_relu, worst_case_widths
from pqjax.ot.endpoint import Scheme
from pqjax.protocols.linear_ot import FULL, PRIVQUANT
from pqjax.protocols.resize import Forms


@dataclasses.dataclass(frozen=True)
class Preset:
    """One way of running a network.

    Attributes:
      name: as users write it.
      scheme: how OTs are made.
      forms: forms of the small protocols.
      variants: variants of a linear layer to choose the cheapest from.
      passes: graph rewrites, in order.
      ahead: whether linear layers run before the input is known, on a share drawn ahead of time
        (then the `full` variants are used, and the client's own input needs no sharing).
    """

    name: str
    scheme: Scheme
    forms: Forms
    variants: tuple[str, ...]
    passes: tuple[Pass, ...]
    ahead: bool


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "privquant",
            Scheme(stocked=False),
            Forms(known_wrap="choice", relu_chosen=True, cut_first=False),
            PRIVQUANT,
            (worst_case_widths,),
            ahead=False,
        ),
        Preset(
            "pqjax",
            Scheme(stocked=True, k=4),
            Forms(known_wrap="element", relu_chosen=False, cut_first=True),
            FULL,
            (absorb_relu,),
            ahead=True,
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise PlanError(f"unknown protocol {name!r}; known: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
