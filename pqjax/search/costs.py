"""What every layer costs at every width, read off plans of the whole network.

A plan's steps belong to the layer that they follow. What fusion leaves of a layer depends on its own
width and on a neighbour's, so a layer has a table over its own widths or, where plans show it, over
pairs with the neighbour that explains them. All figures come from `pqjax.planner.plan`; some more plans,
of widths in a jumble, say how far the sum of the tables can be off.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping

from pqjax.errors import GraphError, InputError
from pqjax.graph.ir import Conv, Dense, Graph
from pqjax.graph.widths import Widths, with_widths
from pqjax.planner.choose import plan
from pqjax.planner.plan import Plan, Step
from pqjax.planner.presets import Preset
from pqjax.wire.link import Link

_UNITS = {"kb": 8e3, "mb": 8e6, "gb": 8e9, "kib": 8 * 2**10, "mib": 8 * 2**20, "gib": 8 * 2**30}
_SLACK = 2.0  # the tables' error is taken to be at most this times the largest that plans show


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a network may cost.

    Attributes:
      value: bits, or seconds where there is a link.
      online: of the online phase alone; else of all phases, the setup included, and of what a client
        gets once what falls to one of the inferences that the preset is for.
      link: to count seconds on, those of offline and online phase; None to count bits.
    """

    value: float
    online: bool = False
    link: Link | None = None

    def __post_init__(self) -> None:
        if not 0 < self.value < float("inf"):
            raise InputError(f"a limit above 0 expected, got {self.value}")
        if self.online and self.link is not None:
            raise InputError("a limit in seconds is of both phases: give it without online")

    def of(self, made: Plan) -> float:
        """What a plan costs, exactly."""
        if self.link is not None:
            return made.seconds(self.link)
        if self.online:
            return made.cost("online").bits
        once = made.cost("install").bits
        return made.cost().bits - once + once / made.preset.inferences

    def of_step(self, step: Step, preset: Preset) -> float:
        """A step's part of it, with the making of its stored OTs."""
        if self.online:
            return step.cost.online.bits
        cost = step.cost.both
        whole = cost + preset.source.share(cost.rots)
        if self.link is not None:
            return self.link.seconds(*whole.sent, cost.flows)
        return whole.bits + step.cost.install.bits / preset.inferences

    def text(self, value: float) -> str:
        """A value in the limit's unit."""
        if self.link is not None:
            return f"{value:.3f} s on {self.link}"
        return f"{value / 8e9:.6f} GB{' online' if self.online else ''}"


@dataclasses.dataclass(frozen=True)
class Tables:
    """The cost of a network as a sum.

    Attributes:
      constant: what does not depend on weight widths.
      own: layer -> width -> cost, for layers that only their own width matters to.
      pairs: (layer, neighbour) -> (width, neighbour's width) -> cost, for the others.
      error: bound on the difference between the sum and a plan, as far as plans show.
    """

    constant: float
    own: Mapping[str, Mapping[int, float]]
    pairs: Mapping[tuple[str, str], Mapping[tuple[int, int], float]]
    error: float

    def total(self, weights: Mapping[str, int]) -> float:
        """The sum at some widths."""
        cost = self.constant + sum(table[weights[layer]] for layer, table in self.own.items())
        for (layer, other), table in self.pairs.items():
            cost += table[weights[layer], weights[other]]
        return cost


def parse_bits(text: str) -> float:
    """Reads "0.5GB" (10^9 bytes) or "400MiB" (2^20 bytes) as bits."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?b)", text.strip().lower())
    if found is None or not float(found[1]):
        raise InputError(f"cannot read the limit {text!r}; expected 0.5GB, 400MB, 0.4GiB or 400MiB")
    return float(found[1]) * _UNITS[found[2]]


Domains = Mapping[str, tuple[int, ...]]


class Pricer:
    """Plans of one network at any weight widths, with activations and residuals as given."""

    def __init__(self, graph: Graph, like: Widths, protocol: str | Preset, limit: Limit):
        self.graph, self.like, self.protocol, self.limit = graph, like, protocol, limit
        self._plans: dict[tuple[int, ...], Plan] = {}

    def widths(self, weights: Mapping[str, int]) -> Widths:
        """All widths, from those of the weights."""
        return dataclasses.replace(self.like, weights={x: weights[x] for x in self.like.weights})

    def plan(self, weights: Mapping[str, int]) -> Plan:
        """The plan at those widths; each is made once."""
        widths = self.widths(weights)
        key = tuple(widths.weights.values())
        if key not in self._plans:
            self._plans[key] = plan(with_widths(self.graph, widths), self.protocol, self.limit.link)
        return self._plans[key]

    def exact(self, weights: Mapping[str, int]) -> float:
        """What the limit counts, exactly."""
        return self.limit.of(self.plan(weights))

    def by_layer(self, weights: Mapping[str, int]) -> dict[str, float]:
        """What belongs to every layer; the rest is under "" and contains what no step has."""
        made, found = self.plan(weights), dict.fromkeys(self.owners.values(), 0.0)
        for step in made.steps:
            found[owner(self.owners, step.node.name)] += self.limit.of_step(step, made.preset)
        rest = self.exact(weights) - sum(found.values())
        found[""] = found.get("", 0.0) + rest
        return found

    @functools.cached_property
    def owners(self) -> dict[str, str]:
        """The layer that every node of the graph belongs to."""
        return owners(self.graph)


def owners(graph: Graph) -> dict[str, str]:
    """The layer that every node of a graph belongs to, by name; what precedes the first has none: ""."""
    found, at = {}, ""
    for node in graph:
        at = node.name if isinstance(node, (Conv, Dense)) else at
        found[node.name] = at
    return found


def owner(known: Mapping[str, str], name: str) -> str:
    """Of a node that passes have made of another, whose name it carries on."""
    while name not in known:
        name = name.rpartition(".")[0]
    return known[name]


def domains(graph: Graph, like: Widths, wanted: tuple[int, ...]) -> Domains:
    """The widths that every layer can have: those at which a residual can still be aligned.

    Raises:
      GraphError: a layer has none.
    """
    widest = {layer: max(wanted) for layer in like.weights}
    found = {}
    for layer in like.weights:
        fits = []
        for bits in wanted:
            try:
                with_widths(graph, dataclasses.replace(like, weights={**widest, layer: bits}))
            except GraphError as error:
                why = error
            else:
                fits.append(bits)
        if not fits:
            raise GraphError(f"{layer} can have none of {wanted} bits: {why}")
        found[layer] = tuple(fits)
    return found


def tables(pricer: Pricer, domains: Domains) -> Tables:
    """Reads the tables off plans.

    First all layers at the same width, then widths in a jumble. Where both agree, a layer's cost does
    not depend on its neighbours. Else every pair of widths is planned, one for the layers at even
    places and one for those at odd ones, so that each layer meets every width of its neighbours.
    """
    layers = list(domains)
    every = sorted({bits for fits in domains.values() for bits in fits})
    same = {bits: _clipped(domains, lambda i, b=bits: b) for bits in every}
    single = {bits: pricer.by_layer(weights) for bits, weights in same.items()}
    own = {x: {b: single[b][x] for b in domains[x]} for x in layers}
    constants = [found.get("", 0.0) for found in single.values()]
    probes = _jumbles(domains)
    seen = [pricer.by_layer(weights) for weights in probes]
    constants += [found[""] for found in seen]
    alone, pairs = dict(own), {}
    found = list(zip(probes, seen, strict=True))
    coupled = [x for x in layers if not all(_near(f[x], own[x][w[x]]) for w, f in found)]
    if coupled:
        grid = {
            (p, q): _clipped(domains, lambda i, p=p, q=q: q if i % 2 else p)
            for p, q in itertools.product(every, every)
        }
        priced = {pq: pricer.by_layer(weights) for pq, weights in grid.items()}
        for x in coupled:
            odd = layers.index(x) % 2
            table = {(q, p) if odd else (p, q): f[x] for (p, q), f in priced.items()}
            partner = _partner(x, layers, table, found)
            del alone[x]
            pairs[x, partner] = {(b, c): table[b, c] for b in domains[x] for c in domains[partner]}
    middle = (min(constants) + max(constants)) / 2
    made = Tables(middle, alone, pairs, 0.0)
    off = [abs(made.total(w) - pricer.exact(w)) for w in probes]
    error = _SLACK * max(off) + (max(constants) - min(constants)) / 2
    return dataclasses.replace(made, error=error if error > 1e-9 * middle else 0.0)


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-9 * max(abs(one), abs(other))


def _clipped(domains: Domains, wish: Callable[[int], int]) -> dict[str, int]:
    """For every layer the width nearest to what is wished for its place."""
    return {
        layer: min(fits, key=lambda b, i=i: abs(b - wish(i)))
        for i, (layer, fits) in enumerate(domains.items())
    }


def _jumbles(domains: Domains) -> list[dict[str, int]]:
    """Assignments in which neighbours differ, in several ways."""
    patterns = [
        lambda i, n: (i % 2) * (n - 1), lambda i, n: (1 - i % 2) * (n - 1),
        lambda i, n: i * 2 + i // 2, lambda i, n: i * 3 + 1 + i // 3, lambda i, n: i * i + 2,
        lambda i, n: (n - 1) * (i // 2 % 2),
    ]  # fmt: skip
    return [
        {x: fits[pattern(i, len(fits)) % len(fits)] for i, (x, fits) in enumerate(domains.items())}
        for pattern in patterns
    ]


def _partner(layer: str, layers: list[str], table: Mapping, found: list[tuple[dict, dict]]) -> str:
    """The layer, of those at places of the other parity, whose width explains the probes best."""
    at = layers.index(layer)
    others = sorted(layers[1 - at % 2 :: 2], key=lambda x: abs(layers.index(x) - at - 0.5))

    def off(other: str) -> float:
        return sum(abs(table[w[layer], w[other]] - cost[layer]) for w, cost in found)

    return min(others, key=off)
