"""What is known before any picture is: constants, and what a model computes of constants and shapes.

Exporters spell shapes and weights out as little programs: a weight behind a Transpose, the shape of a
Reshape as Shape -> Gather -> Concat. The package's reference runs these, node by node.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from nets.importing.onnx.files import node_name
from pqjax.errors import CheckpointError, GraphError, shown
from pqjax.graph.bounds import MOST_WEIGHTS

if typing.TYPE_CHECKING:
    import onnx

# Operators whose results are no larger than the largest of their operands, broadcast.
_ELEMENTWISE = frozenset(
    "Abs Add And Cast Ceil Clip Div Equal Exp Floor Greater GreaterOrEqual Identity Less "
    "LessOrEqual Log Max Min Mod Mul Neg Not Or Pow QuantizeLinear DequantizeLinear Reciprocal "
    "Relu Round Sigmoid Sign Sqrt Sub Sum Tanh Where Xor".split()
)
_SMALLER = frozenset(
    "ArgMax ArgMin Concat Constant DepthToSpace Flatten Gather GatherElements GatherND "
    "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reshape Shape Size Slice SpaceToDepth "
    "Split Squeeze Transpose Trilu Unsqueeze".split()
)
_LARGER = frozenset(("ConstantOfShape", "Expand", "Tile", "Range"))
FOLDED = _ELEMENTWISE | _SMALLER | _LARGER

Operands = Sequence[np.ndarray | None]


def evaluated(node: onnx.NodeProto, opset: int, operands: Operands) -> list[np.ndarray]:
    """All that a node computes of these.

    Raises:
      GraphError: more than a network's weights would come out, or the node does not fit its operands.
    """
    from onnx.reference import ReferenceEvaluator

    if (size := _size(node, operands)) > MOST_WEIGHTS:
        raise GraphError(f"at most {MOST_WEIGHTS} numbers expected of a constant, got {size}")
    feeds = {name: each for name, each in zip(node.input, operands, strict=True) if name}
    try:
        axes = attributes(node).get("axes")
        if (
            node.op_type == "Unsqueeze" and axes is not None
        ):  # the reference lacks its first version
            return [np.expand_dims(typing.cast(np.ndarray, operands[0]), tuple(axes))]
        with np.errstate(all="ignore"):
            made = ReferenceEvaluator(node, opsets={"": opset}).run(None, typing.cast(dict, feeds))
    except Exception as error:  # noqa: BLE001  whatever numpy says of operands that do not fit
        raise GraphError(
            f"its operands do not fit: {' '.join(str(error).split())[:200]}"
        ) from error
    return [np.asarray(each) for each in typing.cast(list, made)]


def stored(tensor: onnx.TensorProto) -> np.ndarray:
    """A model's weights or other constant.

    Raises:
      CheckpointError: they are damaged.
    """
    from onnx import numpy_helper

    try:
        with np.errstate(all="ignore"):
            return np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # noqa: BLE001  whatever numpy says of bytes that do not fit
        raise CheckpointError(
            f"{shown(tensor.name)}: damaged weights: {' '.join(str(error).split())[:200]}"
        ) from error


def _size(node: onnx.NodeProto, operands: Operands) -> int:
    """The most numbers that can come out."""
    given = [each for each in operands if each is not None]
    if node.op_type == "ConstantOfShape":
        return math.prod(abs(int(side)) for side in given[0].ravel())
    if node.op_type == "Expand":
        return given[0].size * math.prod(max(1, abs(int(side))) for side in given[1].ravel())
    if node.op_type == "Tile":
        return given[0].size * math.prod(max(1, int(count)) for count in given[1].ravel())
    if node.op_type == "Range":
        start, end, step = (float(each.ravel()[0]) for each in given[:3])
        return int(abs((end - start) / step)) + 1 if step else 1
    if node.op_type in _ELEMENTWISE:
        rank = max((each.ndim for each in given), default=0)
        shapes = [(1,) * (rank - each.ndim) + each.shape for each in given]
        return math.prod(max(sides) for sides in zip(*shapes, strict=True))
    return sum(each.size for each in given)


def attributes(node: onnx.NodeProto) -> Mapping[str, typing.Any]:
    """A node's attributes by name; texts as str."""
    from onnx import helper

    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in found.items()
    }


class Constants:
    """Values that depend on no input, by name, made when they are asked for."""

    def __init__(self, graph: onnx.GraphProto, version: int):
        self.version = version
        self.given = {each.name: each for each in graph.initializer}
        self.made = {name: node for node in graph.node for name in node.output}
        self.known: dict[str, bool] = {name: True for name in self.given}
        for node in graph.node:  # in order
            all_known = node.op_type in FOLDED and all(
                self.known.get(name, False) for name in node.input if name
            )
            self.known.update(dict.fromkeys(node.output, all_known))

    def knows(self, name: str) -> bool:
        """Whether it depends on no input."""
        return self.known.get(name, False)

    def add(self, tensor: onnx.TensorProto) -> None:
        """Another one, in the place of what a node made."""
        self.given[tensor.name], self.known[tensor.name] = tensor, True

    def __call__(self, name: str, reader: onnx.NodeProto) -> np.ndarray:
        """One of them, asked for by a node.

        Raises:
          GraphError: it depends on the input.
        """
        if not self.knows(name):
            raise GraphError(
                f"{node_name(reader)}: its scale depends on the input; a constant expected"
            )
        if name in self.given:
            return stored(self.given[name])
        node = self.made[name]
        operands = [self(each, node) if each else None for each in node.input]
        return evaluated(node, self.version, operands)[list(node.output).index(name)]
