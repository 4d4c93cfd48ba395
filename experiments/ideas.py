"""HEQuant's three ideas as presets, one by one and together, and what they send on whole networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from experiments.sci_he import he_bits
from pqjax import plan
from pqjax.errors import InputError
from pqjax.graph import Graph
from pqjax.layers.linear import job_of
from pqjax.linear import Choice, LinearMap
from pqjax.planner import PRESETS, Plan, Preset
from pqjax.planner.plan import Step

CHEETAH, SCI, ALL = "Cheetah, 37 bit", "CrypTFlow2 by HE, 37 bit", "HEQuant: all three"
# Of the preset `hequant`: what is switched on of its method.
VARIANTS = {
    "quantized, Cheetah's parameters": "uniform",
    "tiling alone": "tiling",
    "parameters alone": "widths",
    "parameters and tiling": "widths+tiling",
    "parameters and packing": "widths+packing",
    ALL: "widths+tiling+packing",
}


def preset_of(variant: str) -> Preset:
    """The preset `hequant` with those ideas alone."""
    choice = Choice("hequant", variant, "pixels", "shared")
    return dataclasses.replace(PRESETS["hequant"], choices=(choice,))


def presets() -> dict[str, Preset]:
    """Cheetah and every variant, by the names that tables give them."""
    return {CHEETAH: PRESETS["cheetah"], **{k: preset_of(v) for k, v in VARIANTS.items()}}


def linear_steps(made: Plan) -> Iterator[Step]:
    """The steps that multiply by weights."""
    return (step for step in made.steps if step.task.choice is not None)


def maps(graph: Graph) -> list[LinearMap]:
    """The geometry of every linear layer."""
    return [job_of(step.task).map for step in linear_steps(plan(graph, "cheetah"))]


def priced(graph: Graph) -> list[dict]:
    """Every system's bits on one network: linear layers up and down, and a whole first inference.

    CrypTFlow2's linear layers are counted by its code's formula; its other layers as the preset
    `cryptflow2` has them, in a ring of 37 bits, as its fields are not ours.
    """
    rows = []
    for name, preset in presets().items():
        made = plan(graph, preset)
        rows.append({"system": name, **_linear_and_all(made), "bits": made.cost().bits})
    made = plan(graph, "cryptflow2")
    try:
        pairs = [he_bits(m) for m in maps(graph)]
    except InputError as problem:
        rows.insert(0, {"system": SCI, "why_not": str(problem)})
        return rows
    down, up = (sum(pair[i] for pair in pairs) for i in (0, 1))
    rest = made.cost().bits - sum(step.cost.bits for step in linear_steps(made))
    rows.insert(0, {"system": SCI, "down": down, "up": up, "bits": rest + down + up})
    return rows


def _linear_and_all(made: Plan) -> dict:
    costs = [step.cost.both for step in linear_steps(made)]
    return {"down": sum(c.sent[0] for c in costs), "up": sum(c.sent[1] for c in costs)}
