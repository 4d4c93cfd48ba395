"""What a graph pass is: a rewrite that keeps `reference` bit for bit and never costs more.

A rewrite looks at one node at a time and offers an edit there, or says why it has none. The driver
makes an edit where it lowers the price; the price is the planner's, so that one cost model decides.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable

from pqjax.graph.draft import Draft, Edit, Trial
from pqjax.graph.ir import Graph, Node

Price = Callable[[Graph, Node], float]  # what a node costs in a graph, in bits or seconds
Site = Callable[[Graph, Node], "Edit | str"]  # an edit at this node, or why there is none


@dataclasses.dataclass(frozen=True)
class Pass:
    """One graph rewrite.

    Attributes:
      name: as plans and reports call it.
      identity: what equals what.
      site: offers the edit at one node, where that is as its docstring begins; None for a pass over the
        whole graph.
      whole: a pass over the whole graph, which changes how a network is run, not what it costs
        least (lowering; what a published protocol does).
    """

    name: str
    identity: str
    site: Site | None = None
    whole: Callable[[Graph], Graph] | None = None

    def __call__(self, graph: Graph, price: Price) -> Graph:
        """Rewrites wherever it is legal and does not cost more."""
        if self.whole is not None:
            return self.whole(graph)
        assert self.site is not None
        draft = Draft(graph)
        pending = [node.name for node in graph][::-1]  # the next one last
        waiting = set(pending)
        edited = False
        while pending:
            name = pending.pop()
            waiting.discard(name)
            if name not in draft:
                continue
            edit = self.site(_read(draft), draft[name])
            if isinstance(edit, str) or not _allowed(draft, edit, price):
                continue
            draft.make(edit)
            edited = True
            fresh = [node.name for node in edit.made if node.name not in waiting]
            pending += reversed(fresh)
            waiting.update(fresh)
        return draft.graph() if edited else graph

    def at(self, graph: Graph, name: str) -> Graph:
        """Rewrites at one node, whatever it costs.

        Raises:
          GraphError: there is no such node, or what the pass assumes does not hold there.
        """
        node = graph[name]
        if self.site is None:
            raise node.error(f"{self.name} does not apply: it works on whole graphs")
        edit = self.site(graph, node)
        if isinstance(edit, str):
            need = (inspect.getdoc(self.site) or " ").partition("\n")[0]
            need = need[0].lower() + need[1:]  # a sentence
            raise node.error(f"{self.name} does not apply: {edit}; it needs {need}")
        draft = Draft(graph)
        draft.make(edit)
        return draft.graph()


def _read(draft: Draft | Trial) -> Graph:
    """A draft for functions that only read: it has all of a graph's reading."""
    return typing.cast(Graph, draft)


def _allowed(draft: Draft, edit: Edit, price: Price) -> bool:
    """Whether an edit lowers the price, or keeps it and leaves fewer nodes (or is wanted anyway)."""
    new = edit.made
    if any(node.out.bits > 64 for node in new):
        return False  # it would need a bit more than there are
    made = {node.name for node in new}
    touched = dict.fromkeys(
        reader.name
        for name in edit.replace
        for reader in draft.readers[name]
        if reader.name not in edit.replace and reader.name not in made
    )
    trial = Trial(draft, edit)
    before = price_of(_read(draft), [*edit.replace, *touched], price)
    after = price_of(_read(trial), [*(node.name for node in new), *touched], price)
    shorter = len(new) < len(edit.replace)
    return after < before or (after == before and (shorter or edit.even))


def price_of(graph: Graph, names: Iterable[str], price: Price) -> float:
    """What some nodes cost together."""
    return sum(price(graph, graph[name]) for name in names)
