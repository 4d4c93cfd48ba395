"""A graph while it is being rewritten: an edit costs what it touches, not what the graph holds.

Every node has a place, a tuple of integers in whose order nodes run. What takes a node's place gets its
place, or places behind it: (7,) becomes (7, 0) and (7, 1). So order is kept without moving anything, and
which of two nodes runs first is one comparison.
"""

import bisect
import dataclasses
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence

from pqjax.errors import GraphError, shown
from pqjax.graph.ir import Graph, Input, Node, Readable

_Place = tuple[int, ...]
_Entries = list[tuple[_Place, str]]  # readers of a tensor by name, sorted by their places


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

    @property
    def made(self) -> list[Node]:
        """The nodes that it puts in."""
        return [node for nodes in self.replace.values() for node in nodes]


class Draft(Readable):
    """Reads like a `Graph`; `make` changes it, `graph` ends it."""

    def __init__(self, graph: Graph) -> None:
        self._nodes = {node.name: node for node in graph}
        self._places: dict[str, _Place] = {node.name: (i,) for i, node in enumerate(graph)}
        self._readers: dict[str, _Entries] = {node.name: [] for node in graph}
        for node in graph:
            self._enter(node)
        self._first, self._last = graph.input.name, graph.output.name
        self.readers = _Readers(self._nodes, self._readers)
        self.memo: dict[Hashable, typing.Any] = {}

    def __iter__(self) -> Iterator[Node]:
        order = sorted(self._nodes, key=self._places.__getitem__)
        return iter([self._nodes[name] for name in order])

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __getitem__(self, name: str) -> Node:
        node = self._nodes.get(name)
        if node is None:
            raise GraphError(f"no node named {shown(name)}")
        return node

    @property
    def input(self) -> Input:
        """The input node."""
        return typing.cast(Input, self._nodes[self._first])

    @property
    def output(self) -> Node:
        """The node whose tensor is the network's answer."""
        return self._nodes[self._last]

    def before(self, name: str, other: str) -> bool:
        """Whether the node `name` runs before `other`."""
        return self._places[name] < self._places[other]

    def redirected(self, edit: Edit) -> list[Node]:
        """Nodes that an edit does not replace but makes read something else, as they will be."""
        found: dict[str, Node] = {}
        for dropped in edit.redirect:
            for reader in self.readers[dropped]:
                if reader.name not in edit.replace:
                    sources = tuple(edit.redirect.get(source, source) for source in reader.sources)
                    found[reader.name] = dataclasses.replace(reader, sources=sources)
        return list(found.values())

    def make(self, edit: Edit) -> None:
        """Changes the graph."""
        kept = (self._keeps_structure(name, nodes) for name, nodes in edit.replace.items())
        if edit.redirect or not all(kept):
            self.memo.clear()
        for node in self.redirected(edit):
            place = self._places[node.name]
            self._remove(node.name)
            self._insert(node, place)
        places = {name: self._remove(name) for name in edit.replace}
        for name, nodes in edit.replace.items():
            for i, node in enumerate(nodes):
                self._insert(node, places[name] if len(nodes) == 1 else (*places[name], i))
        if self._last in edit.replace:
            made, at = edit.replace[self._last], self._places
            self._last = made[-1].name if made else max(at, key=at.__getitem__)

    def graph(self) -> Graph:
        """The graph as it is now; construction checks that it holds together."""
        return Graph(tuple(self))

    def _keeps_structure(self, name: str, nodes: tuple[Node, ...]) -> bool:
        """Whether a node is replaced by itself in another format: then what a memo holds stays true."""
        old = self[name]
        return len(nodes) == 1 and dataclasses.replace(nodes[0], out=old.out) == old

    def _enter(self, node: Node) -> None:
        """Adds a node to the readers of its sources, in their order."""
        entry = (self._places[node.name], node.name)
        for source in dict.fromkeys(node.sources):
            bisect.insort(self._readers.setdefault(source, []), entry)

    def _insert(self, node: Node, place: _Place) -> None:
        if node.name in self._nodes:
            raise GraphError(f"node names must be unique, got {node.name!r} twice")
        self._nodes[node.name], self._places[node.name] = node, place
        self._readers.setdefault(node.name, [])
        self._enter(node)

    def _remove(self, name: str) -> _Place:
        node = self[name]
        place = self._places[name]
        for source in dict.fromkeys(node.sources):
            entries = self._readers[source]
            del entries[bisect.bisect_left(entries, (place, name))]
        del self._nodes[name], self._places[name]
        return place


class _Readers(Mapping[str, Sequence[Node]]):
    """The nodes that read each node's tensor, in their order."""

    def __init__(self, nodes: dict[str, Node], entries: dict[str, _Entries]) -> None:
        self._nodes, self._entries = nodes, entries

    def __getitem__(self, name: str) -> Sequence[Node]:
        return _ReadersOfOne(self._nodes, self._entries[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


class _ReadersOfOne(Sequence[Node]):
    """Looked up one by one: a tensor may have thousands, and most questions end at the first."""

    def __init__(self, nodes: dict[str, Node], entries: _Entries) -> None:
        self._nodes, self._entries = nodes, entries

    def __getitem__(self, index):
        return self._nodes[self._entries[index][1]]

    def __len__(self) -> int:
        return len(self._entries)


class Trial(Readable):
    """A draft as it would be after an edit, as far as the price of a node needs to know."""

    def __init__(self, draft: Draft, edit: Edit) -> None:
        self._draft = draft
        self._changed = {node.name: node for node in (*draft.redirected(edit), *edit.made)}

    def __getitem__(self, name: str) -> Node:
        return self._changed[name] if name in self._changed else self._draft[name]
