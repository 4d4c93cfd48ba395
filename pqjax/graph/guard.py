"""Guard bits: what layers leave that are exact but for the lowest bits of their shares.

A layer over RLWE makes shares of 2^g Y + e, with an e of 0 or 1 that depends on secrets (`pqjax.he`).
An exact truncation that takes the g bits away is right whatever e is; so is what compares, moves or adds
such values, as long as the e's that add up stay below 2^g. Everything else reads an `Unguard`.
"""

from collections.abc import Collection
from dataclasses import replace

from pqjax.graph import ir
from pqjax.graph.bounds import MOST_GUARD
from pqjax.graph.ir import Graph, Node


def guarded(graph: Graph, layers: Collection[str]) -> Graph:
    """The graph in which these linear layers have guard bits, as few as hold what adds up in them."""
    opened, count = _opened(graph, layers)
    wanted: dict[str, int] = {}
    for node in reversed(opened.nodes):
        own = wanted[node.name] = max(count[node.name].bit_length(), wanted.get(node.name, 0))
        for source in node.sources if count[node.name] else ():
            wanted[source] = max(own, wanted.get(source, 0))
    bits: dict[str, int] = {}
    for node in opened:
        kept = max((bits[source] for source in node.sources), default=0)
        own = wanted[node.name] if node.multiplies else kept
        bits[node.name] = own if count[node.name] else 0
    return Graph(tuple(_with_guard(node, bits[node.name]) for node in opened))


def _with_guard(node: Node, bits: int) -> Node:
    return replace(node, out=replace(node.out, guard=bits)) if bits else node


def _opened(graph: Graph, layers: Collection[str]) -> tuple[Graph, dict[str, int]]:
    """The graph with every `Unguard`, and how many guarded layers add up in each tensor."""
    nodes: list[Node] = []
    count: dict[str, int] = {}
    exact: dict[str, str] = {}  # a guarded tensor, and what is it without guard bits

    def unguard(name: str) -> str:
        if name not in exact:
            exact[name] = ir.fresh(f"{name}.exact", graph)
            nodes.append(ir.Unguard(exact[name], (name,), graph[name].out))
            count[exact[name]] = 0
        return exact[name]

    for node in graph:
        counts = [count[source] for source in node.sources]
        found = node.slack(*counts) if any(counts) else 0
        if node.may_drop_guard and not any(
            reader.keeps_guard or reader.drops_guard for reader in graph.readers[node.name]
        ):
            found = 0
        if found and not node.drops_guard and (not node.keeps_guard or found >> MOST_GUARD):
            sources = (unguard(s) if count[s] else s for s in node.sources)
            node, found = replace(node, sources=tuple(sources)), 0
        nodes.append(node)
        count[node.name] = 1 if node.name in layers else 0 if node.drops_guard else found
    if count[graph.output.name]:
        unguard(graph.output.name)
    return Graph(tuple(nodes)), count
