"""Operators of whole-number tensors (QOperator format) as float ones between grids, as in QDQ format.

What a quantizer wrote as `QLinearConv` is a Conv of what its operands stand for, put on a grid; weights
and biases are constants, so they become real numbers here. Grids chosen at run time
(`DynamicQuantizeLinear`) go: what stands on one is taken as it was before.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nets.importing.onnx.constants import Constants
from nets.importing.onnx.files import OWN_DOMAINS, node_name
from pqjax.errors import GraphError, listed
from pqjax.graph.bounds import MOST_WEIGHTS
from pqjax.graph.ir import fresh

if typing.TYPE_CHECKING:
    import onnx

_TRIPLE = 3  # a tensor, its scale, its zero


class _Writer:
    """Nodes written in the place of whole-number ones."""

    def __init__(self, graph: onnx.GraphProto, version: int):
        self.graph, self.version = graph, version
        self.constants = Constants(graph, version)
        self.names = {name for node in graph.node for name in (*node.output, *node.input)}
        self.names |= {each.name for each in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.made = 0  # numbers of constants that were written
        self.dynamic: dict[str, str] = {}  # what stands on a grid chosen at run time: its zero

    def fresh(self, base: str) -> str:
        name = fresh(base, self.names)
        self.names.add(name)
        return name

    def constant(self, name: str, value: np.ndarray, node: onnx.NodeProto) -> str:
        """Another constant, for this node."""
        from onnx import numpy_helper

        self.made += value.size
        if self.made > 4 * MOST_WEIGHTS:
            raise GraphError(
                f"{node_name(node)}: constants of more than {4 * MOST_WEIGHTS} numbers"
            )
        tensor = numpy_helper.from_array(value, name)
        self.graph.initializer.append(tensor)
        self.constants.add(tensor)
        return name

    def write(self, kind: str, inputs: Sequence[str], made: str, node: onnx.NodeProto) -> str:
        """A node of another kind in this one's place."""
        from onnx import helper

        grid = kind in ("QuantizeLinear", "DequantizeLinear")
        new = helper.make_node(kind, list(inputs), [made], made if grid else node.name)
        self.nodes.append(new)
        return made

    def given(self, node: onnx.NodeProto, index: int) -> str:
        return node.input[index] if index < len(node.input) else ""

    def number(self, node: onnx.NodeProto, index: int) -> np.ndarray:
        """A constant operand, in float64; a zero that is left out is 0."""
        name = self.given(node, index)
        return np.asarray(self.constants(name, node), np.float64) if name else np.zeros(())

    def real(self, node: onnx.NodeProto, first: int, axis: int = 0) -> str:
        """What a tensor with its scale and zero, three operands from `first` on, stands for.

        Args:
          node: that reads it.
          first: operand.
          axis: that several scales, of a constant, go along.
        """
        name, scale, zero = (self.given(node, first + i) for i in range(_TRIPLE))
        made = self.fresh(f"{name}.real")
        if not self.constants.knows(name):
            return self.write("DequantizeLinear", [name, scale, *[zero] * bool(zero)], made, node)
        value = np.asarray(self.constants(name, node))
        sides = [1] * value.ndim
        if value.ndim:
            sides[axis] = -1
        scale, zero = (self.number(node, first + i).reshape(sides) for i in (1, 2))
        return self.constant(made, ((value - zero) * scale).astype(np.float32), node)

    def bias(self, node: onnx.NodeProto, index: int, factor: np.ndarray | float) -> list[str]:
        """Whole-number biases, in units of `factor`; none if there are none."""
        if not (name := self.given(node, index)):
            return []
        value = self.number(node, index) * factor
        return [self.constant(self.fresh(f"{name}.real"), value.astype(np.float32), node)]

    def on_grid(self, kind: str, inputs: Sequence[str], node: onnx.NodeProto, scale: int) -> None:
        """A float node whose result stands on the grid of the operands from `scale` on, if any."""
        if not self.given(node, scale):
            made = self.write(kind, inputs, node.output[0], node)
        else:
            made = self.write(kind, inputs, self.fresh(f"{node.output[0]}.real"), node)
            grid = [made, *(name for name in node.input[scale : scale + 2] if name)]
            self.write("QuantizeLinear", grid, node.output[0], node)
        at = next(each for each in reversed(self.nodes) if each.op_type == kind)
        at.attribute.extend(each for each in node.attribute if each.name != "channels_last")


def _conv(to: _Writer, node: onnx.NodeProto) -> None:
    unit = to.number(node, 1) * to.number(node, 4)
    inputs = [to.real(node, 0), to.real(node, 3), *to.bias(node, 8, unit)]
    to.on_grid("Conv", inputs, node, 6)


def _matmul(to: _Writer, node: onnx.NodeProto) -> None:
    to.on_grid("MatMul", [to.real(node, 0), to.real(node, 3, -1)], node, 6)


def _gemm(to: _Writer, node: onnx.NodeProto) -> None:
    from onnx import helper

    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    unit = to.number(node, 1) * to.number(node, 4) * attributes.get("alpha", 1.0)
    weights = to.real(node, 3, 0 if attributes.get("transB", 0) else 1)
    to.on_grid("Gemm", [to.real(node, 0), weights, *to.bias(node, 6, unit)], node, 7)


def _two(kind: str) -> Callable[[_Writer, onnx.NodeProto], None]:
    def write(to: _Writer, node: onnx.NodeProto) -> None:
        to.on_grid(kind, [to.real(node, 0), to.real(node, 3)], node, 6)

    return write


def _one(kind: str) -> Callable[[_Writer, onnx.NodeProto], None]:
    def write(to: _Writer, node: onnx.NodeProto) -> None:
        if any(each.name == "channels_last" and each.i for each in node.attribute):
            raise GraphError(f"{node_name(node)}: channels_last; channels before rows expected")
        to.on_grid(kind, [to.real(node, 0)], node, 3)

    return write


def _concat(to: _Writer, node: onnx.NodeProto) -> None:
    parts = [to.real(node, i) for i in range(2, len(node.input), _TRIPLE)]
    to.on_grid("Concat", parts, node, 0)


def _dynamic(to: _Writer, node: onnx.NodeProto) -> None:
    """Its scale is 1 and its zero 0 from here on: what was put on the grid passes as it is."""
    made, scale, zero = node.output
    readers = {each.op_type for each in to.graph.node if made in each.input}
    if not readers <= {"ConvInteger", "MatMulInteger", "DequantizeLinear"}:
        raise GraphError(
            f"{node_name(node)}: {listed(sorted(readers))} reads its whole numbers; ConvInteger, "
            "MatMulInteger or DequantizeLinear expected"
        )
    to.write("Identity", node.input[:1], made, node)
    to.constant(scale, np.ones((), np.float32), node)
    to.constant(zero, np.zeros((), np.uint8), node)
    to.dynamic[made] = zero


def _integer(kind: str, axis: int) -> Callable[[_Writer, onnx.NodeProto], None]:
    """ConvInteger and MatMulInteger, of what stands on a grid chosen at run time."""

    def write(to: _Writer, node: onnx.NodeProto) -> None:
        name, weights = node.input[:2]
        if to.dynamic.get(name) != to.given(node, 2) or not to.constants.knows(weights):
            raise GraphError(
                f"{node_name(node)}: of what DynamicQuantizeLinear makes, and constant weights, it is "
                "read; of others export QLinearConv, QLinearMatMul or QDQ format"
            )
        value = np.asarray(to.constants(weights, node), np.float64)
        sides = [1] * value.ndim
        sides[axis] = -1
        value = value - to.number(node, 3).reshape(sides)
        made = to.constant(to.fresh(f"{weights}.real"), value.astype(np.float32), node)
        to.on_grid(kind, [name, made], node, 4)

    return write


_RULES: Mapping[str, Callable[[_Writer, onnx.NodeProto], None]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "ConvInteger": _integer("Conv", 0),
    "MatMulInteger": _integer("MatMul", -1),
    "DynamicQuantizeLinear": _dynamic,
}
# Of onnxruntime's own quantizer, which has no standard ones for these.
_RUNTIMES: Mapping[str, Callable[[_Writer, onnx.NodeProto], None]] = {
    "QGemm": _gemm,
    "QLinearAdd": _two("Add"),
    "QLinearMul": _two("Mul"),
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": _one("GlobalAveragePool"),
    "QLinearAveragePool": _one("AveragePool"),
    "QLinearLeakyRelu": _one("LeakyRelu"),
    "QLinearSigmoid": _one("Sigmoid"),
    "QLinearSoftmax": _one("Softmax"),
}
QUANTIZING = frozenset(("QuantizeLinear", *_RULES, *_RUNTIMES))  # what rounds as the model runs


def readable(node: onnx.NodeProto) -> bool:
    """Whether a node that no standard has is written out here."""
    return node.domain == "com.microsoft" and node.op_type in _RUNTIMES


def written_out(graph: onnx.GraphProto, version: int) -> int:
    """Changes a graph so that none of these operators is left; returns how many there were.

    Raises:
      GraphError: the grid of one is not known before the input is.
    """
    to, count = _Writer(graph, version), 0
    for node in list(graph.node):
        own = node.domain in OWN_DOMAINS
        rule = (_RULES if own else _RUNTIMES if readable(node) else {}).get(node.op_type)
        if rule is None:
            to.nodes.append(node)
        else:
            rule(to, node)
            count += 1
    if count:
        nodes = list(to.nodes)
        del graph.node[:]
        graph.node.extend(nodes)
    return count
