"""From a graph to a plan: the protocol of every layer, what it costs, and what both sides agree on.

A plan is public. Its document is all that the client needs; its digest is compared before anything
else is said.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Mapping, Sequence

from pqjax.errors import InputError, PlanError, PqjaxError, listed, shown
from pqjax.graph.bounds import MOST_NODES, Name
from pqjax.graph.ir import ArgMax, Conv, Dense, Graph, Node, Weights
from pqjax.graph.rewrite import Pass, price_of
from pqjax.graph.schema import Length, Printable, check, read
from pqjax.graph.strict_json import parse
from pqjax.graph.validate import validate
from pqjax.linear import FULL, PRIVQUANT, VARIANTS
from pqjax.ot.setup import fill_stocks_cost, set_up_cost
from pqjax.planner.clock import Clock
from pqjax.planner.cost import StepCost, node_cost, tile_cost, tiles
from pqjax.planner.presets import Preset, find_preset
from pqjax.planner.price import cheapest, pricing
from pqjax.wire.cost import Cost, message, total
from pqjax.wire.handshake import DOCUMENT_LIMIT_BYTES, plan_digest
from pqjax.wire.link import Link
from pqjax.wire.trace import Trace

COMMAND_BITS = 8
STREAM_ABOVE = (
    1 << 25
)  # stored random OTs from which on they are made layer by layer, 16 bytes each
SLOWEST_MBPS, FASTEST_MBPS = 1e-6, 1e9  # of a link to plan for: its seconds stay finite
LONGEST_RTT_MS = 1e7
MOST_CLASSES = 1 << 15  # ImageNet has 21,841 in all
STOCK_LAYER = "random ots"
BEGIN_LAYER = "begin"
REVEAL_LAYER = "reveal"


ClassNames = typing.Annotated[
    tuple[typing.Annotated[str, Length(1, 256), Printable()], ...], Length(0, MOST_CLASSES)
]


@dataclasses.dataclass(frozen=True)
class _Document:
    """What `Plan.document` holds."""

    classes: ClassNames
    format: typing.Literal[2]
    forced: typing.Annotated[Mapping[Name, Name], Length(0, MOST_NODES)]
    graph: object
    link: Link | None
    protocol: Name
    variants: typing.Annotated[Mapping[Name, Name], Length(0, MOST_NODES)]


@dataclasses.dataclass(frozen=True)
class Step:
    """One node and how it is run."""

    node: Node
    variant: str | None
    cost: StepCost


@dataclasses.dataclass(frozen=True)
class Applied:
    """A pass that was run: the whole graph's price before and after, and what it made."""

    rewrite: Pass
    before: float
    after: float
    graph: Graph


@dataclasses.dataclass(frozen=True)
class Line:
    """One layer of one phase, in the order of execution."""

    phase: str
    layer: str
    cost: Cost


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a graph is run, and exactly what it costs.

    Attributes:
      source: the graph as given; `graph` is what the preset's passes made of it.
      preset: the preset that it follows.
      link: the network it was planned for, if any.
      forced: variants the caller insisted on, by layer.
      applied: the passes that led from `source` to `graph`, and what each saved.
      streamed: whether random OTs are made where they are used and not all ahead: a large network's
        would not fit into memory. The costs of its steps contain them.
      classes: what the outputs are called, for the client to read; empty where nobody said.
    """

    source: Graph
    graph: Graph
    preset: Preset
    steps: tuple[Step, ...]
    link: Link | None = None
    forced: tuple[tuple[str, str], ...] = ()
    applied: tuple[Applied, ...] = dataclasses.field(default=(), compare=False)
    streamed: bool = False
    classes: tuple[str, ...] = ()

    @property
    def protocol(self) -> str:
        """The preset's name."""
        return self.preset.name

    @functools.cached_property
    def document(self) -> bytes:
        """The public description from which the other side makes the same plan."""
        tree = {
            "classes": self.classes,
            "format": 2,
            "forced": dict(self.forced),
            "graph": self.source.tree(),
            "link": None if self.link is None else dataclasses.asdict(self.link),
            "protocol": self.protocol,
            "variants": {s.node.name: s.variant for s in self.steps if s.variant},
        }
        return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()

    def step(self, name: str) -> Step:
        """The step that runs a node of `graph`."""
        return self._by_name[name]

    @functools.cached_property
    def _by_name(self) -> dict[str, Step]:
        return {step.node.name: step for step in self.steps}

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the document."""
        return plan_digest(self.document)

    @property
    def rots(self) -> tuple[int, int]:
        """Random OTs that one inference draws from the store, by sending rank."""
        costs = [s.cost.offline for s in self.steps] + [s.cost.online for s in self.steps]
        return total(costs).rots

    @functools.cached_property
    def schedule(self) -> tuple[Line, ...]:
        """Every layer of a first inference, setup included, with its cost."""
        begin = message(1, COMMAND_BITS)
        lines = [Line("setup", "ot", set_up_cost(self.preset.scheme))]
        lines += [
            Line("offline", BEGIN_LAYER, begin),
            Line("offline", STOCK_LAYER, fill_stocks_cost(self.preset.scheme, self.rots)),
        ]
        lines += [Line("offline", s.node.name, s.cost.offline) for s in self.steps]
        lines.append(Line("online", BEGIN_LAYER, begin))
        lines += [Line("online", s.node.name, s.cost.online) for s in self.steps]
        out = self.graph.output.out
        lines.append(Line("online", REVEAL_LAYER, message(0, out.n * out.bits)))
        return tuple(lines)

    def cost(self, phase: str | None = None, layer: str | None = None) -> Cost:
        """Bits and flows of a phase, a layer, or a whole first inference."""
        return total(
            [
                line.cost for line in self.schedule
                if (phase is None or line.phase == phase) and (layer is None or line.layer == layer)
            ]
        )  # fmt: skip

    def seconds(self, link: Link | None = None) -> float:
        """What the network alone takes of offline and online phase: bits / rate + flows * rtt / 2."""
        link = link or self.link
        if link is None:
            raise PlanError("no link given: pass one, or make the plan with link=pqjax.Link(...)")
        cost = self.cost("offline") + self.cost("online")
        return link.seconds(*cost.sent, cost.flows)

    def differences(self, trace: Trace, rank: int) -> list[str]:
        """Where a party's trace of a first inference departs from the prediction; empty if nowhere.

        Bits are compared per layer, phase and direction, clocks at the end of every layer.
        """
        found = []
        clocks = (0, 0)
        entries = iter(list(trace.entries))
        for line in self.schedule:
            clocks = line.cost.clocks(clocks)
            entry = next(entries, None)
            if entry is None:
                found.append(f"{line.phase} {line.layer}: not in the trace")
                continue
            if (entry.phase, entry.layer) != (line.phase, line.layer):
                found.append(f"{line.phase} {line.layer}: got {entry.phase} {entry.layer}")
                break
            sent, received = line.cost.sent[rank], line.cost.sent[1 - rank]
            if (entry.sent_bits, entry.received_bits) != (sent, received):
                found.append(
                    f"{line.phase} {line.layer}: sent {entry.sent_bits} and received "
                    f"{entry.received_bits} bits, predicted {sent} and {received}"
                )
            if entry.clock_after != clocks[rank]:
                found.append(
                    f"{line.phase} {line.layer}: clock {entry.clock_after}, predicted {clocks[rank]}"
                )
        return found

    def table(self, variants: bool = False) -> str:
        """Per layer: formats, variant, bits, flows and, for a link, its seconds.

        Args:
          variants: a line for every variant of a linear layer, too.
        """
        from pqjax.planner.report import table

        return table(self, variants)

    def explain(self, layer: str) -> str:
        """How one layer is run, what else it could be, and why this was chosen.

        Raises:
          PlanError: there is no such layer; names those that sound like it.
        """
        from pqjax.planner.report import explain

        return explain(self, layer)


def plan(
    graph: Graph,
    protocol: str | Preset = "pqjax",
    link: Link | None = None,
    variants: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> Plan:
    """Chooses the protocol of every layer.

    Args:
      graph: the integer network.
      protocol: a preset's name, see `pqjax.planner.presets`; or a preset of one's own, whose plans
        run with `run_local` (a served plan is found again by its preset's name).
      link: the network to plan for; bits decide without one, predicted seconds with one.
      variants: layer name to variant, where the cheapest is not wanted.
      classes: names of the outputs in their order; public, they travel with the plan.

    Raises:
      PlanError: an unknown preset, layer or variant, or names that do not fit.
      GraphError: a graph that does not hold together.
    """
    return _planned(graph, protocol, link, variants, classes, Clock(None))


def _planned(
    graph: Graph,
    protocol: str | Preset,
    link: Link | None,
    variants: Mapping[str, str] | None,
    classes: Sequence[str] | None,
    clock: Clock,
) -> Plan:
    """`plan`, unless it takes too long."""
    graph.check_bounds()
    known = validate(graph)
    preset = find_preset(protocol) if isinstance(protocol, str) else protocol
    if link is not None:
        _check_link(link)
    forced = dict(variants or {})
    lowered, applied = rewrite(graph, preset, link, clock)
    clock.check()
    validate(lowered, given=known)
    linear = {node.name: None for node in lowered if isinstance(node, (Conv, Dense))}
    for name, variant in forced.items():
        if name not in linear:
            raise PlanError(f"no linear layer named {shown(name)}; there are {listed(linear)}")
        if variant not in VARIANTS:
            raise PlanError(
                f"{name}: unknown variant {shown(variant)}; known: {', '.join(VARIANTS)}"
            )
        if variant not in _possible(preset):
            raise PlanError(
                f"{name}: variant {variant!r} does not go with protocol {preset.name!r}, which takes "
                f"{', '.join(_possible(preset))}"
            )
    steps = []
    for node in lowered:
        clock.check()
        variant = forced.get(node.name)
        if isinstance(node, (Conv, Dense)) and variant is None:
            variant = cheapest(lowered, node, preset, link)
        steps.append(Step(node, variant, node_cost(lowered, node, preset, variant)))
    drawn = total([s.cost.offline for s in steps] + [s.cost.online for s in steps]).rots
    streamed = sum(drawn) > STREAM_ABOVE
    if streamed:
        clock.check()
        steps = [dataclasses.replace(s, cost=_with_ots(lowered, s, preset)) for s in steps]
    asked = tuple(sorted(forced.items()))
    names = check_class_names(graph, classes) if classes else ()
    made = Plan(graph, lowered, preset, tuple(steps), link, asked, applied, streamed, names)
    if len(made.document) > DOCUMENT_LIMIT_BYTES:
        raise PlanError(
            f"a plan's document has at most {DOCUMENT_LIMIT_BYTES} bytes, this one "
            f"{len(made.document)}: use shorter names"
        )
    return made


def _check_link(link: Link) -> None:
    if not SLOWEST_MBPS <= link.mbps <= FASTEST_MBPS or link.rtt_ms > LONGEST_RTT_MS:
        raise PlanError(
            f"a link to plan for has {SLOWEST_MBPS:g} to {FASTEST_MBPS:g} Mbit/s and a round trip of at "
            f"most {LONGEST_RTT_MS:g} ms, got {link}"
        )


def check_weights(made: Plan, weights: Weights) -> None:
    """Checks that a plan's widths hold with these weights: the graph's as written and as it is run.

    Raises:
      GraphError: weights of another network, or a width that they show to be too small.
    """
    validate(made.graph, weights, given=validate(made.source, weights))


def check_class_names(graph: Graph, names: Sequence[str]) -> tuple[str, ...]:
    """Names of a graph's outputs, checked.

    Raises:
      PlanError: not strings, not printable, or not as many as the network tells classes apart.
    """
    if not isinstance(names, (list, tuple)):
        raise PlanError(f"class names are a list of strings, got {shown(names)}")
    try:
        check(ClassNames, tuple(names))
    except InputError as error:
        raise PlanError(f"class names are a list of strings: {error}") from error
    last = graph.output
    count = graph.source(last).n if isinstance(last, ArgMax) else last.out.n
    if len(names) != count:
        raise PlanError(f"the network tells {count} classes apart, but {len(names)} are named")
    return tuple(names)


def with_ots(cost: Cost, preset: Preset) -> Cost:
    """A cost with the random OTs that it draws made just before."""
    made = fill_stocks_cost(preset.scheme, cost.rots) + cost
    return dataclasses.replace(made, rots=(0, 0))


def _with_ots(graph: Graph, step: Step, preset: Preset) -> StepCost:
    """A streamed step: the OTs of every tile, then the tile."""
    parts = tiles(step.node)
    online = step.cost.online
    if len(parts) > 1:
        costs = {
            n: with_ots(tile_cost(graph, step.node, preset, n), preset)
            for n in dict.fromkeys(parts)
        }
        online = total([costs[n] for n in parts])
    else:
        online = with_ots(online, preset)
    return StepCost(with_ots(step.cost.offline, preset), online)


def rewrite(
    graph: Graph, preset: Preset, link: Link | None, clock: Clock
) -> tuple[Graph, tuple[Applied, ...]]:
    """Runs a preset's passes; what each did to the price."""
    price = clock.watch(pricing(preset, link))
    applied = []
    before = price_of(graph, [node.name for node in graph], price)
    for each in preset.passes:
        graph = each(graph, price)
        after = price_of(graph, [node.name for node in graph], price)
        applied.append(Applied(each, before, after, graph))
        before = after
    return graph, tuple(applied)


def _possible(preset: Preset) -> tuple[str, ...]:
    """Variants that a preset's engine can run, wanted or not."""
    return FULL if preset.variants == FULL else PRIVQUANT


def read_plan(document: bytes, deadline_s: float | None = None) -> Plan:
    """Makes the plan again that a document describes. The document may be anything, from anyone.

    Args:
      document: what `Plan.document` wrote.
      deadline_s: how long that may take; None for as long as it likes.

    Raises:
      PlanError: the document is not one, takes too long, or this version would plan it differently.
    """
    try:
        made = _replanned(document, Clock(deadline_s))
    except PlanError:
        raise
    except PqjaxError as error:
        raise PlanError(f"not a plan: {error}") from error
    except Exception as error:
        # Not foreseen, but a stranger's document never gets further than here.
        raise PlanError(f"not a plan: {type(error).__name__} in planning it") from error
    if made.document != document:
        raise PlanError(
            "this version of pqjax plans that graph differently; use the same on both sides"
        )
    return made


def _replanned(document: bytes, clock: Clock) -> Plan:
    tree = read(_Document, parse(document, DOCUMENT_LIMIT_BYTES))
    graph = Graph.from_tree(tree.graph)
    clock.check()
    return _planned(graph, tree.protocol, tree.link, tree.forced, tree.classes, clock)
