"""Widths that keep to a limit in bytes: activations as wide as may be, then weights layer by layer.

Nobody gives labels, so what fewer bits cost is measured: by how much the logits move when one layer's
weights alone are rounded to `PROBED_BITS`, other widths in proportion to the square of what they round
off. Layers' widths of least sum under the limit are an integer program (`pqjax.search`), priced by plans
of a draft: the network calibrated without being fitted, whose accumulators are nearly the final ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from nets.data import integer_input
from nets.export import export
from nets.folded import FoldedNet
from nets.importing.imported import Imported
from nets.importing.quantize import Progress, Quantized, felt, quantize, rounded, silent
from nets.ptq import Recipe
from nets.quantized import QuantNet, Widths, calibrate
from nets.setting import Setting
from pqjax.errors import GraphError, PlanError
from pqjax.graph import Graph, with_norms
from pqjax.graph.sensitivity import Sensitivities, Sensitivity
from pqjax.graph.widths import operands, residuals, widths_of
from pqjax.planner import plan
from pqjax.planner.presets import Preset
from pqjax.search import Limit, Space, search
from pqjax.search.costs import Domains, Pricer, domains

ACTIVATIONS = (8, 6, 4)
WEIGHTS = (3, 4, 5, 6, 8)
LEAST_UNIFORM = 4  # bits of all weights at which activations are still thought wide enough
PROBED_BITS = 4
_DRAFTED = 8  # pictures
_TRIES = 4


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Widths and why.

    Attributes:
      widths: of every tensor.
      cost: bits of an inference, as far as the draft shows.
      probed: what the logits move by with each layer at `PROBED_BITS`; none where 8 bits keep to the
        limit in all layers.
    """

    widths: Widths
    cost: float
    probed: Mapping[str, float]


def fitting_widths(
    imported: Imported, pixels: UInt8[np.ndarray, "n h w c"], limit: Limit, preset: Preset,
    say: Callable[[str], None], progress: Progress = silent,
) -> Chosen:  # fmt: skip
    """The widths of least measured noise that keep to a limit.

    Args:
      imported: the network.
      pixels: pictures, a few of which are looked at.
      limit: of a plan.
      preset: of the plan.
      say: told what is done, in a line each.
      progress: told of every layer that is probed.

    Raises:
      PlanError: none of the widths tried keeps to it; says what the least takes.
    """
    net = FoldedNet.of(imported.architecture, imported.of_integers())
    least: tuple[float, str] = float("inf"), ""
    refused: GraphError | None = None
    for bits in ACTIVATIONS:
        setting = Setting.parse(f"W8A{bits}")
        try:
            graph = _draft(net, setting.widths(imported.architecture), pixels)
        except GraphError as error:
            refused = error
            continue
        whole = widths_of(graph)
        pricer, fits = Pricer(graph, whole, preset, limit), domains(graph, whole, WEIGHTS)
        costs = {w: pricer.exact(_near(fits, w)) for w in (8, LEAST_UNIFORM)}
        for w, cost in costs.items():
            say(f"weights of {w} bits where they can, activations of {bits}: {limit.text(cost)}")
            least = min(least, (cost, f"W{w}A{bits}"))
        if costs[8] <= limit.value:
            return Chosen(setting.widths(imported.architecture), costs[8], {})
        if costs[LEAST_UNIFORM] <= limit.value or bits == ACTIVATIONS[-1]:
            return _by_layer(net, graph, setting, pixels, limit, preset, say, progress)
    if refused is not None and not least[1]:
        raise refused
    raise PlanError(
        f"no widths keep to {limit.text(limit.value)}: {least[1]} takes {limit.text(least[0])}"
    )


def quantized_to(
    limit: float, preset: Preset, imported: Imported, pixels: UInt8[np.ndarray, "n h w c"],
    recipe: Recipe, say: Callable[[str], None], progress: Progress = silent,
) -> Quantized:  # fmt: skip
    """The network in widths that keep to so many bits an inference, see `fitting_widths`.

    Fitted, its accumulators may be wider than the draft's; then as much less is aimed at.

    Raises:
      PlanError: none of the widths tried keeps to it; says what the least takes.
    """
    aim = limit
    for _ in range(_TRIES):
        chosen = fitting_widths(imported, pixels, Limit(aim), preset, say, progress)
        say(f"widths {','.join(map(str, chosen.widths.weights))}/A{chosen.widths.activations}")
        made = quantize(imported, chosen.widths, pixels, recipe, progress)
        cost = Limit(limit).of(plan(made.graph, preset))
        if cost <= limit:
            return made
        say(f"fitted it takes {cost / 8e9:.6f} GB: again, with less in view")
        aim *= limit / cost
    raise PlanError(f"the limit is missed by {(cost - limit) / 8e9:.6f} GB: take a higher one")


def _draft(net: FoldedNet, widths: Widths, pixels: UInt8[np.ndarray, "n h w c"]) -> Graph:
    student = QuantNet(net.architecture, widths)
    calibrate(
        student, net.weights, jnp.asarray(integer_input(pixels[:_DRAFTED], net.architecture.zero))
    )
    return with_norms(*export(student, exact=False))


def _near(fits: Domains, bits: int) -> dict[str, int]:
    """So many bits in every layer, or as few more as a sum's other summand allows."""
    return {layer: min((b for b in of if b >= bits), default=max(of)) for layer, of in fits.items()}


def _by_layer(
    net: FoldedNet, graph: Graph, setting: Setting, pixels: UInt8[np.ndarray, "n h w c"],
    limit: Limit, preset: Preset, say: Callable[[str], None], progress: Progress,
) -> Chosen:  # fmt: skip
    kernels = {name: kernel for name, (kernel, _) in net.by_name.items()}
    few = {name: rounded(kernel, PROBED_BITS) for name, kernel in kernels.items()}
    probed = felt(net, few, pixels, progress)
    weights = {}
    for name, kernel in kernels.items():
        off = {b: float(np.square(rounded(kernel, b) - kernel).sum()) for b in WEIGHTS}
        unit = probed[name] / max(off[PROBED_BITS], 1e-30)
        omega = {b: unit * square for b, square in off.items()}
        weights[name] = Sensitivity(unit, 0.0, kernel.size, omega)
    whole = widths_of(graph)
    # Activations and residuals are as given, so what they cost is the same whatever the weights are.
    given = {name: Sensitivity(0.0, 0.0, 1, {setting.activations: 0.0}) for name in operands(graph)}
    added = {name: Sensitivity(0.0, 0.0, 1, {setting.residual: 0.0}) for name in residuals(graph)}
    settings = {"measured": "logits moved by one layer's rounding"}
    table = Sensitivities(net.architecture.name, weights, given, added, settings)
    found = search(graph, table, limit, preset, Space(WEIGHTS), say)
    bits = tuple(found.widths.weights[layer.name] for layer in net.architecture.layers)
    assert list(found.widths.weights) == list(whole.weights)
    made = dataclasses.replace(setting.widths(net.architecture), weights=bits)
    return Chosen(made, found.cost, probed)
