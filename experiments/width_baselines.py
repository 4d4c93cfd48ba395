"""What a search is compared with: one width for all layers, and costs guessed from l_w * l_x * MACs.

The product of widths and multiplications is what quantization for ordinary hardware minimises; PrivQuant
(section 5.2) says that it misses what a private layer costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pqjax.errors import PlanError
from pqjax.graph.ir import Conv, Dense, Graph
from pqjax.graph.sensitivity import Sensitivities
from pqjax.graph.widths import Widths, widths_of
from pqjax.planner.presets import Preset
from pqjax.search.costs import Limit, Pricer, Tables, domains
from pqjax.search.optimum import WEIGHT_BITS, Found, loss_of, weight_losses
from pqjax.search.program import WidthProgram

# Bits that the first layer and the classifier keep at least, as trained uniform networks do.
ENDS = 4
_HALVINGS = 14


def at(
    graph: Graph, sensitivities: Sensitivities, limit: Limit, protocol: str | Preset, widths: Widths
) -> Found:
    """Given widths as if they had been found."""
    pricer = Pricer(graph, widths, protocol, limit)
    made = pricer.plan(widths.weights)
    loss = loss_of(graph, sensitivities, widths)
    return Found(widths, loss, made, limit.of(made), proven=False)


def uniform_widths(like: Widths, bits: int) -> Widths:
    """One width for all layers but the first and the last, which keep at least `ENDS`."""
    layers = list(like.weights)
    ends = (layers[0], layers[-1])
    weights = {x: max(bits, ENDS) if x in ends else bits for x in layers}
    return dataclasses.replace(like, weights=weights)


def proxy(graph: Graph, layer: str) -> float:
    """l_x * MACs of a layer, to be multiplied by its weights' width."""
    node = graph[layer]
    assert isinstance(node, (Conv, Dense))
    source = graph.source(node)
    macs = source.n * node.out.n
    if isinstance(node, Conv):
        macs = node.out.n * node.kernel[0] * node.kernel[1] * source.shape[2] // node.groups
    return float(source.bits * macs)


def proxy_search(
    graph: Graph, sensitivities: Sensitivities, limit: Limit, protocol: str | Preset
) -> Found:
    """Least loss under a limit on the proxy: the largest such limit whose exact cost keeps to `limit`.

    Raises:
      PlanError: none does.
    """
    like = widths_of(graph)
    fits = domains(graph, like, WEIGHT_BITS)
    losses = weight_losses(graph, sensitivities, fits)
    pricer = Pricer(graph, like, protocol, limit)
    guess = {x: {b: b * proxy(graph, x) for b in of} for x, of in fits.items()}
    low, high = (sum(pick(of.values()) for of in guess.values()) for pick in (min, max))
    cheapest = {x: min(of) for x, of in fits.items()}
    if pricer.exact(cheapest) > limit.value:
        raise PlanError(
            f"no widths that the proxy proposes keep to {limit.text(limit.value)}: the smallest "
            f"feasible limit is {limit.text(pricer.exact(cheapest))}"
        )
    best: Mapping[str, int] = cheapest
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weights = WidthProgram(fits, losses, Tables(0.0, guess, {}, 0.0), middle).solve()
        if weights is None or pricer.exact(weights) <= limit.value:
            low, best = middle, weights or best
        else:
            high = middle
    return at(graph, sensitivities, limit, protocol, pricer.widths(best))
