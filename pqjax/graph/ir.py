"""The integer network: what is computed, node by node, with the width and scale of every tensor.

A graph is public (architecture, shapes, widths, scales); weights and biases are not part of it and
live in a separate mapping from parameter name to integer array. Tensors have no batch axis: images
are (H, W, C), vectors (C,). A tensor of scale s stands for the real values integer / 2^s.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import typing
from collections.abc import Hashable, Iterator, Mapping

import numpy as np

from pqjax.errors import GraphError, InputError, listed, shown
from pqjax.graph.bounds import (
    LONGEST_MADE_NAME,
    LONGEST_NAME,
    MOST_GRAPH_BYTES,
    MOST_MADE_NODES,
    MOST_NODES,
    MOST_READERS,
    MOST_TOTAL_ELEMENTS,
    MOST_WEIGHTS,
    Bits,
    Groups,
    Kernel,
    Margins,
    Multiplier,
    Name,
    Scale,
    Shape,
    Shift,
    Stride,
    Window,
    Word,
)
from pqjax.graph.strict_json import parse
from pqjax.schema import check

Weights = Mapping[str, np.ndarray]
Rule = typing.Literal["wrap", "saturate"]
Rounding = typing.Literal["nearest", "floor"]
Widths = typing.Literal["worst", "weights", "empirical"]


@dataclasses.dataclass(frozen=True)
class TensorType:
    """Shape and number format of one tensor.

    `nonnegative` on a signed tensor is the *fact* that its most significant bit is 0; values are
    then in [0, 2^(bits-1)). Unsigned tensors hold [0, 2^bits), of at most 63 bits. Every node computes
    in the ring of its format, modulo 2^bits; `pqjax.graph.overflow` says which may wrap around.
    """

    shape: Shape
    bits: Bits
    scale: Scale
    signed: bool = True
    nonnegative: bool = False

    @property
    def n(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def low(self) -> int:
        """Smallest value the format can hold."""
        return -(1 << (self.bits - 1)) if self.signed and not self.nonnegative else 0

    @property
    def high(self) -> int:
        """Largest value the format can hold."""
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1


def rounding_half(shift: int, rounding: Rounding) -> int:
    """What is added before a right shift: half a unit of the result, or nothing."""
    return (1 << shift) >> 1 if rounding == "nearest" and shift > 0 else 0


@dataclasses.dataclass(frozen=True)
class Node:
    """One step of the network. `sources` name earlier nodes; `out` is the tensor it makes.

    The fields' annotations carry their bounds; a `Graph` holds its nodes to them.
    """

    name: Name
    sources: tuple[Name, ...]
    out: TensorType

    @property
    def kind(self) -> str:
        """The node's kind as written in JSON."""
        return type(self).__name__

    @functools.cached_property
    def unnamed(self) -> Node:
        """The node without its place in a graph: what nodes that do the same have in common."""
        return dataclasses.replace(self, name="y", sources=())

    @functools.cached_property
    def fault(self) -> str | None:
        """What is wrong with the fields by themselves, if anything; found once."""
        try:
            check(type(self), self)
        except InputError as error:
            return str(error)
        return None


@dataclasses.dataclass(frozen=True)
class Input(Node):
    """The client's private input."""


@dataclasses.dataclass(frozen=True)
class Conv(Node):
    """Cross-correlation of an (H, W, C) tensor with the server's (h, w, C / groups, K) kernel.

    Parameters `<name>/weight` (h, w, C / groups, K), signed `weight_bits`, and `<name>/bias` (K,) at
    the accumulator's scale. `widths` says how `out.bits` was found: from the widths alone, from the
    actual weights (still overflow-free; the width is public), or measured ("empirical": it may
    overflow, and holds the low bits of its sum then).
    """

    kernel: Kernel
    stride: Stride
    padding: tuple[Margins, Margins]
    weight_bits: Bits
    weight_scale: Scale
    groups: Groups = 1
    widths: Widths = "weights"


@dataclasses.dataclass(frozen=True)
class Dense(Node):
    """Matrix product of a (C,) vector with the server's (C, K) matrix, plus bias (K,).

    Parameters `<name>/weight` and `<name>/bias`; `widths` as for `Conv`.
    """

    weight_bits: Bits
    weight_scale: Scale
    widths: Widths = "weights"


@dataclasses.dataclass(frozen=True)
class Relu(Node):
    """max(x, 0) of a signed x, same bits and scale; its output is nonnegative."""


@dataclasses.dataclass(frozen=True)
class Requantize(Node):
    """Shift right by `source.scale - out.scale` with rounding, then fit into `out`.

    Rounding to `nearest` adds half a unit of the result, in the source's ring, and floors. `wrap`
    keeps the low `out.bits` bits (the rule of PrivQuant's protocol), `saturate` clamps to
    [out.low, out.high]. A negative shift is an exact multiplication by a power of two. What a planner
    makes of it: the nodes of "Steps of a requantization" below.
    """

    rule: Rule = "saturate"
    rounding: Rounding = "nearest"


@dataclasses.dataclass(frozen=True)
class Add(Node):
    """Sum of two tensors of the same bits, scale and shape, in their ring."""


@dataclasses.dataclass(frozen=True)
class MaxPool(Node):
    """Largest value of each window (no padding).

    `headroom` is the fact that the difference of any two values fits the source's bits, as it does
    where none is negative; planners see to it.
    """

    window: Window
    stride: Stride
    headroom: bool = False


@dataclasses.dataclass(frozen=True)
class AvgPool(Node):
    """`multiplier` times the sum of each window, in its ring: no rounding happens here.

    The average is sum * round(2^t / area) / 2^t, so the output's scale is the source's plus t:
    t = log2(area) and multiplier 1 where the area is a power of two.
    """

    window: Window
    stride: Stride
    multiplier: Multiplier = 1


@dataclasses.dataclass(frozen=True)
class Flatten(Node):
    """(H, W, C) to (H * W * C,), in that order."""


@dataclasses.dataclass(frozen=True)
class ArgMax(Node):
    """Index of the largest element of a vector, the first one if several are equal.

    `headroom` as for `MaxPool`.
    """

    headroom: bool = False


@dataclasses.dataclass(frozen=True)
class Subsample(Node):
    """Every stride-th row and column of an image, the first ones first."""

    stride: Stride


@dataclasses.dataclass(frozen=True)
class Pad(Node):
    """An image with zeros around it: (before, after) for rows, columns and channels."""

    margins: tuple[Margins, Margins, Margins]


# Steps of a requantization. Planners rewrite a `Requantize` into these; users may write them too.


@dataclasses.dataclass(frozen=True)
class Extend(Node):
    """The same values in a format with at least as many bits, which holds them all."""


@dataclasses.dataclass(frozen=True)
class Narrow(Node):
    """The low `out.bits` bits, read as `out` says; values that do not fit wrap around."""


@dataclasses.dataclass(frozen=True)
class ScaleUp(Node):
    """Times 2^shift, exactly: as many bits more, and as much more scale."""

    shift: Shift


@dataclasses.dataclass(frozen=True)
class Truncate(Node):
    """Shifted right by `shift`, in as many bits as before (Trunc).

    What is added before to round wraps around in the source's ring; of a source that is known to be
    nonnegative the sign must survive it.
    """

    shift: Shift
    rounding: Rounding = "floor"


@dataclasses.dataclass(frozen=True)
class TruncateReduce(Node):
    """Shifted right by `shift`; of the result the low `out.bits` bits, at least `shift` less (TR).

    They are read as `out` says. What is added before to round wraps around in the source's ring.
    """

    shift: Shift
    rounding: Rounding = "floor"


@dataclasses.dataclass(frozen=True)
class Clamp(Node):
    """min(max(x, low), high) of a signed x, in at most as many bits; limits within x's range."""

    low: Word
    high: Word


KINDS: dict[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        Input, Conv, Dense, Relu, Requantize, Add, MaxPool, AvgPool, Flatten, ArgMax, Subsample,
        Pad, Extend, Narrow, ScaleUp, Truncate, TruncateReduce, Clamp,
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Graph:
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
                raise GraphError(f"{_label(node)}: {node.fault}")
            if node.name in seen:
                raise GraphError(f"node names must be unique, got {node.name!r} twice")
            wanted = 0 if isinstance(node, Input) else 2 if isinstance(node, Add) else 1
            if len(node.sources) != wanted:
                raise GraphError(
                    f"{node.name} ({node.kind}): {wanted} sources expected, got {len(node.sources)}"
                )
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
        _at_most("nodes", len(self.nodes), MOST_MADE_NODES if made else MOST_NODES)
        longest = LONGEST_MADE_NAME if made else LONGEST_NAME
        for node in self.nodes:
            _at_most(f"characters of the name {shown(node.name)}", len(node.name), longest)
            if not made:
                readers = len(self.readers[node.name])
                _at_most(f"nodes that read {node.name}", readers, MOST_READERS)
        _at_most("elements", sum(node.out.n for node in self.nodes), MOST_TOTAL_ELEMENTS)
        weights = sum(math.prod(shape) for shape, _ in self.parameters().values())
        _at_most("weights", weights, MOST_WEIGHTS)

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

    def source(self, node: Node, index: int = 0) -> TensorType:
        """The type of the tensor that `node` reads as its `index`-th source."""
        return self[node.sources[index]].out

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
            if isinstance(node, Conv):
                c = self.source(node).shape[-1] // node.groups
                found[f"{node.name}/weight"] = (
                    (*node.kernel, c, node.out.shape[-1]),
                    node.weight_bits,
                )
                found[f"{node.name}/bias"] = ((node.out.shape[-1],), node.out.bits)
            elif isinstance(node, Dense):
                shape = (self.source(node).shape[0], node.out.shape[0])
                found[f"{node.name}/weight"] = (shape, node.weight_bits)
                found[f"{node.name}/bias"] = ((node.out.shape[0],), node.out.bits)
        return found

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces; equal graphs give equal text."""
        return json.dumps(self.tree(), sort_keys=True, separators=(",", ":"))

    def tree(self) -> dict[str, typing.Any]:
        """What `to_json` writes."""
        from pqjax.graph.written import tree

        return tree(self)

    @staticmethod
    def from_json(text: str | bytes) -> Graph:
        """Reads `to_json`'s text; a `GraphError` says what is wrong with anything else."""
        try:
            tree = parse(text, MOST_GRAPH_BYTES)
        except InputError as error:
            raise GraphError(f"not a graph: {error}") from error
        return Graph.from_tree(tree)

    @staticmethod
    def from_tree(tree: object, made: bool = False) -> Graph:
        """Reads what `tree` makes, of parsed JSON; checks fields and size.

        Args:
          tree: parsed JSON.
          made: whether it is of a graph that passes made, which may have more nodes and longer names.

        Raises:
          GraphError: it is something else.
        """
        from pqjax.graph.written import graph_of

        return graph_of(tree, made)


def _label(node: Node) -> str:
    """A node in a message; its name may be anything."""
    name = node.name if isinstance(node.name, str) and node.name.isprintable() else shown(node.name)
    return f"{name[:LONGEST_NAME]} ({node.kind})"


def _at_most(what: str, count: int, most: int) -> None:
    if count > most:
        raise GraphError(f"a graph has at most {most} {what}, got {count}")
