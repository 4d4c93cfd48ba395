"""Named ways of running a network, as data: each field is one published or own choice."""

from __future__ import annotations

import dataclasses

from pqjax.errors import PlanError, shown
from pqjax.graph.baselines import EXTENDED_RESIDUALS, WORST_CASE_WIDTHS, uniform_ring
from pqjax.graph.passes import (
    ABSORB_RELU,
    ALIGN,
    CUT,
    HOIST,
    KNOWN_SIGN,
    LOWER,
    MERGE,
    OPERANDS,
    POOL_BEFORE_RELU,
    RELU_AFTER_SHIFT,
    SHARE,
    SIGNS,
    TRUNC,
)
from pqjax.graph.rewrite import Pass
from pqjax.linear import FULL, PRIVQUANT
from pqjax.ot.endpoint import Scheme
from pqjax.protocols.resize import Forms


@dataclasses.dataclass(frozen=True)
class Preset:
    """One way of running a network.

    Attributes:
      name: as users write it.
      about: what it stands for, in a line.
      scheme: how OTs are made.
      forms: forms of the small protocols.
      variants: variants of a linear layer to choose the cheapest from.
      passes: graph rewrites, in order.
      ahead: whether linear layers run before the input is known, on a share drawn ahead of time
        (then the client's own input needs no sharing).
    """

    name: str
    about: str
    scheme: Scheme
    forms: Forms
    variants: tuple[str, ...]
    passes: tuple[Pass, ...]
    ahead: bool = False


_INLINE = Scheme(stocked=False)  # IKNP and KKOT where they are needed, as the papers' code does
_SIRNN_FORMS = Forms(known_wrap="table", relu_chosen=True)
_SIRNN_PASSES = (WORST_CASE_WIDTHS, EXTENDED_RESIDUALS, LOWER, SIGNS)
_PRIVQUANT_PASSES = (
    WORST_CASE_WIDTHS, LOWER, SIGNS, TRUNC, MERGE, ALIGN, RELU_AFTER_SHIFT, POOL_BEFORE_RELU,
    KNOWN_SIGN,
)  # fmt: skip
_PQJAX_PASSES = (
    LOWER, SIGNS, TRUNC, OPERANDS, MERGE, ALIGN, HOIST, RELU_AFTER_SHIFT, CUT, POOL_BEFORE_RELU,
    ABSORB_RELU, KNOWN_SIGN, MERGE, SHARE, SIGNS,
)  # fmt: skip

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "cryptflow2",
            "CrypTFlow2: one ring of 37 bits for everything, faithful truncation",
            _INLINE,
            Forms(known_wrap="table", relu_chosen=True),
            FULL,
            (LOWER, uniform_ring(37)),
        ),
        Preset(
            "sirnn",
            "SiRNN as PrivQuant describes it: extends X, the client sends (4), no fusion",
            _INLINE,
            _SIRNN_FORMS,
            ("4-extend-x-choose-w",),
            _SIRNN_PASSES,
        ),
        Preset(
            "sirnn-choice1",
            "SiRNN as the figures of PrivQuant's table 9 fit: extends W, the server sends (1)",
            _INLINE,
            _SIRNN_FORMS,
            ("1-extend-w-choose-x",),
            _SIRNN_PASSES,
        ),
        Preset(
            "privquant",
            "PrivQuant: the cheapest of four products, sign propagation, fused requantization",
            _INLINE,
            Forms(known_wrap="choice", relu_chosen=True),
            PRIVQUANT,
            _PRIVQUANT_PASSES,
        ),
        Preset(
            "pqjax",
            "the best we know: SoftSpoken OT from a store, exact widths, linear layers ahead",
            Scheme(stocked=True, k=4),
            Forms(known_wrap="element", relu_chosen=False),
            FULL,
            _PQJAX_PASSES,
            ahead=True,
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise PlanError(f"unknown protocol {shown(name)}; known: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
