"""ONNX models in: `read_onnx` makes an `Imported` of a file.

file -> checked model (files) -> one input, one output, no head (prepared)
     -> node by node (step, operators): constants (constants), and arrays of our tensors
"""

from __future__ import annotations

import ast
import dataclasses
import json
import pathlib
import typing
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from nets.importing.arrays import Arrays
from nets.importing.builder import Builder
from nets.importing.imported import Imported, Pixels
from nets.importing.layout import Tensor
from nets.importing.onnx.constants import FOLDED, evaluated, stored
from nets.importing.onnx.files import node_name, opset, read_model
from nets.importing.onnx.operators import OPERATORS
from nets.importing.onnx.prepared import Prepared, prepared
from nets.importing.onnx.step import AXES, Step, Value
from nets.importing.refusals import why_not
from nets.ops import INPUT
from pqjax.errors import CheckpointError, GraphError, InputError, PqjaxError
from pqjax.graph.bounds import MOST_WEIGHTS, Shape
from pqjax.schema import Length, check

if typing.TYPE_CHECKING:
    import onnx

# What ONNX's metadata calls ranges of pixels, as (mean, std) of 0..255.
_RANGES = {
    "NominalRange_0_255": (0.0, 1.0), "Normalized_0_1": (0.0, 255.0), "Normalized_1_1": (127.5, 127.5),
}  # fmt: skip


def read_onnx(
    source: str | pathlib.Path | onnx.ModelProto, *, input_shape: Sequence[int] | None = None,
    replace: Collection[str] = (), output: str | None = None, pixels: Pixels | None = None,
) -> Imported:  # fmt: skip
    """Reads a float network, or a quantized one (QDQ, QOperator), whose weights are dequantized.

    Args:
      source: a file, or a model that the package onnx has read.
      input_shape: (1, C, H, W), (1, H, W, C), (1, C, W) or (1, C), where the model leaves sides open or
        is to be read at another size.
      replace: kinds of nodes that are left out: "LRN".
      output: the tensor of the logits, where there are several outputs.
      pixels: what its inputs mean; None for what its metadata say, else pixels / 255.

    Raises:
      CheckpointError: no ONNX model, a damaged one, or no package that reads it.
      GraphError: it computes what is not imported; names the node, why, and the nearest thing that is.
    """
    model, digest = read_model(source)
    meta = {entry.key: entry.value for entry in model.metadata_props}
    made = prepared(model, input_shape, replace, output)
    _check_shape(made.image)
    name = "onnx" if not isinstance(source, (str, pathlib.Path)) else pathlib.Path(source).stem
    builder = Builder(name, made.image)
    tensor = _Reader(Arrays(builder), made).logits()
    about = {
        "format": f"ONNX, opset {opset(model)}",
        "sha256": digest,
        "onnx": _version(),
        **made.notes,
    }
    if not isinstance(source, str | pathlib.Path):
        about["file"] = "a model in memory"
    else:
        about["file"] = pathlib.Path(source).name
    with np.errstate(all="ignore"):
        net = builder.imported(
            tensor, pixels=pixels or _pixels(meta, made.image[2]), source=about,
            classes=_classes(meta, builder.shapes[tensor][0]), runtime=_runtime(made),
            rounding=_rounding(made),
        )  # fmt: skip
    if not all(np.isfinite(each).all() for pair in net.weights for each in pair):
        raise GraphError("its weights, norms folded, are no finite numbers of 32 bits")
    return net


def _check_shape(image: Shape) -> None:
    try:
        check(typing.Annotated[Shape, Length(3, 3)], image)
    except InputError as error:
        raise GraphError(f"the input's rows, columns and channels: {error}") from error


class _Reader:
    """Values by name: constants, and arrays of what was built."""

    def __init__(self, arrays: Arrays, made: Prepared):
        self.arrays, self.builder, self.made = arrays, arrays.builder, made
        self.opset = opset(made.model)
        graph = made.model.graph
        self.values: dict[str, Value] = {}
        for each in graph.initializer:
            self.values[each.name] = stored(each)
        rank = len(made.shape)
        axes = (1, 2, 3) if made.rows_first else AXES[rank]
        self.values[made.input] = arrays.laid(INPUT, axes, rank)
        self.folded = 0

    def logits(self) -> str:
        """Reads all nodes; our vector of the logits."""
        for node in self.made.needed:
            self.builder.at = node_name(node)
            try:
                with np.errstate(all="ignore"):
                    made = self.read(node)
            except PqjaxError:
                raise
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                text = " ".join(str(error).split())[:200]
                raise self.builder.fault(
                    f"its operands or attributes do not fit: {text}"
                ) from error
            for name, value in zip(node.output, made, strict=False):
                if name:
                    self.values[name] = value
        found = self.values.get(self.made.output)
        if not isinstance(found, Tensor):
            raise GraphError("its output does not depend on its input")
        if not found.flat:
            raise GraphError(
                f"its output is of shape {found.shape}, but a vector of logits is expected: networks "
                "that answer with images or boxes are not imported"
            )
        return self.arrays.vector(found)

    def read(self, node: onnx.NodeProto) -> Sequence[Value]:
        """What a node makes."""
        missing = [name for name in node.input if name and name not in self.values]
        if missing:
            raise self.builder.fault(f"reads {missing[0]!r}, which nothing makes")
        operands = [self.values[name] if name else None for name in node.input]
        step = Step(self.arrays, node, self.opset, operands)
        kind, tensors = node.op_type, [each for each in operands if isinstance(each, Tensor)]
        if kind in ("Shape", "Size") and tensors:
            return [self.sides(step)]
        if kind in FOLDED and not tensors:
            return self.constants(step)
        if kind not in OPERATORS or not tensors:
            raise self.builder.fault(why_not(kind))
        made = OPERATORS[kind](step)
        return [made] if isinstance(made, Tensor) else made

    def constants(self, step: Step) -> Sequence[np.ndarray]:
        """Of constants."""
        operands = [each for each in step.operands if not isinstance(each, Tensor)]
        try:
            found = evaluated(step.node, step.opset, operands)
        except GraphError as error:
            raise step.fault(str(error)) from error
        self.folded += sum(each.size for each in found)
        if self.folded > 4 * MOST_WEIGHTS:
            raise step.fault(f"its constants have more than {4 * MOST_WEIGHTS} numbers")
        return found

    def sides(self, step: Step) -> np.ndarray:
        """Shape and Size of what depends on the input."""
        shape = np.array(step.tensor().shape, np.int64)
        if step.node.op_type == "Size":
            return shape.prod()
        return shape[step.attribute("start", 0) : step.attribute("end")]


def _pixels(meta: Mapping[str, str], channels: int) -> Pixels:
    """What ONNX's image metadata say."""
    mean, std = _RANGES.get(meta.get("Image.NominalPixelRange", ""), (0.0, 255.0))
    bgr = meta.get("Image.BitmapPixelFormat", "").startswith("Bgr")
    return Pixels((mean,) * channels, (std,) * channels, bgr)


def _classes(meta: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Names that stand in the metadata, as a list or by number, if there are as many as outputs."""
    for key in ("names", "classes", "labels", "class_names"):
        text = meta.get(key, "")
        for reading in (json.loads, ast.literal_eval):
            try:
                found = reading(text[: 1 << 20])
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
            found = list(found.values()) if isinstance(found, dict) else found
            if isinstance(found, list) and len(found) == count:
                return tuple(str(each) for each in found)
    return ()


def _version() -> str:
    import onnx

    return onnx.__version__


def _runtime(made: Prepared) -> Callable[[np.ndarray], np.ndarray]:
    """The model's own runtime up to its logits: onnxruntime, or the package's reference without it."""
    run: list[Callable[[np.ndarray], np.ndarray]] = []  # made when it is first asked for

    def runtime(x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n k"]:
        if not run:
            run.append(_session(made))
        inputs = made.real(np.asarray(x, np.float32))
        return np.concatenate([run[0](each[None]).reshape(1, -1) for each in inputs])

    return runtime


def _rounding(made: Prepared) -> Callable[[np.ndarray], np.ndarray] | None:
    """A quantized model's own runtime, up to its answers."""
    model = made.rounding
    if model is None:
        return None
    answers = model.graph.output[0].name
    return _runtime(dataclasses.replace(made, model=model, output=answers))


def _session(made: Prepared) -> Callable[[np.ndarray], np.ndarray]:
    of = made.model.graph.input[0].type.tensor_type.elem_type
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    dtype = helper.tensor_dtype_to_np_dtype(of)
    try:
        import onnxruntime
    except ImportError:
        session = ReferenceEvaluator(made.model)
    else:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                made.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001  its own errors have no common kind
            text = " ".join(str(error).split())[:300]
            raise CheckpointError(f"onnxruntime does not run this model: {text}") from error

    def run(x: np.ndarray) -> np.ndarray:
        (answer,) = session.run([made.output], {made.input: x.astype(dtype)})
        return np.asarray(answer, np.float32)

    return run
