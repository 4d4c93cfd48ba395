"""A plan in words and columns: all layers at a glance, or one of them in full."""

import dataclasses
import difflib
from collections.abc import Iterable

from pqjax.crypto.crhash import BOUND_BITS, KEY_HASHES
from pqjax.errors import PlanError, listed, shown
from pqjax.graph.ir import Graph, Linear, Node, TensorType
from pqjax.layers import choosing_rule, rule_of
from pqjax.layers.rule import Elementwise
from pqjax.linear.choice import Choice
from pqjax.ot.source import Source
from pqjax.planner.plan import KEYS_LAYER, STOCK_LAYER, Plan, Step
from pqjax.planner.price import Aim, StepCost, fitting, priced, pricing, task_cost
from pqjax.wire.timeline import Timeline

Row = tuple[str, ...]


def security(source: Source) -> str:
    """What a plan's answers rest on, in a line."""
    bits = source.delta_bits
    hashes = BOUND_BITS - (128 - bits)
    return (
        f"security: semi-honest, {bits} bits computational by {source.assumes}; hashes {hashes} bits "
        f"against many targets (a key of the session's own per direction, {KEY_HASHES} hashes each)"
    )


def exactness(plan: Plan) -> str:
    """Whether answers are the network's own, in a line."""
    if plan.preset.exact:
        return "answers: those of the integer network, bit for bit"
    return (
        "answers: may differ from the integer network's, as sums of linear layers may be off by one"
    )


def format_of(out: TensorType) -> str:
    """A number format in a few characters: u4@3 is unsigned, s16@8 signed, +8@3 known positive.

    s16+1@8 has a guard bit.
    """
    sign = "u" if not out.signed else "+" if out.nonnegative else "s"
    guard = f"+{out.guard}" if out.guard else ""
    return f"{sign}{out.bits}{guard}@{out.scale}"


def table(plan: Plan, variants: bool = False) -> str:
    """One line per step; see `Plan.table`."""
    rows = _rows(plan, "layer", plan.steps, variants)
    for layer in (STOCK_LAYER, KEYS_LAYER):
        cost = StepCost(plan.cost("offline", layer))
        if cost.bits:
            figures = dict(_figures(plan, cost), **{"stored OTs": ""})
            rows.append((layer, "", "", "", *figures.values()))
    offline, online = plan.cost("offline"), plan.cost("online")
    sums = dict(_figures(plan, StepCost(offline, online, plan.cost("install"))))
    sums |= {"stored OTs": str(sum(plan.rots))}
    seconds = plan.predicted(inference=0)
    sums |= {f"{phase} s": f"{seconds[phase]:.3f}" for phase in ("offline", "online")}
    of = "total" if plan.batch == 1 else f"total of {plan.batch} inputs"
    rows.append((of, "", "", "", *sums.values()))
    return _columns(rows, left=4)


def _rows(plan: Plan, first: str, steps: Iterable[Step], variants: bool = False) -> list[Row]:
    """A header and a row a step; with `variants` one for every choice that it could have, too."""
    rows: list[Row] = [(first, "kind", "formats", "variant", *_figures(plan, StepCost()))]
    for step in steps:
        node, task = step.node, step.task
        source = "" if not node.sources else f"{format_of(plan.graph.source(node))} -> "
        words = node.name, node.kind, source + format_of(node.out), step.variant or ""
        rows.append((*words, *_figures(plan, step.cost).values()))
        for choice in fitting(plan.preset, task) if variants and task.choice is not None else ():
            if choice != task.choice:
                figures = _figures(plan, _cost_of(plan, step, choice)).values()
                rows.append(("", "", "", f"({choice.title})", *figures))
    return rows


def explain(plan: Plan, layer: str) -> str:
    """One layer in full; see `Plan.explain`."""
    names = [node.name for node in plan.source]
    steps = [s for s in plan.steps if belongs(s.node.name, layer)]
    if layer not in names and not steps:
        near = difflib.get_close_matches(layer, names, 3, 0.4) or names
        raise PlanError(f"no layer named {shown(layer)}; did you mean {listed(near)}?")
    parts = [_headline(plan, layer, names)]
    if steps:
        parts.append("Runs as\n" + _columns(_rows(plan, "step", steps), left=4))
    else:
        parts.append("Takes no step of its own: a pass has made it part of another layer.")
    parts += [_choice(plan, s) for s in steps if s.task.choice is not None]
    parts += [text for s in steps if (text := _tiles(plan, s))]
    if not plan.preset.exact:
        parts.append(exactness(plan))
    changes = _changes(plan, layer)
    if changes:
        parts.append("Passes that changed it\n" + changes)
    return "\n\n".join(parts)


def _headline(plan: Plan, layer: str, names: list[str]) -> str:
    if layer not in names:
        return f"{layer}, a step of protocol {plan.protocol}"
    node = plan.source[layer]
    tensors = [plan.source.source(node), node.out] if node.sources else [node.out]
    text = f"{layer}: {node.kind}, " + " -> ".join(f"{format_of(x)} {x.shape}" for x in tensors)
    if isinstance(node, Linear):
        text += f", {node.weight_bits}-bit weights"
        if node.square_bits is not None:
            text += f" in filters of norm at most {2 ** (node.square_bits / 2):.1f}"
    return f"{text}, protocol {plan.protocol}" if node.sources else text


def _tiles(plan: Plan, step: Step) -> str:
    """Why an element-wise step takes its flows several times."""
    rule = rule_of(step.node)
    tiles = rule.tiles(plan.setting, step.task) if isinstance(rule, Elementwise) else []
    if len(tiles) < 2:
        return ""
    return (
        f"{step.node.name} runs in {len(tiles)} tiles, one after the other: the plan allows "
        f"{plan.setting.tuning.tile_elements} elements at a time, and there are {step.task.elements}."
    )


def _cost_of(plan: Plan, step: Step, choice: Choice) -> StepCost:
    return task_cost(plan.setting, dataclasses.replace(step.task, choice=choice))


def _choice(plan: Plan, step: Step) -> str:
    """Every way of multiplying that fits a layer, and why one was taken."""
    chosen, fits = step.task.choice, fitting(plan.preset, step.task)
    assert chosen is not None
    rule = choosing_rule(step.node)
    source = plan.preset.source
    prices = {c: priced(_cost_of(plan, step, c), plan.preset, plan.goal) for c in fits}
    kinds: dict[str, int] = dict.fromkeys((*rule.parts, "OTs"), 0)
    found = []
    for choice in dict.fromkeys((*fits, chosen)):
        cost = _cost_of(plan, step, choice)
        parts = rule.by_part(plan.setting, dataclasses.replace(step.task, choice=choice))
        each = {name: part.bits for phase in parts for name, part in phase.items()}
        each["OTs"] = source.share(cost.both.rots).bits
        for name, bits in each.items():
            kinds[name] += bits
        figures, mark = _figures(plan, cost), "<- chosen" if choice == chosen else ""
        seconds = figures["offline s"], figures["online s"]
        found.append((choice.title, each, figures["flows"], *seconds, mark))
    used = [name for name, bits in kinds.items() if bits]
    rows: list[Row] = [
        ("variant", *(f"{name} MiB" for name in used), "flows", "offline s", "online s", "")
    ]
    for title, each, *rest in found:
        rows.append((title, *(_mib(each.get(name, 0)) for name in used), *rest))
    unit = goal_unit(plan)
    if step.node.name in plan.forced:
        why = f"{chosen}: asked for by the caller."
    elif len(prices) == 1:
        why = f"{chosen}: the only one that protocol {plan.protocol} has."
    else:
        # Choices that need more keys are dearer for the whole plan, whatever the layer itself takes.
        secrets = {c: rule.secrets(dataclasses.replace(step.task, choice=c)) for c in fits}
        rest = [prices[c] for c in fits if c != chosen and secrets[c].within(plan.secrets)]
        least, own = min(rest, default=0.0), prices.get(chosen, 0.0)
        why = f"{chosen}: fewest {unit}"
        if min(prices.values()) < own:
            why += " with the keys that all layers share"
        why += (
            f"; the next best takes {least / max(own, 1e-12):.2f} times as many." if rest else "."
        )
    return f"{rule.describe(step.task)}\n{_columns(rows, left=1)}\nChosen: {why}"


def _changes(plan: Plan, layer: str) -> str:
    """Passes after which the layer's steps differ, with their bits before and after."""
    price, timed = pricing(plan.preset, plan.goal), plan.goal is not None
    unit = "s" if timed else "MiB"
    rows: list[Row] = []
    graph = plan.source
    for applied in plan.applied:
        before, after = _of_layer(graph, layer), _of_layer(applied.graph, layer)
        if before != after:
            sides = (graph, before), (applied.graph, after)
            costs = [sum(price(g, node) for node in nodes) for g, nodes in sides]
            texts = [f"{c:.3f}" if timed else _mib(int(c)) for c in costs]
            kinds = " + ".join(n.kind for n in after) or "nothing"
            made, change = applied.rewrite, f"{texts[0]} -> {texts[1]} {unit}"
            rows.append((made.name, change, kinds, made.identity))
        graph = applied.graph
    return _columns(rows, left=4) if rows else ""


def _of_layer(graph: Graph, layer: str) -> list[Node]:
    return [node for node in graph if belongs(node.name, layer)]


def belongs(name: str, layer: str) -> bool:
    """Whether a step was made of a layer of the graph as given."""
    return name == layer or name.startswith(f"{layer}.")


def _figures(plan: Plan, cost: StepCost) -> dict[str, str]:
    """A cost by the heads of its columns; what clients get once only where they get anything."""
    both, line = cost.both, Timeline(plan.link, plan.rates)
    return {
        **({"install MiB": _mib(cost.install.bits)} if plan.hinted else {}),
        "offline MiB": _mib(cost.offline.bits),
        "online MiB": _mib(cost.online.bits),
        "stored OTs": str(sum(both.rots)),
        "flows": str(both.flows),
        "offline s": f"{line.seconds(cost.offline):.3f}",
        "online s": f"{line.seconds(cost.online):.3f}",
    }


def goal_unit(plan: Plan) -> str:
    """What was to be least."""
    if plan.goal is None:
        return "bits"
    where = f"on {plan.link}" if plan.link else "on loopback"
    if not isinstance(plan.goal, Aim):
        return f"seconds of messages {where}"
    return f"{'online' if plan.goal.online else 'total'} seconds {where}"


def _columns(rows: Iterable[Row], left: int) -> str:
    """Aligned text; the first `left` columns to the left, the others to the right."""
    columns = []
    for i, cells in enumerate(zip(*rows, strict=True)):
        width = max(map(len, cells))
        columns.append([c.ljust(width) if i < left else c.rjust(width) for c in cells])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _mib(bits: int) -> str:
    return f"{bits / 8 / 2**20:.3f}"
