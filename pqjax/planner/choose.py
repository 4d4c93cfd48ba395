"""From a graph to a plan: passes, then the protocol of every layer and the source of its OTs."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from pqjax.errors import PlanError, listed, shown
from pqjax.graph.guard import guarded
from pqjax.graph.ir import Graph
from pqjax.graph.rewrite import price_of
from pqjax.graph.validate import Interval, validate
from pqjax.layers import choosing_rule, rule_of, task_of
from pqjax.linear.choice import Choice
from pqjax.linear.way import unknown
from pqjax.ot.source import Need
from pqjax.planner.clock import Clock
from pqjax.planner.plan import Applied, Plan, Step
from pqjax.planner.presets import Preset, find_preset, with_ot
from pqjax.planner.price import Aim, Goal, cheapest, cheapest_together, price_of_choice, pricing
from pqjax.planner.wishes import (
    MOST_BATCH,
    MOST_INFERENCES,
    check_batch,
    check_class_names,
    check_link,
    check_shorter,
    goal_of,
    whole,
)
from pqjax.wire.cost import total
from pqjax.wire.handshake import DOCUMENT_LIMIT_BYTES
from pqjax.wire.link import Link
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.work import Rates


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
        preset = dataclasses.replace(preset, batch=whole("batch", batch, MOST_BATCH))
    if inferences is not None:
        many = whole("inferences", inferences, MOST_INFERENCES)
        preset = dataclasses.replace(preset, inferences=many)
    check_batch(graph, preset.batch)
    if link is not None:
        check_link(link)
        if preset.source.has_store:
            forms = dataclasses.replace(preset.forms, flow_bits=link.flow_bits)
            preset = dataclasses.replace(preset, forms=forms)
    goal = goal_of(objective, link, rates)
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
    check_batch(graph, preset.batch)
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
