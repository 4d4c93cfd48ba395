"""A model before it is read: its input fixed, its head cut off, grids and replaced nodes taken out.

What is read and what its own runtime runs are this same model, so that they can be compared. Heads
(softmax and the like) are done by the client in the clear. Of a QDQ model the rounding of activations
goes, and what its grids clip is a Clip; weights are dequantized as constants are. What it was before is
kept beside, so that what its own rounding does can be told.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from nets.importing.onnx.constants import Constants
from nets.importing.onnx.files import check_domains, node_name, opset
from nets.importing.onnx.whole import QUANTIZING, written_out
from pqjax.errors import GraphError, listed, shown

if typing.TYPE_CHECKING:
    import onnx

HEADS = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "Hardmax", "TopK"))
_PASSING = frozenset(
    "Identity Cast Reshape Flatten Squeeze Unsqueeze Dropout QuantizeLinear DequantizeLinear".split()
)
REPLACEABLE = frozenset(("LRN",))
CHANNELS = (1, 3, 4)  # of pictures


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model with one input of known shape and one output, the logits.

    Attributes:
      model: as its runtime runs it.
      input: its name.
      shape: of the input, the batch of 1 included.
      output: the logits' name.
      notes: what was changed, by topic.
      rounding: of a quantized model: itself, with its grids and its head; else None.
    """

    model: onnx.ModelProto
    input: str
    shape: tuple[int, ...]
    output: str
    notes: dict[str, str]
    rounding: onnx.ModelProto | None = None

    @property
    def rows_first(self) -> bool:
        """Whether channels come last, as TensorFlow's pictures have them."""
        last = len(self.shape) == 4 and self.shape[3] in CHANNELS
        return last and self.shape[1] not in CHANNELS

    @property
    def image(self) -> tuple[int, int, int]:
        """The input as ours: (H, W, C); a signal has one row, a vector one pixel."""
        if self.rows_first:
            return self.shape[1], self.shape[2], self.shape[3]
        sides = (1, 1, *self.shape[2:])[-2:]
        return sides[0], sides[1], self.shape[1]

    def real(self, x: np.ndarray) -> np.ndarray:
        """Our inputs (n, H, W, C) as the model's."""
        return x.reshape(-1, *self.shape[1:]) if self.rows_first else np.moveaxis(x, 3, 1).reshape(
            -1, *self.shape[1:]
        )  # fmt: skip

    @property
    def needed(self) -> list[onnx.NodeProto]:
        """The nodes that the logits take, in order."""
        return _needed(self.model.graph, self.output)


def prepared(
    model: onnx.ModelProto, input_shape: Sequence[int] | None, replace: Collection[str],
    output: str | None,
) -> Prepared:  # fmt: skip
    """Simplifies a checked model, which is changed in place.

    Raises:
      GraphError: it has several inputs or outputs, or sides that nobody knows.
    """
    unknown = set(replace) - REPLACEABLE
    if unknown:
        raise GraphError(
            f"replace: {listed(sorted(REPLACEABLE))} can be replaced, got {listed(sorted(unknown))}"
        )
    graph, notes = model.graph, {}
    name = _input(graph)
    shape = _shape(graph, name, input_shape)
    answers = _output(graph, output)
    _bypass(graph, (node for node in graph.node if node.op_type in replace), notes)
    rounding = None
    if any(node.op_type in QUANTIZING for node in graph.node):
        rounding = type(model)()
        rounding.CopyFrom(model)
        _fix(rounding.graph, name, shape, answers)
    if count := written_out(graph, opset(model)):
        notes["operators"] = f"{count} of whole-number tensors, read as floats between grids"
    check_domains(graph)
    logits = _without_heads(graph, answers, notes)
    _without_grids(graph, opset(model), notes)
    _fix(graph, name, shape, logits)
    return Prepared(model, name, shape, logits, notes, rounding)


def _input(graph: onnx.GraphProto) -> str:
    constants = {each.name for each in graph.initializer}
    found = [each.name for each in graph.input if each.name not in constants]
    if len(found) != 1:
        raise GraphError(f"one input expected, the picture; got {len(found)}: {listed(found)}")
    return found[0]


def _shape(graph: onnx.GraphProto, name: str, given: Sequence[int] | None) -> tuple[int, ...]:
    """The input's, with what is given in the place of what the model says."""
    from onnx import TensorProto

    of = next(each.type.tensor_type for each in graph.input if each.name == name)
    if of.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
        kind = TensorProto.DataType.Name(of.elem_type)
        raise GraphError(f"{shown(name)}: an input of floats expected, got {kind}")
    own = [side.dim_value or None for side in of.shape.dim] if of.HasField("shape") else None
    if given is not None:
        if own is not None and len(own) != len(given):
            raise GraphError(
                f"{shown(name)}: a shape of {len(own)} sides expected, got {tuple(given)}"
            )
        own = [int(side) for side in given]
    if own is None or None in own[1:]:
        raise GraphError(
            f"{shown(name)}: its shape is not known ({own}): give input_shape=(1, C, H, W)"
        )
    if not 2 <= len(own) <= 4:
        raise GraphError(
            f"{shown(name)}: a picture (1, C, H, W), a signal (1, C, W) or a vector (1, C) expected, "
            f"got {tuple(own)}"
        )
    if own[0] not in (None, 1):
        raise GraphError(
            f"{shown(name)}: one picture at a time expected, got a batch of {own[0]}: export with a "
            "batch of 1 or of any size, or give input_shape"
        )
    if min(side for side in own[1:] if side is not None) < 1:
        raise GraphError(f"{shown(name)}: sides from 1 on expected, got {tuple(own)}")
    return (1, *(side for side in own[1:] if side is not None))


def _output(graph: onnx.GraphProto, wanted: str | None) -> str:
    names = [each.name for each in graph.output]
    if wanted is not None:
        made = {name for node in graph.node for name in node.output}
        if wanted not in made:
            raise GraphError(f"output {shown(wanted)} is made by no node; outputs: {listed(names)}")
        return wanted
    if len(names) != 1:
        raise GraphError(f"one output expected, got {listed(names)}: choose one by output=")
    return names[0]


def _without_heads(graph: onnx.GraphProto, output: str, notes: dict[str, str]) -> str:
    """What the last layer makes: heads at the end, and what only relabels between them, go."""
    made = {name: node for node in graph.node for name in node.output}
    at, found, heads = output, output, []
    while (node := made.get(at)) is not None and node.op_type in HEADS | _PASSING:
        at = node.input[0]
        if node.op_type in HEADS:
            found = at
            heads.append(node.op_type)
    if heads:
        notes["head"] = f"{' of '.join(heads)}, done by the client in the clear"
    return found


def _bypass(graph: onnx.GraphProto, nodes: Iterator[onnx.NodeProto], notes: dict[str, str]) -> None:
    """Nodes that are left out, on request."""
    gone = [node for node in nodes]
    for node in gone:
        _instead(node, "Identity", node.input[:1])
    if gone:
        notes["replaced"] = f"left out: {listed(node.output[0] for node in gone)} (LRN)"


def _instead(node: onnx.NodeProto, kind: str, sources: Sequence[str]) -> None:
    first, kept = list(sources), node.output[0]
    del node.input[:], node.attribute[:], node.output[:]
    node.input.extend(first)
    node.output.append(kept)
    node.op_type = kind


def _without_grids(graph: onnx.GraphProto, version: int, notes: dict[str, str]) -> None:
    """QuantizeLinear and DequantizeLinear of activations: a Clip to the grid's ends, if these matter."""
    from onnx import numpy_helper

    constants = Constants(graph, version)
    count = 0
    given = {each.name for each in graph.input}
    for node in list(graph.node):
        if node.op_type == "DequantizeLinear" and constants.knows(node.input[0]):
            # Runtimes have ways of their own to multiply by what is dequantized, which round.
            weights = constants(node.output[0], node)
            graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
            graph.node.remove(node)
        elif node.op_type == "DequantizeLinear":
            _instead(node, "Identity", node.input[:1])
        elif node.op_type == "QuantizeLinear" and not constants.knows(node.input[0]):
            operands = [constants(name, node) if name else None for name in node.input[1:]]
            zero = operands[1] if len(operands) > 1 else None
            zero = np.zeros((), np.uint8) if zero is None else zero
            if (
                zero.dtype.kind not in "iu"
                or operands[0] is None
                or operands[0].size > 1 < zero.size
            ):
                raise GraphError(f"{node_name(node)}: grids of one scale for a tensor are read")
            step, ends = float(operands[0].max()), np.iinfo(zero.dtype)
            low, high = (float(end - int(zero.ravel()[0])) * step for end in (ends.min, ends.max))
            if low < 0 or node.input[0] in given:  # as wide as its values: nothing is cut
                _instead(node, "Identity", node.input[:1])
            else:
                _clip(graph, node, low, high, version)
            count += 1
    if count:
        notes["grids"] = (
            f"{count} of a quantized model's activations are not rounded; weights are as it has them"
        )


def _clip(
    graph: onnx.GraphProto, node: onnx.NodeProto, low: float, high: float, version: int
) -> None:
    from onnx import helper, numpy_helper

    ends = {"min": low, "max": high}
    names = [f"{node.output[0]}.{end}" for end in ends]
    if version < 11:
        _instead(node, "Clip", node.input[:1])
        node.attribute.extend(helper.make_attribute(*end) for end in ends.items())
        return
    _instead(node, "Clip", [node.input[0], *names])
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in zip(names, ends.values(), strict=True)
    )


def _needed(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    needed, found = {output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(name for name in node.input if name)
            found.append(node)
    return found[::-1]


def _fix(graph: onnx.GraphProto, name: str, shape: Sequence[int], output: str) -> None:
    """One input of this shape, and one output."""
    from onnx import TensorProto, helper

    nodes = _needed(graph, output)
    read = {each for node in nodes for each in node.input}
    weights = [each for each in graph.initializer if each.name in read]
    source = next(each for each in graph.input if each.name == name)
    made = helper.make_tensor_value_info(name, source.type.tensor_type.elem_type, list(shape))
    kind = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.input.append(made)
    graph.output.append(kind)
    graph.initializer.extend(weights)
