"""Bit widths under a limit: least expected loss whose exact cost keeps to it.

An integer program proposes widths from tables of costs, the planner prices them exactly, and what breaks
the limit is cut off, until a proposal holds. Activation and residual widths are tried pair by pair; the
best of all optima is the optimum.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

from pqjax.errors import CheckpointError, GraphError, PlanError
from pqjax.graph.ir import Graph
from pqjax.graph.sensitivity import Sensitivities
from pqjax.graph.widths import Widths, operands, residuals, widths_of
from pqjax.planner.plan import Plan
from pqjax.planner.presets import Preset
from pqjax.search.costs import Domains, Limit, Pricer, Tables, domains, tables
from pqjax.search.program import Losses, WidthProgram

WEIGHT_BITS = tuple(range(2, 9))
_MOST_CUTS = 40
_STRETCHES = 16  # of the tables' error, by which a limit is lowered until something keeps to it

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Found:
    """Widths and what they cost.

    Attributes:
      widths: of every layer.
      loss: expected increase of the loss, half the sum of all Omega.
      plan: of the network in these widths.
      cost: exact, in the limit's unit.
      proven: whether nothing better keeps to the limit (as far as the tables' error is known).
    """

    widths: Widths
    loss: float
    plan: Plan
    cost: float
    proven: bool

    @property
    def graph(self) -> Graph:
        """The network in these widths, for what it costs; training finds its weights and scales."""
        return self.plan.source


@dataclasses.dataclass(frozen=True)
class Space:
    """What to search.

    Attributes:
      weights: widths that a layer's weights may have.
      activations, residuals: widths to try; None for what the graph has.
    """

    weights: tuple[int, ...] = WEIGHT_BITS
    activations: tuple[int, ...] | None = None
    residuals: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for what, given in dataclasses.asdict(self).items():
            if given is not None and (not given or not all(1 <= b <= 64 for b in given)):
                raise PlanError(f"{what}: widths in 1..64 expected, got {given}")

    def kept(self, graph: Graph) -> list[Widths]:
        """The widths of activations and residuals to try; weights are the graph's."""

        def either(has: int | None, wanted: tuple[int, ...] | None) -> Iterable[int | None]:
            return [has] if has is None or wanted is None else wanted

        here, tried = widths_of(graph), []
        reads = either(here.activations, self.activations)
        residuals = either(here.residual, self.residuals)
        for activations, residual in itertools.product(reads, residuals):
            if residual is None or activations is None or activations <= residual:
                tried.append(Widths(here.weights, activations, residual))
        if not tried:
            raise PlanError("residuals need at least as many bits as activations; none are tried")
        return tried


def loss_of(graph: Graph, found: Sensitivities, widths: Widths) -> float:
    """Expected increase of the loss: half of all Omega.

    Raises:
      PlanError: the sensitivities are of another network, or lack a width.
    """
    weights = weight_losses(graph, found, {x: (b,) for x, b in widths.weights.items()})
    return fixed_loss(graph, found, widths) + sum(weights[x][b] for x, b in widths.weights.items())


def fixed_loss(graph: Graph, found: Sensitivities, widths: Widths) -> float:
    """The part of activations and residuals."""
    total = 0.0
    for names, table, bits in (
        (operands(graph), found.activations, widths.activations),
        (residuals(graph), found.residuals, widths.residual),
    ):
        if bits is not None:
            total += sum(_omega(found, table, name, bits) for name in names)
    return total / 2


def weight_losses(graph: Graph, found: Sensitivities, widths: Domains) -> Losses:
    """The part of every layer's weights, by width."""
    return {
        layer: {b: _omega(found, found.weights, layer, b) / 2 for b in fits}
        for layer, fits in widths.items()
    }


def _omega(found: Sensitivities, table, name: str, bits: int) -> float:
    if name not in table:
        raise PlanError(
            f"the sensitivities of {found.network!r} do not have {name!r}: they are of another network"
        )
    try:
        return table[name].at(bits)
    except CheckpointError as error:
        raise PlanError(f"{name}: {error}") from error


def search(
    graph: Graph,
    sensitivities: Sensitivities,
    limit: Limit,
    protocol: str | Preset = "pqjax",
    space: Space | None = None,
    report: Report | None = None,
) -> Found:
    """The widths of least expected loss whose plan keeps to the limit.

    Args:
      graph: the network at any widths, see `pqjax.graph.widths`.
      sensitivities: what fewer bits cost its loss.
      limit: in bits or seconds.
      protocol: a preset; it chooses the variant of every layer.
      space: widths to try.
      report: told what is being done, in a line each.

    Raises:
      PlanError: nothing keeps to the limit; says how much the cheapest widths take.
      GraphError: a layer's width cannot be changed.
    """
    space, say = space or Space(), report or (lambda text: None)
    best: Found | None = None
    priced: list[tuple[Pricer, Domains, Tables]] = []
    refused: GraphError | None = None
    tried = [(fixed_loss(graph, sensitivities, like), like) for like in space.kept(graph)]
    for fixed, like in sorted(tried, key=lambda pair: pair[0]):
        try:
            fits = domains(graph, like, space.weights)
        except GraphError as error:
            refused = error
            continue
        losses = weight_losses(graph, sensitivities, fits)
        if best and fixed + sum(min(of.values()) for of in losses.values()) >= best.loss:
            continue  # not even without a limit would this be better
        pricer = Pricer(graph, like, protocol, limit)
        say(f"pricing {_kept(like)}")
        costs = tables(pricer, fits)
        priced.append((pricer, fits, costs))
        say(f"solving {_kept(like)}, {len(costs.pairs)} layers priced in pairs")
        found = _best(pricer, fits, losses, costs, fixed)
        if found is not None and (best is None or found.loss < best.loss):
            best = found
    if best is not None:
        return best
    if not priced:
        raise refused or PlanError("there are no widths to try")
    least = min((_cheapest(*each) for each in priced), key=lambda pair: pair[0])
    raise PlanError(
        f"no widths keep to {limit.text(limit.value)}: the smallest feasible limit is "
        f"{limit.text(least[0])}, at {least[1]}"
    )


def _best(
    pricer: Pricer, fits: Domains, losses: Losses, costs: Tables, fixed: float
) -> Found | None:
    """The best at given activations and residuals, or None where nothing keeps to the limit."""
    limit = pricer.limit.value
    # As much above the limit as the tables may be too high: nothing that keeps to it is missed.
    program = WidthProgram(fits, losses, costs, limit + costs.error)
    for _ in range(_MOST_CUTS if costs.error else 4):
        weights = program.solve()
        if weights is None:
            return None
        if pricer.exact(weights) <= limit:
            return _found(pricer, losses, fixed, weights, proven=True)
        program.exclude(weights)
    tight = limit
    while tight > 0:  # below what the tables may be too low: holds, but may not be the very best
        tight -= max(costs.error / _STRETCHES, 1e-6 * limit)
        weights = WidthProgram(fits, losses, costs, tight).solve()
        if weights is None:
            return None
        if pricer.exact(weights) <= limit:
            return _found(pricer, losses, fixed, weights, proven=False)
    return None


def _found(pricer: Pricer, losses: Losses, fixed: float, weights, proven: bool) -> Found:
    made = pricer.plan(weights)
    loss = fixed + sum(losses[x][b] for x, b in weights.items())
    return Found(pricer.widths(weights), loss, made, pricer.limit.of(made), proven)


def _cheapest(pricer: Pricer, fits: Domains, costs: Tables) -> tuple[float, Widths]:
    """The least exact cost at given activations and residuals."""
    none = {layer: dict.fromkeys(of, 0.0) for layer, of in fits.items()}
    program = WidthProgram(fits, none, costs, float("inf"))
    program.minimise_cost()
    best, bound = None, float("inf")
    for _ in range(_MOST_CUTS):
        weights = program.solve()
        if weights is None or costs.total(weights) - costs.error > bound:
            break
        if pricer.exact(weights) < bound:
            best, bound = weights, pricer.exact(weights)
        if not costs.error:
            break
        program.exclude(weights)
    assert best is not None
    return bound, pricer.widths(best)


def _kept(like: Widths) -> str:
    if like.activations is None:
        return "weights"
    more = "" if like.residual is None else f", residuals of {like.residual}"
    return f"activations of {like.activations} bits{more}"


def widths_report(graph: Graph, sensitivities: Sensitivities, limit: Limit, found: Found) -> str:
    """What was found, in lines: every layer's widths, share of the loss and variant; the sums."""
    made, chosen = found.plan, {x: (b,) for x, b in found.widths.weights.items()}
    losses = weight_losses(graph, sensitivities, chosen)
    variants = {step.node.name: step.variant or "" for step in made.steps}
    width = max(map(len, losses))
    lines = [f"{'layer':{width}}  weights  reads  accumulator  loss increase  variant"]
    for layer, bits in found.widths.weights.items():
        node = found.graph[layer]
        read = found.graph.source(node).bits
        lines.append(
            f"{layer:{width}}  {bits:7}  {read:5}  {node.out.bits:11}  {losses[layer][bits]:13.3g}  "
            f"{variants[layer]}"
        )
    rest = fixed_loss(graph, sensitivities, found.widths)
    phases = made.cost("offline"), made.cost("online")
    sure = "least possible" if found.proven else "not proven to be the least"
    lines += [
        f"widths: {found.widths}",
        f"expected loss increase: {found.loss:.4g}, of it activations and residuals {rest:.4g}; {sure}",
        f"cost: {limit.text(found.cost)}, limit {limit.text(limit.value)}; protocol {made.protocol}: "
        f"{made.cost().bits / 8e9:.6f} GB, of it {phases[1].bits / 8e9:.6f} GB online, "
        f"{(phases[0] + phases[1]).flows} flows",
        "accumulators are estimates until weights are trained at these widths",
    ]
    return "\n".join(lines)
