"""What a graph pass is: a rewrite that keeps `reference` bit for bit and never costs more.

A rewrite looks at one node at a time and offers an edit there, or says why it has none. The driver
makes an edit where it lowers the price; the price is the planner's, so that one cost model decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from pqjax.errors import GraphError
from pqjax.graph.ir import Graph, Node

Price = Callable[[Graph, Node], float]  # what a node costs in a graph, in bits or seconds


@dataclasses.dataclass(frozen=True)
class Edit:
    """A change at one place of a graph.

    Attributes:
      replace: by name, the nodes that take a node's place; none drops it.
      redirect: readers of a dropped node's tensor read the other one instead.
      even: whether to make it also where it saves nothing (it may help a later pass).
    """

    replace: Mapping[str, tuple[Node, ...]]
    redirect: Mapping[str, str] = dataclasses.field(default_factory=dict)
    even: bool = False

    def apply(self, graph: Graph) -> Graph:
        """The graph after this edit."""
        nodes: list[Node] = []
        for node in graph:
            if node.name in self.replace:
                nodes += self.replace[node.name]
                continue
            sources = tuple(self.redirect.get(source, source) for source in node.sources)
            same = sources == node.sources
            nodes.append(node if same else dataclasses.replace(node, sources=sources))
        return Graph(tuple(nodes))


Site = Callable[[Graph, Node], "Edit | str"]  # an edit at this node, or why there is none


@dataclasses.dataclass(frozen=True)
class Pass:
    """One graph rewrite.

    Attributes:
      name: as plans and reports call it.
      identity: what equals what.
      assumes: what must hold for the two to be equal.
      source: where it is described.
      site: offers the edit at one node; None for a pass over the whole graph.
      whole: a pass over the whole graph, which changes how a network is run, not what it costs
        least (lowering; what a published protocol does).
    """

    name: str
    identity: str
    assumes: str
    source: str
    site: Site | None = None
    whole: Callable[[Graph], Graph] | None = None

    def __call__(self, graph: Graph, price: Price) -> Graph:
        """Rewrites wherever it is legal and does not cost more."""
        if self.whole is not None:
            return self.whole(graph)
        assert self.site is not None
        pending = [node.name for node in graph]
        while pending:
            name = pending.pop(0)
            if name not in graph:
                continue
            edit = self.site(graph, graph[name])
            if isinstance(edit, str):
                continue
            edited = edit.apply(graph)
            if _allowed(graph, edited, edit, price):
                new = [node.name for nodes in edit.replace.values() for node in nodes]
                pending = [n for n in new if n not in pending] + pending
                graph = edited
        return graph

    def at(self, graph: Graph, name: str) -> Graph:
        """Rewrites at one node, whatever it costs.

        Raises:
          GraphError: there is no such node, or what the pass assumes does not hold there.
        """
        node = graph[name]
        edit = "it works on whole graphs" if self.site is None else self.site(graph, node)
        if isinstance(edit, str):
            raise GraphError(
                f"{name} ({node.kind}): {self.name} does not apply: {edit}; it needs {self.assumes}"
            )
        return edit.apply(graph)


def _allowed(graph: Graph, edited: Graph, edit: Edit, price: Price) -> bool:
    """Whether an edit lowers the price, or keeps it and leaves fewer nodes (or is wanted anyway)."""
    touched = {reader.name for name in edit.replace for reader in graph.readers[name]}
    new = [node for nodes in edit.replace.values() for node in nodes]
    touched -= set(edit.replace) | {node.name for node in new}
    before = price_of(graph, [*edit.replace, *touched], price)
    after = price_of(edited, [*(node.name for node in new), *touched], price)
    shorter = len(new) < len(edit.replace)
    return after < before or (after == before and (shorter or edit.even))


def price_of(graph: Graph, names: Iterable[str], price: Price) -> float:
    """What some nodes cost together."""
    return sum(price(graph, graph[name]) for name in names)
