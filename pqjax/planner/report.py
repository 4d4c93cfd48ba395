"""A plan in words and columns: all layers at a glance, or one of them in full."""

import dataclasses
import difflib
from collections.abc import Iterable

from pqjax.crypto.crhash import BOUND_BITS, KEY_HASHES
from pqjax.errors import PlanError, listed, shown
from pqjax.graph.ir import Graph, Linear, Node, TensorType
from pqjax.layers.linear import LINEAR
from pqjax.linear.choice import Choice
from pqjax.planner.plan import STOCK_LAYER, Plan, Step
from pqjax.planner.price import StepCost, fitting, priced, pricing, task_cost
from pqjax.wire.cost import NOTHING

Row = tuple[str, ...]

SECURITY = (
    f"security: semi-honest, 128 bits computational; hashes {BOUND_BITS} bits against many targets "
    f"(a key of the session's own per direction, {KEY_HASHES} hashes each)"
)


def format_of(out: TensorType) -> str:
    """A number format in a few characters: u4@3 is unsigned, s16@8 signed, +8@3 known positive."""
    sign = "u" if not out.signed else "+" if out.nonnegative else "s"
    return f"{sign}{out.bits}@{out.scale}"


def table(plan: Plan, variants: bool = False) -> str:
    """One line per step; see `Plan.table`."""
    rows: list[Row] = [
        ("layer", "kind", "formats", "variant", "offline MiB", "online MiB", "stored OTs", "flows",
         "seconds")
    ]  # fmt: skip
    for step in plan.steps:
        source = "" if not step.node.sources else f"{format_of(plan.graph.source(step.node))} -> "
        formats = source + format_of(step.node.out)
        first = (step.node.name, step.node.kind, formats, step.variant or "")
        rows.append(first + _figures(plan, step.cost))
        if variants and step.task.choice is not None:
            for choice in fitting(plan.preset, step.task):
                if choice != step.task.choice:
                    cost = _cost_of(plan, step, choice)
                    rows.append(("", "", "", f"({choice.variant})", *_figures(plan, cost)))
    stock = plan.cost("offline", STOCK_LAYER)
    if stock.bits:
        rows.append((STOCK_LAYER, "", "", "", _mib(stock.bits), _mib(0), "", str(stock.flows), ""))
    offline, online = plan.cost("offline"), plan.cost("online")
    rows.append(
        ("total", "", "", "", _mib(offline.bits), _mib(online.bits), str(sum(plan.rots)),
         str((offline + online).flows), f"{plan.seconds():.2f}" if plan.link else "")
    )  # fmt: skip
    return _columns(rows, left=4)


def explain(plan: Plan, layer: str) -> str:
    """One layer in full; see `Plan.explain`."""
    names = [node.name for node in plan.source]
    steps = [s for s in plan.steps if _belongs(s.node.name, layer)]
    if layer not in names and not steps:
        near = difflib.get_close_matches(layer, names, 3, 0.4) or names
        raise PlanError(f"no layer named {shown(layer)}; did you mean {listed(near)}?")
    parts = [_headline(plan, layer, names)]
    if steps:
        rows: list[Row] = [
            ("step", "kind", "formats", "variant", "offline MiB", "online MiB", "stored OTs",
             "flows", "seconds")
        ]  # fmt: skip
        for step in steps:
            source = "" if not step.node.sources else format_of(plan.graph.source(step.node))
            formats = f"{source} -> {format_of(step.node.out)}"
            row = (step.node.name, step.node.kind, formats, step.variant or "")
            rows.append(row + _figures(plan, step.cost))
        parts.append("Runs as\n" + _columns(rows, left=4))
    else:
        parts.append("Takes no step of its own: a pass has made it part of another layer.")
    parts += [_choice(plan, s) for s in steps if s.task.choice is not None]
    changes = _changes(plan, layer)
    if changes:
        parts.append("Passes that changed it\n" + changes)
    return "\n\n".join(parts)


def _headline(plan: Plan, layer: str, names: list[str]) -> str:
    if layer not in names:
        return f"{layer}, a step of protocol {plan.protocol}"
    node = plan.source[layer]
    if not node.sources:
        return f"{layer}: {node.kind}, {format_of(node.out)} {node.out.shape}"
    source = plan.source.source(node)
    text = f"{layer}: {node.kind}, {format_of(source)} {source.shape} -> "
    text += f"{format_of(node.out)} {node.out.shape}"
    if isinstance(node, Linear):
        text += f", {node.weight_bits}-bit weights"
    return f"{text}, protocol {plan.protocol}"


def _cost_of(plan: Plan, step: Step, choice: Choice) -> StepCost:
    return task_cost(plan.setting, dataclasses.replace(step.task, choice=choice))


def _choice(plan: Plan, step: Step) -> str:
    """Every way of multiplying that fits a linear layer, and why one was taken."""
    chosen, fits = step.task.choice, fitting(plan.preset, step.task)
    assert chosen is not None
    source = plan.preset.source
    prices = {c: priced(_cost_of(plan, step, c), source, plan.link) for c in fits}
    rows: list[Row] = [
        ("variant", *(f"{part} MiB" for part in LINEAR.parts), "OTs MiB", "flows", "seconds", "")
    ]
    for choice in dict.fromkeys((*fits, chosen)):
        cost = _cost_of(plan, step, choice)
        parts = LINEAR.by_part(plan.setting, dataclasses.replace(step.task, choice=choice))
        figures = _figures(plan, cost)
        stored = int(priced(cost, source, None)) - cost.bits
        rows.append(
            (choice.variant, *(_mib(parts.get(part, NOTHING).bits) for part in LINEAR.parts),
             _mib(stored), figures[-2], figures[-1], "<- chosen" if choice == chosen else "")
        )  # fmt: skip
    unit = f"seconds on {plan.link}" if plan.link else "bits"
    if step.node.name in plan.forced:
        why = f"{chosen}: asked for by the caller."
    elif len(prices) == 1:
        why = f"{chosen}: the only one that protocol {plan.protocol} has."
    else:
        second = sorted(prices.values())[1]
        ratio = second / max(prices.get(chosen, 0.0), 1e-12)
        why = f"{chosen}: fewest {unit}; the next best takes {ratio:.2f} times as many."
    return f"{LINEAR.describe(step.task)}\n{_columns(rows, left=1)}\nChosen: {why}"


def _changes(plan: Plan, layer: str) -> str:
    """Passes after which the layer's steps differ, with their bits before and after."""
    price = pricing(plan.preset, plan.link)
    unit = "s" if plan.link else "MiB"
    rows: list[Row] = []
    graph = plan.source
    for applied in plan.applied:
        before, after = _of_layer(graph, layer), _of_layer(applied.graph, layer)
        if before != after:
            costs = [
                _priced(g, nodes, price, plan.link is not None)
                for g, nodes in ((graph, before), (applied.graph, after))
            ]
            kinds = " + ".join(n.kind for n in after) or "nothing"
            rows.append(
                (applied.rewrite.name, f"{costs[0]} -> {costs[1]} {unit}", kinds,
                 applied.rewrite.identity)
            )  # fmt: skip
        graph = applied.graph
    return _columns(rows, left=4) if rows else ""


def _priced(graph: Graph, nodes: list[Node], price, seconds: bool) -> str:
    total = sum(price(graph, node) for node in nodes)
    return f"{total:.3f}" if seconds else _mib(int(total))


def _of_layer(graph: Graph, layer: str) -> list[Node]:
    return [node for node in graph if _belongs(node.name, layer)]


def _belongs(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


def _figures(plan: Plan, cost: StepCost) -> Row:
    both = cost.offline + cost.online
    seconds = f"{priced(cost, plan.preset.source, plan.link):.2f}" if plan.link else ""
    return (
        _mib(cost.offline.bits), _mib(cost.online.bits), str(sum(both.rots)) if both.rots else "0",
        str(both.flows), seconds,
    )  # fmt: skip


def _columns(rows: Iterable[Row], left: int) -> str:
    """Aligned text; the first `left` columns to the left, the others to the right."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _mib(bits: int) -> str:
    return f"{bits / 8 / 2**20:.3f}"
