"""Named ways of running a network, as data: each field is one published or own choice."""

import dataclasses

from pqjax.errors import PlanError, shown
from pqjax.graph import passes
from pqjax.graph.baselines import EXTENDED_RESIDUALS, WORST_CASE_WIDTHS, uniform_ring
from pqjax.graph.ir import Node, Product
from pqjax.graph.rewrite import Pass
from pqjax.layers import Setting
from pqjax.linear import products_by_ot, products_by_rlwe
from pqjax.linear.by_rlwe import MERGED_HINTS, STATIC_HINTS
from pqjax.linear.choice import FULL, PRIVQUANT, Choice, Form, When
from pqjax.linear.way import RLWE
from pqjax.ot.inline import Inline
from pqjax.ot.silent_choice import SilentChoice
from pqjax.ot.source import Source
from pqjax.ot.stocked import SoftSpoken, Stocked
from pqjax.ot.tuning import Tuning
from pqjax.protocols.forms import Forms

_BY_OT = tuple(Choice("shared-ot", x, "pixels", "shared") for x in products_by_ot.VARIANTS)
_BY_RLWE = tuple(Choice("shared-rlwe", x, "pixels", "shared") for x in products_by_rlwe.VARIANTS)


@dataclasses.dataclass(frozen=True)
class Preset:
    """One way of running a network.

    Attributes:
      name: as users write it.
      about: what it stands for, in a line.
      source, forms, masked_input, tuning: see `Setting`.
      inferences: how many a client is expected to make, over which what it gets once is spread.
      choices: ways of multiplying to choose the cheapest from, for every linear layer.
      otherwise: those for layers that none of `choices` fits (convolutions in groups).
      passes: graph rewrites, in order.
      batch: how many inputs an inference answers.
      exact: whether answers are those of the network bit for bit; else sums of linear layers may be off
        by one.
      products: ways to choose the cheapest from, for products of two shared operands.
    """

    name: str
    about: str
    source: Source
    forms: Forms
    choices: tuple[Choice, ...]
    otherwise: tuple[Choice, ...]
    passes: tuple[Pass, ...]
    masked_input: bool = True
    tuning: Tuning = Tuning()
    inferences: int = 1
    exact: bool = True
    products: tuple[Choice, ...] = _BY_OT
    batch: int = 1

    def ways(self, node: Node) -> tuple[tuple[Choice, ...], ...]:
        """What to choose from for a node that multiplies; what comes later where nothing before fits."""
        return (self.products,) if isinstance(node, Product) else (self.choices, self.otherwise)

    def setting(self) -> Setting:
        """What holds for every layer."""
        return Setting(self.source, self.forms, self.tuning, self.masked_input, self.batch)


def _by_ot(*variants: str, when: When = "shared") -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """Choices on patches, and on pixels for what has no patches."""
    forms: tuple[Form, ...] = ("patches", "pixels")
    patches, pixels = (tuple(Choice("ot", x, form, when) for x in variants) for form in forms)
    return patches, pixels


# With hints; for sums too wide for these, and layers whose hints do not pay, with a reply.
_REPLIED = Choice("hequant", "widths+tiling", "pixels", "shared")
_ENCRYPTED = (Choice(RLWE, STATIC_HINTS, "pixels", "ahead"), _REPLIED)
_MERGED = Choice(RLWE, MERGED_HINTS, "pixels", "ahead")
_AHEAD, _AHEAD_ON_PIXELS = _by_ot(*FULL, when="ahead")
_INLINE = Inline()  # IKNP and KKOT where they are needed, as the papers' code does
_SIRNN_FORMS = Forms(known_wrap="table", relu_chosen=True)
_SIRNN_PASSES = (WORST_CASE_WIDTHS, EXTENDED_RESIDUALS, passes.LOWER, passes.SIGNS)
_PRIVQUANT_PASSES = (
    WORST_CASE_WIDTHS, passes.LOWER, passes.SIGNS, passes.TRUNC, passes.MERGE, passes.ALIGN,
    passes.RELU_AFTER_SHIFT, passes.POOL_BEFORE_RELU, passes.KNOWN_SIGN,
)  # fmt: skip
_UNIFORM, _UNIFORM_ON_PIXELS = _by_ot(*FULL)
_PQJAX_PASSES = (
    passes.LOWER, passes.SIGNS, passes.TRUNC, passes.OPERANDS, passes.MERGE, passes.ALIGN,
    passes.HOIST, passes.RELU_AFTER_SHIFT, passes.CUT, passes.POOL_BEFORE_RELU, passes.ABSORB_RELU,
    passes.KNOWN_SIGN, passes.MERGE, passes.SHARE, passes.SIGNS, passes.ONE_PASS,
)  # fmt: skip

OTS: dict[str, Source] = {"silent": SilentChoice(), "softspoken": SoftSpoken(4)}

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "cryptflow2",
            "CrypTFlow2: one ring of 37 bits for everything, faithful truncation",
            _INLINE,
            Forms(known_wrap="table", relu_chosen=True),
            _UNIFORM,
            _UNIFORM_ON_PIXELS,
            (passes.LOWER, uniform_ring(37)),
        ),
        Preset(
            "cheetah",
            "Cheetah: that ring, linear layers on ciphertexts that come back, off by one at times",
            OTS["silent"],
            Forms(known_wrap="element", relu_chosen=False),
            (Choice("cheetah", "uniform", "pixels", "shared"),),
            (*_UNIFORM, *_UNIFORM_ON_PIXELS),
            (passes.LOWER, uniform_ring(37, weights=False)),
            masked_input=False,
            exact=False,
        ),
        Preset(
            # Each of its method's variants may be its choice, so that ideas can be switched off.
            "hequant",
            "HEQuant: ciphertexts of quantized widths, tiles and packings that come back, exact",
            OTS["silent"],
            Forms(known_wrap="element", relu_chosen=False),
            (Choice("hequant", "widths+tiling+packing", "pixels", "shared"),),
            (*_AHEAD, *_AHEAD_ON_PIXELS),
            _PQJAX_PASSES,
            masked_input=False,
            products=(*_BY_RLWE, *_BY_OT),
        ),
        Preset(
            "sirnn",
            "SiRNN as PrivQuant describes it: extends X, the client sends (4), no fusion",
            _INLINE,
            _SIRNN_FORMS,
            *_by_ot("4-extend-x-choose-w"),
            _SIRNN_PASSES,
        ),
        Preset(
            "sirnn-choice1",
            "SiRNN as the figures of PrivQuant's table 9 fit: extends W, the server sends (1)",
            _INLINE,
            _SIRNN_FORMS,
            *_by_ot("1-extend-w-choose-x"),
            _SIRNN_PASSES,
        ),
        Preset(
            "privquant",
            "PrivQuant: the cheapest of four products, sign propagation, fused requantization",
            _INLINE,
            Forms(known_wrap="choice", relu_chosen=True),
            *_by_ot(*PRIVQUANT),
            _PRIVQUANT_PASSES,
        ),
        Preset(
            "pqjax",
            "the best we know: linear layers over RLWE with static hints, silent OT for the rest",
            OTS["silent"],
            Forms(known_wrap="element", relu_chosen=False),
            (*_ENCRYPTED, *_AHEAD),
            _AHEAD_ON_PIXELS,
            _PQJAX_PASSES,
            masked_input=False,
            products=(*_BY_RLWE, *_BY_OT),
        ),
        Preset(
            "pqjax-merged",
            "pqjax for clients of few inferences: hints are merged where that sends less, for more work",
            OTS["silent"],
            Forms(known_wrap="element", relu_chosen=False),
            (_MERGED, *_ENCRYPTED, *_AHEAD),
            _AHEAD_ON_PIXELS,
            _PQJAX_PASSES,
            masked_input=False,
            products=(*_BY_RLWE, *_BY_OT),
        ),
        Preset(
            "pqjax-ot",
            "the best we know without RLWE: silent OT from a store, linear layers ahead",
            OTS["silent"],
            Forms(known_wrap="element", relu_chosen=False),
            _AHEAD,
            _AHEAD_ON_PIXELS,
            _PQJAX_PASSES,
            masked_input=False,
        ),
    )
}


def find_preset(name: str, ot: str | None = None) -> Preset:
    """The preset of that name; see `with_ot`."""
    if name not in PRESETS:
        raise PlanError(f"unknown protocol {shown(name)}; known: {', '.join(sorted(PRESETS))}")
    return with_ot(PRESETS[name], ot)


def with_ot(preset: Preset, ot: str | None) -> Preset:
    """A preset with the source of OTs that `ot` names in `OTS`, if it is not None.

    Raises:
      PlanError: no such source, or a preset whose OTs are part of what it stands for.
    """
    if ot is None:
        return preset
    if ot not in OTS:
        raise PlanError(f"unknown source of OTs {shown(ot)}; known: {', '.join(OTS)}")
    if not isinstance(preset.source, Stocked):
        raise PlanError(
            f"protocol {preset.name!r} has no store of OTs, whose source could be chosen"
        )
    return dataclasses.replace(preset, source=OTS[ot])
