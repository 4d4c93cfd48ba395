"""The integer network: what is computed, node by node, with the width and scale of every tensor.

A graph is public (architecture, shapes, widths, scales); weights and biases are not part of it and
live in a separate mapping from parameter name to integer array. Tensors have no batch axis: images
are (H, W, C), vectors (C,). A tensor of scale s stands for the real values integer / 2^s.

The kinds of nodes are imported from here: whoever adds one adds it to `KINDS`.
"""

import dataclasses
import functools
import json
import math
import typing
from collections.abc import Container, Hashable, Iterator, Mapping

import numpy as np
from jaxtyping import Int

from pqjax.errors import GraphError, InputError, listed, shown
from pqjax.graph import bounds
from pqjax.graph.absent import instead
from pqjax.graph.node import Node
from pqjax.graph.nodes import (
    Add,
    ArgMax,
    AvgPool,
    Concat,
    Conv,
    Dense,
    Flatten,
    Input,
    Linear,
    MaxPool,
    Pad,
    Relu,
    Subsample,
    Take,
)
from pqjax.graph.product import Product
from pqjax.graph.steps import (
    Clamp,
    Extend,
    Narrow,
    Requantize,
    Saturate,
    ScaleUp,
    Truncate,
    TruncateReduce,
    Unguard,
)
from pqjax.graph.strict_json import parse
from pqjax.graph.tensor import TensorType
from pqjax.schema import Length, read

Weights = Mapping[str, Int[np.ndarray, "..."]]

KINDS: dict[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        Input, Conv, Dense, Relu, Requantize, Add, MaxPool, AvgPool, Flatten, ArgMax, Subsample,
        Pad, Take, Concat, Extend, Narrow, ScaleUp, Truncate, TruncateReduce, Clamp, Unguard,
        Saturate, Product,
    )
}  # fmt: skip


def fresh(name: str, taken: Container[str]) -> str:
    """The name, or with the first number behind it, from 2 on, with which no node is called so."""
    number, found = 2, name
    while found in taken:
        found, number = f"{name}{number}", number + 1
    return found


class Readable:
    """What reads by name: a graph, or one that is being rewritten."""

    def __getitem__(self, name: str) -> Node:
        raise NotImplementedError

    def source(self, node: Node, index: int = 0) -> TensorType:
        """The type of the tensor that `node` reads as its `index`-th source."""
        return self[node.sources[index]].out

    def types(self, node: Node) -> list[TensorType]:
        """The types of all tensors that `node` reads."""
        return [self[source].out for source in node.sources]


@dataclasses.dataclass(frozen=True)
class Graph(Readable):
    """Nodes in execution order. The first is the `Input`, the last one's tensor is the output.

    Construction checks fields, names and order; `pqjax.graph.validate` checks shapes, widths and values,
    `check_bounds` the size of a whole network.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0], Input):
            raise GraphError("a graph starts with an Input node; this one does not")
        seen: set[str] = set()
        for node in self.nodes:
            if node.fault is not None:
                raise node.error(node.fault)
            if node.name in seen:
                raise GraphError(f"node names must be unique, got {node.name!r} twice")
            least, most = node.arity
            if not least <= len(node.sources) <= most:
                wanted = f"{least}" if least == most else f"{least} to {most}"
                raise node.error(f"{wanted} sources expected, got {len(node.sources)}")
            for source in node.sources:
                if source not in seen:
                    raise GraphError(
                        f"{node.name}: source {source!r} is not an earlier node: the graph is cyclic, "
                        "out of order, or the name is misspelt"
                    )
            if isinstance(node, Input) and seen:
                raise GraphError(f"{node.name}: only the first node may be an Input")
            seen.add(node.name)

    def check_bounds(self, made: bool = False) -> None:
        """Checks the size of a network as it is given (or `made` by passes), before it is used.

        Raises:
          GraphError: it has more of something than `pqjax.graph.bounds` allows.
        """
        _at_most("nodes", len(self.nodes), bounds.MOST_MADE_NODES if made else bounds.MOST_NODES)
        longest = bounds.LONGEST_MADE_NAME if made else bounds.LONGEST_NAME
        for node in self.nodes:
            _at_most(f"characters of the name {shown(node.name)}", len(node.name), longest)
            if not made:
                readers = len(self.readers[node.name])
                _at_most(f"nodes that read {node.name}", readers, bounds.MOST_READERS)
        _at_most("elements", sum(node.out.n for node in self.nodes), bounds.MOST_TOTAL_ELEMENTS)
        weights = sum(math.prod(shape) for shape, _ in self.parameters().values())
        _at_most("weights", weights, bounds.MOST_WEIGHTS)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Node:
        node = self._by_name.get(name)
        if node is None:
            raise GraphError(f"no node named {shown(name)}; the graph has {listed(self._by_name)}")
        return node

    @functools.cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @functools.cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each node's tensor."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for source in dict.fromkeys(node.sources):
                found[source].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @functools.cached_property
    def memo(self) -> dict[Hashable, typing.Any]:
        """What a walk over the graph has found out about its nodes, for the next one to start from."""
        return {}

    @property
    def input(self) -> Input:
        """The input node."""
        return typing.cast(Input, self.nodes[0])

    @property
    def output(self) -> Node:
        """The node whose tensor is the network's answer."""
        return self.nodes[-1]

    def before(self, name: str, other: str) -> bool:
        """Whether the node `name` runs before `other`."""
        return self._order[name] < self._order[other]

    @functools.cached_property
    def _order(self) -> dict[str, int]:
        return {node.name: i for i, node in enumerate(self.nodes)}

    def parameters(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Shape and signed bit width of every parameter the server must supply."""
        found: dict[str, tuple[tuple[int, ...], int]] = {}
        for node in self.nodes:
            if isinstance(node, Linear):
                shape = node.weight_shape(self.source(node))
                found[f"{node.name}/weight"] = (shape, node.weight_bits)
                found[f"{node.name}/bias"] = (shape[-1:], node.out.bits)
        return found

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces; equal graphs give equal text."""
        return json.dumps(self.tree(), sort_keys=True, separators=(",", ":"))

    def tree(self) -> dict[str, typing.Any]:
        """What `to_json` writes, tuples for lists: a node has its kind beside its fields."""
        nodes = [{"kind": n.kind, **_fields(n), "out": _fields(n.out)} for n in self.nodes]
        return {"format": 1, "nodes": nodes}

    @staticmethod
    def from_json(text: str | bytes) -> "Graph":
        """Reads `to_json`'s text; a `GraphError` says what is wrong with anything else."""
        try:
            tree = parse(text, bounds.MOST_GRAPH_BYTES)
        except InputError as error:
            raise GraphError(f"not a graph: {error}") from error
        return Graph.from_tree(tree)

    @staticmethod
    def from_tree(tree: object, made: bool = False) -> "Graph":
        """Reads what `tree` makes, of parsed JSON, held to all bounds; `made` as for `check_bounds`.

        Raises:
          GraphError: it is something else.
        """
        try:
            written = read(_Written, tree)
        except InputError as error:
            raise GraphError(f"not a graph: {error}") from error
        graph = Graph(tuple(_node_from(entry) for entry in written.nodes))
        graph.check_bounds(made)
        return graph


@dataclasses.dataclass(frozen=True)
class _Written:
    format: typing.Literal[1]
    nodes: typing.Annotated[tuple[object, ...], Length(1, bounds.MOST_MADE_NODES)]


_fields_of = functools.cache(dataclasses.fields)


def _at_most(what: str, count: int, most: int) -> None:
    if count > most:
        raise GraphError(f"a graph has at most {most} {what}, got {count}")


def _fields(value: Node | TensorType) -> dict[str, typing.Any]:
    """By name; what older files do not have only where it says something."""
    return {
        field.name: found
        for field in _fields_of(type(value))
        if (found := getattr(value, field.name)) != field.default or "later" not in field.metadata
    }


def _node_from(entry: object) -> Node:
    if type(entry) is not dict or type(entry.get("kind")) is not str:
        raise GraphError(f"not a graph: a node with its kind expected, got {shown(entry)}")
    fields = dict(entry)
    kind = KINDS.get(fields.pop("kind"))
    if kind is None:
        what = instead(entry["kind"]) or f"known: {', '.join(sorted(KINDS))}"
        raise GraphError(f"unknown node kind {shown(entry['kind'])}; {what}")
    try:
        return read(kind, fields)
    except InputError as error:
        pool = kind is MaxPool and "padding" in fields
        hint = "; put a Pad before it, of zeros or with edge" if pool else ""
        raise GraphError(f"{shown(fields.get('name'))} ({kind.__name__}): {error}{hint}") from error
