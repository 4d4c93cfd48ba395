"""From a graph to a plan: the protocol of every layer, what it costs, and what both sides agree on.

A plan is public. Its document is all that the client needs; its digest is compared before anything
else is said.
"""

import dataclasses
import functools
import typing
from collections.abc import Collection, Mapping, Sequence

from pqjax.errors import InputError, PlanError, listed, shown
from pqjax.graph.bounds import MOST_ELEMENTS
from pqjax.graph.guard import guarded
from pqjax.graph.ir import ArgMax, Graph, Node, Weights
from pqjax.graph.rewrite import Pass, price_of
from pqjax.graph.validate import Interval, validate
from pqjax.layers import Setting, StepCost, Task, choosing_rule, rule_of, task_of
from pqjax.linear.choice import Choice
from pqjax.linear.keys import Secrets, keys_cost
from pqjax.linear.way import unknown
from pqjax.ot.source import Need, Pool
from pqjax.planner.clock import Clock
from pqjax.planner.presets import Preset, find_preset, with_ot
from pqjax.planner.price import Aim, Goal, cheapest, cheapest_together, price_of_choice, pricing
from pqjax.schema import Length, Printable, check
from pqjax.version import VERSION
from pqjax.wire.cost import Cost, message, total
from pqjax.wire.handshake import DOCUMENT_LIMIT_BYTES, plan_digest
from pqjax.wire.link import Link
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.trace import Trace
from pqjax.wire.work import Rates

COMMAND_BITS = 8
PLACE_BITS = 16  # of the layer whose hint is to come first
HINTS_BITS = 384  # what the server calls its hints: a digest, and the seed of public polynomials
SLOWEST_MBPS, FASTEST_MBPS = 1e-6, 1e9  # of a link to plan for: its seconds stay finite
LONGEST_RTT_MS = 1e7
MOST_INFERENCES = 1 << 40  # of a client, to plan for
MOST_BATCH = 1 << 12
MOST_CLASSES = 1 << 15  # ImageNet has 21,841 in all
STOCK_LAYER = "random ots"
BEGIN_LAYER = "begin"
HINTS_LAYER = "hints"
KEYS_LAYER = "keys"
REVEAL_LAYER = "reveal"
EMPTY: Pool = (0, 0)

OBJECTIVES = ("bytes", "online", "total")
_ClassName = typing.Annotated[str, Length(1, 256), Printable()]
ClassNames = typing.Annotated[tuple[_ClassName, ...], Length(0, MOST_CLASSES)]


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


def plan(
    graph: Graph,
    protocol: str | Preset = "pqjax",
    link: Link | None = None,
    variants: Mapping[str, str | Choice] | None = None,
    classes: Sequence[str] | None = None,
    inferences: int | None = None,
    ot: str | None = None,
    objective: str | None = None,
    rates: Rates = NOMINAL,
    batch: int | None = None,
    shorter: int | None = None,
) -> Plan:
    """Chooses the protocol of every layer.

    Args:
      graph: the integer network.
      protocol: a preset's name, see `pqjax.planner.presets`; or a preset of one's own.
      link: the network to plan for; without an objective bits decide without one, and seconds of the
        messages alone with one.
      variants: layer name to variant, or to a whole choice, where the cheapest is not wanted.
      classes: names of the outputs in their order; public, they travel with the plan.
      inferences: how many a client is expected to make: what it gets once is worth the more the more
        there are. As the preset says, if not given: one.
      ot: "softspoken" or "silent", where the source of OTs is not to be the preset's.
      objective: what is to be least: "bytes", or seconds of computing and messages together, in the
        "online" phase or in "total", on the link or loopback.
      rates: what work takes the machine, see `pqjax calibrate`.
      batch: how many inputs an inference answers: all costs and seconds, and `inferences`, are of as
        many at a time. As the preset says, if not given: one.
      shorter: what clients scale a picture's shorter side to before they cut its centre; public.

    Raises:
      PlanError: an unknown preset, layer, variant or source, names that do not fit, no inferences, a
        side of pictures that is none, or a batch of none, or of more than a tensor's elements can be.
      GraphError: a graph that does not hold together.
    """
    graph.check_bounds()
    for node in graph:
        if node.out.guard:
            raise node.error("guard bits are the planner's to give")
    known = validate(graph)
    preset = find_preset(protocol, ot) if isinstance(protocol, str) else with_ot(protocol, ot)
    if batch is not None:
        preset = dataclasses.replace(preset, batch=_whole("batch", batch, MOST_BATCH))
    if inferences is not None:
        many = _whole("inferences", inferences, MOST_INFERENCES)
        preset = dataclasses.replace(preset, inferences=many)
    _check_batch(graph, preset.batch)
    if link is not None:
        check_link(link)
        if preset.source.has_store:
            forms = dataclasses.replace(preset.forms, flow_bits=link.flow_bits)
            preset = dataclasses.replace(preset, forms=forms)
    goal = _goal(objective, link, rates)
    lowered, applied = rewrite(graph, preset, goal)
    forced = _forced(lowered, preset, variants or {}, goal)
    choices = cheapest_together(lowered, preset, forced, goal)
    lowered = _guarded(lowered, preset, choices, goal, forced)
    ranges = {
        name: known[name]
        for name in (lowered.input.name, *choices)
        if name in graph
        and graph[name].out != dataclasses.replace(lowered[name].out, guard=0)
        and name in known
    }
    names = check_class_names(graph, classes) if classes else ()
    if shorter is not None:
        check_shorter(graph, shorter)
    made = assembled(lowered, preset, choices, ranges, Clock(None), link, goal)
    made = dataclasses.replace(
        made,
        goal=goal,
        rates=rates,
        source=graph,
        classes=names,
        shorter=shorter,
        forced=frozenset(forced),
        applied=applied,
    )
    if len(made.document) > DOCUMENT_LIMIT_BYTES:
        raise PlanError(
            f"a plan's document has at most {DOCUMENT_LIMIT_BYTES} bytes, this one "
            f"{len(made.document)}: use shorter names"
        )
    return made


def assembled(
    graph: Graph,
    preset: Preset,
    choices: Mapping[str, Choice],
    ranges: Mapping[str, Interval],
    clock: Clock,
    link: Link | None,
    goal: Goal = None,
) -> Plan:
    """The plan that runs a graph, which passes have made, by these choices: one a linear layer.

    A preset whose source chooses gets the one that this plan is best served by.

    Raises:
      PlanError: a choice does not fit its layer.
      GraphError: the graph does not hold together.
    """
    validate(graph, given=ranges)
    _check_batch(graph, preset.batch)
    at, tasks = preset.setting(), []
    for node in graph:
        clock.check()
        task = task_of(graph, node, at, choices.get(node.name))
        if task.choice is not None:
            rule = choosing_rule(node)
            why = rule.unfit(task) or rule.misguarded(task)
            if preset.exact and not rule.exact(task.choice):
                why = why or f"may be off by one, and protocol {preset.name!r} is exact"
            if why is not None:
                raise PlanError(f"{node.name}: variant {task.choice.variant!r} {why}")
        tasks.append(task)
    steps = tuple(Step(task, rule_of(task.node).cost(at, task)) for task in tasks)
    drawn, above = total(step.cost.both for step in steps).rots, at.tuning.stream_above
    # A client may make all its inferences in sessions of one.
    timed = isinstance(goal, Aim) and not goal.online
    rates = goal.rates if isinstance(goal, Aim) else NOMINAL
    source = at.source.chosen(Need(drawn, above, 1, link, rates, timed))
    streamed = source.stored(drawn, streamed=False) > above
    preset = dataclasses.replace(preset, source=source)
    return Plan(graph, graph, preset, steps, ranges, link, streamed=streamed)


def _goal(objective: str | None, link: Link | None, rates: Rates) -> Goal:
    if objective is None:
        return link
    if objective not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise PlanError(f"unknown objective {shown(objective)}; known: {known}")
    return None if objective == "bytes" else Aim(objective == "online", link, rates)


def _guarded(
    graph: Graph, preset: Preset, choices: dict[str, Choice], goal: Goal, forced: Collection[str]
) -> Graph:
    """The graph with the guard bits that the choices leave; they are made anew where there are several.

    More bits take more room: where there is not enough, a layer is computed in another way.
    """
    at, settled = preset.setting(), set(forced)
    while True:
        guards = {name for name, c in choices.items() if choosing_rule(graph[name]).guards(c)}
        made = guarded(graph, guards)
        tight = [name for name in choices if made[name].out.guard > 1 and name not in settled]
        if not tight:
            return made
        for name in tight:
            choices[name] = cheapest(preset, task_of(made, made[name], at), goal)
            settled.add(name)


def _forced(
    graph: Graph, preset: Preset, wishes: Mapping[str, str | Choice], goal: Goal
) -> dict[str, Choice]:
    """What the caller insists on, as choices."""
    every = {node.name: None for node in graph if node.multiplies}
    found = {}
    for name, wish in wishes.items():
        if name not in every:
            raise PlanError(f"no linear layer named {shown(name)}; there are {listed(every)}")
        rule, like = choosing_rule(graph[name]), sum(preset.ways(graph[name]), ())
        meant = (
            [wish] if isinstance(wish, Choice)
            else [dataclasses.replace(choice, variant=wish) for choice in like]
        )  # fmt: skip
        strange = [unknown(dataclasses.asdict(choice)) for choice in meant]
        meant = [choice for choice, why in zip(meant, strange, strict=True) if why is None]
        if not meant:
            what, value, _ = next(why for why in strange if why is not None)
            known = dict.fromkeys(x for why in strange if why for x in why[2])
            raise PlanError(f"{name}: unknown {what} {shown(value)}; known: {', '.join(known)}")
        task = task_of(graph, graph[name], preset.setting())
        whys = {choice: rule.unfit(dataclasses.replace(task, choice=choice)) for choice in meant}
        fits = [choice for choice, why in whys.items() if why is None]
        if not fits:
            raise PlanError(
                f"{name}: variant {str(wish)!r} does not go with protocol {preset.name!r}: it "
                f"{whys[meant[-1]]}"
            )
        options = rule.options(dataclasses.replace(task, choice=fits[0]), preset.inferences)
        if fits[0].packing is not None:
            options = fits[:1]
        found[name] = min(options, key=lambda c: price_of_choice(preset, task, c, goal))
    return found


def _whole(name: str, wish: object, most: int) -> int:
    if type(wish) is not int or not 1 <= wish <= most:
        raise PlanError(f"{name}: 1 to {most} expected, got {shown(wish)}")
    return wish


def _check_batch(graph: Graph, batch: int) -> None:
    """A batch's tensors are bounded as one input's are: whoever sent the plan."""
    largest = max(graph, key=lambda node: node.out.n)
    if batch * largest.out.n > MOST_ELEMENTS and batch > 1:
        raise PlanError(
            f"a batch's tensors have at most {MOST_ELEMENTS} elements, {batch} of {largest.name} have "
            f"{batch * largest.out.n}: plan for at most {max(1, MOST_ELEMENTS // largest.out.n)} inputs"
        )


def check_link(link: Link) -> None:
    """Refuses a link on which seconds would not be finite."""
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
    known = validate(made.source, weights) if made.source is not made.graph else made.ranges
    validate(made.graph, weights, given=known)


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


def check_shorter(graph: Graph, shorter: int) -> None:
    """Checks what a picture's shorter side is scaled to before it is cut.

    Raises:
      PlanError: less than the input's, more than twice as much, or the input is no picture.
    """
    shape = graph.input.out.shape
    least = min(shape[:2]) if len(shape) == 3 else 0
    if type(shorter) is not int or not least <= shorter <= 2 * least:
        raise PlanError(
            f"pictures' shorter side: {least}..{2 * least} expected, for an input {shape}, got "
            f"{shown(shorter)}"
        )


def rewrite(graph: Graph, preset: Preset, goal: Goal) -> tuple[Graph, tuple[Applied, ...]]:
    """Runs a preset's passes; what each did to the price."""
    price, applied = pricing(preset, goal), []
    before = price_of(graph, [node.name for node in graph], price)
    for each in preset.passes:
        graph = each(graph, price)
        after = price_of(graph, [node.name for node in graph], price)
        applied.append(Applied(each, before, after, graph))
        before = after
    return graph, tuple(applied)
