"""A graph as a JSON tree, and back: a node has its kind beside its fields."""

from __future__ import annotations

import dataclasses
import functools
import typing

from pqjax.errors import GraphError, InputError, shown
from pqjax.graph.bounds import MOST_MADE_NODES
from pqjax.graph.ir import KINDS, Graph, Node, TensorType
from pqjax.schema import Length, read


@dataclasses.dataclass(frozen=True)
class _Written:
    format: typing.Literal[1]
    nodes: typing.Annotated[tuple[object, ...], Length(1, MOST_MADE_NODES)]


_fields_of = functools.cache(dataclasses.fields)


def tree(graph: Graph) -> dict[str, typing.Any]:
    """What `graph_of` reads; tuples for lists."""
    return {"format": 1, "nodes": [_entry(node) for node in graph]}


def graph_of(tree: object, made: bool = False) -> Graph:
    """The graph that a tree of parsed JSON describes, held to all bounds; `made` as of `from_tree`.

    Raises:
      GraphError: it describes none.
    """
    try:
        written = read(_Written, tree)
    except InputError as error:
        raise GraphError(f"not a graph: {error}") from error
    graph = Graph(tuple(_node_from(entry) for entry in written.nodes))
    graph.check_bounds(made)
    return graph


def _entry(node: Node) -> dict[str, typing.Any]:
    return {"kind": node.kind, **_fields(node), "out": _fields(node.out)}


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
        raise GraphError(
            f"unknown node kind {shown(entry['kind'])}; known: {', '.join(sorted(KINDS))}"
        )
    try:
        return read(kind, fields)
    except InputError as error:
        raise GraphError(f"{shown(fields.get('name'))} ({kind.__name__}): {error}") from error
