"""A plan: how every layer runs, what that costs, and what both sides agree on.

A plan is public. Its document is all that the client needs; its digest is compared before anything
else is said.
"""

import dataclasses
import functools
from collections.abc import Mapping

from pqjax.errors import PlanError
from pqjax.graph.ir import Graph, Node, Weights
from pqjax.graph.rewrite import Pass
from pqjax.graph.validate import Interval, validate
from pqjax.layers import Setting, StepCost, Task, choosing_rule
from pqjax.linear.keys import Secrets, keys_cost
from pqjax.ot.source import Pool
from pqjax.planner.presets import Preset
from pqjax.planner.price import Goal
from pqjax.version import VERSION
from pqjax.wire.cost import Cost, message, total
from pqjax.wire.handshake import plan_digest
from pqjax.wire.link import Link
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.trace import Trace
from pqjax.wire.work import Rates

COMMAND_BITS = 8
PLACE_BITS = 16  # of the layer whose hint is to come first
HINTS_BITS = 384  # what the server calls its hints: a digest, and the seed of public polynomials
STOCK_LAYER = "random ots"
BEGIN_LAYER = "begin"
HINTS_LAYER = "hints"
KEYS_LAYER = "keys"
REVEAL_LAYER = "reveal"
EMPTY: Pool = (0, 0)


@dataclasses.dataclass(frozen=True)
class Step:
    """One node, how it is run, and what that costs."""

    task: Task
    cost: StepCost

    @property
    def node(self) -> Node:
        """The node."""
        return self.task.node

    @property
    def variant(self) -> str | None:
        """The name of a linear layer's choice."""
        return None if self.task.choice is None else self.task.choice.title


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
      source: the graph as given; at a client, who is told no more, the one that is run.
      graph: the one that is run: what the preset's passes made of it.
      preset: the preset that it follows.
      steps: every node of `graph` and how it is run.
      ranges: where accumulators and the input lie whose formats a pass has widened.
      link: the network it was planned for, if any.
      goal: what was to be least; and rates, by which its seconds are predicted.
      classes: what the outputs are called, for the client to read; empty where nobody said.
      shorter: rows or columns that clients scale a picture's shorter side to before they cut its centre;
        None: as many as the input has.
      version: of the pqjax that made it.
      streamed: whether random OTs are made in the phase that draws them, and not all ahead: a large
        network's would not fit into memory.
      forced: layers whose choice the caller insisted on.
      applied: the passes that led from `source` to `graph`, and what each saved.
    """

    source: Graph = dataclasses.field(compare=False)
    graph: Graph
    preset: Preset
    steps: tuple[Step, ...]
    ranges: Mapping[str, Interval]
    link: Link | None = None
    classes: tuple[str, ...] = ()
    shorter: int | None = None
    version: str = VERSION
    streamed: bool = False
    forced: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)
    applied: tuple[Applied, ...] = dataclasses.field(default=(), compare=False)
    goal: Goal = dataclasses.field(default=None, compare=False)
    rates: Rates = dataclasses.field(default=NOMINAL, compare=False)

    @property
    def protocol(self) -> str:
        """The preset's name."""
        return self.preset.name

    @property
    def batch(self) -> int:
        """How many inputs an inference answers."""
        return self.preset.batch

    @property
    def setting(self) -> Setting:
        """What holds for every layer."""
        return self.preset.setting()

    @functools.cached_property
    def document(self) -> bytes:
        """The public description by which the other side runs the same plan."""
        from pqjax.planner.document import write

        return write(self)

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

    @functools.cached_property
    def orders(self) -> tuple[Pool, Pool]:
        """Random OTs that are ordered as an inference's two phases begin, by sending rank."""
        offline, online = (
            total(getattr(s.cost, phase) for s in self.steps) for phase in ("offline", "online")
        )
        return (offline.rots, online.rots) if self.streamed else ((offline + online).rots, EMPTY)

    @functools.cached_property
    def rots(self) -> Pool:
        """Random OTs that one inference draws from the store, by sending rank."""
        return total(step.cost.both for step in self.steps).rots

    @property
    def stored(self) -> int:
        """Random OTs that a party holds at most."""
        return self.preset.source.stored(self.rots, self.streamed)

    @functools.cached_property
    def hinted(self) -> tuple[Step, ...]:
        """The steps that a client needs a hint for, which it gets once."""
        return tuple(step for step in self.steps if step.cost.install.bits)

    @functools.cached_property
    def secrets(self) -> Secrets:
        """What an inference takes of them."""
        tasks = (s.task for s in self.steps if s.task.choice is not None)
        return Secrets.of_all(choosing_rule(task.node).secrets(task) for task in tasks)

    def schedule(self, inference: int = 0, stored: int = 0) -> tuple[Line, ...]:
        """Every layer of one inference of a session, with its cost.

        Inferences count from 0. The first has the setup, and the installation of a client that has no
        hints yet; what one leaves in store of random OTs is there for the next. If the first `stored`
        were prepared in an earlier session, and kept, they have an online phase alone, and the one after
        them begins as a session does, when it is asked to.
        """
        if inference < stored:
            return tuple(x for x in self._lines(EMPTY)[0] if x.phase == "online")
        if stored:
            begin = Line("setup", BEGIN_LAYER, message(1, COMMAND_BITS))
            lines = self.schedule(inference - stored)
            return (begin, *lines) if inference == stored else lines
        (lines, pool), before = self._lines(EMPTY), EMPTY
        for _ in range(inference):
            if pool == before:
                break  # and so are all that follow
            before = pool
            lines, pool = self._lines(pool)
        return lines if inference else (*self._first_lines, *lines)

    @functools.cached_property
    def _first_lines(self) -> tuple[Line, ...]:
        setup = Line("setup", "ot", self.preset.source.set_up_cost())
        if not self.hinted:
            return (setup,)
        return (
            setup,
            Line("setup", HINTS_LAYER, message(0, HINTS_BITS)),
            Line("install", BEGIN_LAYER, message(1, COMMAND_BITS + PLACE_BITS)),
            *(Line("install", s.node.name, s.cost.install) for s in self.hinted),
        )

    def _lines(self, pool: Pool) -> tuple[tuple[Line, ...], Pool]:
        """One inference's lines with so many random OTs in store, and those left then."""
        if pool not in self._lines_made:
            begin, out = message(1, COMMAND_BITS), self.graph.output.out
            stock, left = self.preset.source.fill(pool, self.orders[0])
            more, left = self.preset.source.fill(left, self.orders[1])
            named = [(s.node.name, s.cost) for s in self.steps]
            lines = (
                Line("offline", BEGIN_LAYER, begin),
                Line("offline", STOCK_LAYER, stock),
                *(
                    [Line("offline", KEYS_LAYER, keys)]
                    if (keys := keys_cost(self.secrets)).bits
                    else []
                ),
                *(Line("offline", name, cost.offline) for name, cost in named),
                Line("online", BEGIN_LAYER, begin),
                *([Line("online", STOCK_LAYER, more)] if self.streamed else []),
                *(Line("online", name, cost.online) for name, cost in named),
                Line("online", REVEAL_LAYER, message(0, self.batch * out.n * out.bits)),
            )
            self._lines_made[pool] = lines, left
        return self._lines_made[pool]

    @functools.cached_property
    def _lines_made(self) -> dict[Pool, tuple[tuple[Line, ...], Pool]]:
        return {}

    def cost(self, phase: str | None = None, layer: str | None = None) -> Cost:
        """Bits and flows of a phase, a layer, or a whole first inference."""
        lines = [x for x in self.schedule() if phase in (None, x.phase)]
        return total(x.cost for x in lines if layer in (None, x.layer))

    def seconds(self, link: Link | None = None) -> float:
        """What the network alone takes of offline and online phase: bits / rate + flows * rtt / 2."""
        link = link or self.link
        if link is None:
            raise PlanError("no link given: pass one, or make the plan with link=pqjax.Link(...)")
        cost = self.cost("offline") + self.cost("online")
        return link.seconds(*cost.sent, cost.flows)

    def predicted(self, link: Link | None = None, inference: int = 1) -> dict[str, float]:
        """Seconds that both parties take for each phase of an inference, of computing and messages.

        By `rates`, on a link; on that of the plan or, where it has none, loopback if none is given. A
        first inference, 0, has the installation; nobody predicts the setup.
        """
        from pqjax.planner.forecast import phases

        return phases(self, link, inference)

    def differences(self, trace: Trace, rank: int) -> list[str]:
        """Where a party's trace departs from the prediction; empty if nowhere.

        The trace is of an inference (`Result.trace`) or of a session, at that rank. Of a session that
        has said goodbye, phases that were never asked for are not missed.
        """
        from pqjax.planner.comparison import differences

        return differences(self, trace, rank)

    def table(self, variants: bool = False) -> str:
        """Per layer: formats, variant, bits, flows and, for a link, its seconds.

        With `variants`, a line for every variant of a linear layer, too.
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


def check_weights(made: Plan, weights: Weights) -> None:
    """Checks that a plan's widths hold with these weights: the graph's as written and as it is run.

    Raises:
      GraphError: weights of another network, or a width that they show to be too small.
    """
    known = validate(made.source, weights) if made.source is not made.graph else made.ranges
    validate(made.graph, weights, given=known)
