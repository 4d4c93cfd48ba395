"""ONNX files: read with care, checked, and made simple before anything is made of them.

What is read may be a stranger's. Sizes are bounded, weights beside the file stay in its folder, and
nothing in it is run: nodes are looked up by name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import pathlib
import typing

from pqjax.errors import CheckpointError, GraphError, listed, shown
from pqjax.graph.bounds import MOST_WEIGHTS

if typing.TYPE_CHECKING:
    import onnx

OPSETS = 7, 26  # the oldest and the newest that are known here
MOST_BYTES = 2 << 30  # what one protobuf message holds
OWN_DOMAINS = ("", "ai.onnx")
MOST_NODES = 1 << 16  # constants are nodes, too: DenseNet121 has 1,600


def require_onnx() -> None:
    """Says what to install where nothing reads ONNX.

    Raises:
      CheckpointError: the package is not there.
    """
    if importlib.util.find_spec("onnx") is None:
        raise CheckpointError("ONNX files are read by the package onnx: pip install pqjax[import]")


def read_model(source: str | pathlib.Path | onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """A checked model with its weights, functions inlined, and the SHA-256 of what it was read from.

    Raises:
      CheckpointError: it is no ONNX model, damaged, or larger than anything here.
      GraphError: it is one, of a version that is not known here.
    """
    require_onnx()
    import onnx
    from onnx.inliner import inline_local_functions

    folder = None
    if isinstance(source, onnx.ModelProto):
        model, raw = onnx.ModelProto(), source.SerializeToString(deterministic=True)
        model.CopyFrom(source)
    else:
        raw, folder = _bytes(pathlib.Path(source)), pathlib.Path(source).resolve().parent
        model = _parsed(raw, str(source))
    if not model.graph.node:
        raise CheckpointError("not an ONNX model: its graph has no nodes")
    _check_texts(model)
    _check_size(model)
    _check_opset(model)
    _load_beside(model, folder)
    try:
        if model.functions:
            model = inline_local_functions(model)
        onnx.checker.check_model(model)
    except Exception as error:  # noqa: BLE001  the package's own errors are of many kinds
        raise CheckpointError(f"not a valid ONNX model: {_line(error)}") from error
    return model, hashlib.sha256(raw).hexdigest()


def _bytes(path: pathlib.Path) -> bytes:
    try:
        if path.is_dir():
            raise CheckpointError(f"{path}: a file expected, got a folder")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise CheckpointError(f"{path}: at most {MOST_BYTES} bytes expected, got {size}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _parsed(raw: bytes, name: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model_from_string(raw)
    except DecodeError as error:
        raise CheckpointError(f"{name}: not an ONNX file, or cut short: {_line(error)}") from error


def _check_texts(model: onnx.ModelProto) -> None:
    graph = model.graph
    named = (*graph.node, *graph.initializer, *graph.input, *graph.output, *model.metadata_props)
    for each in named:
        for field, value in each.ListFields():
            texts = value if field.name in ("input", "output") else [value]
            if field.name != "raw_data" and any(isinstance(text, bytes) for text in texts):
                raise CheckpointError(f"a damaged model: {shown(value)} is no text (UTF-8)")


def _check_size(model: onnx.ModelProto) -> None:
    if len(model.graph.node) > MOST_NODES:
        raise CheckpointError(f"at most {MOST_NODES} nodes expected, got {len(model.graph.node)}")
    weights = 0
    for tensor in model.graph.initializer:
        if any(side < 0 for side in tensor.dims):
            raise CheckpointError(f"{shown(tensor.name)}: a side below 0: {list(tensor.dims)}")
        weights += math.prod(tensor.dims)
    if model.graph.sparse_initializer:
        raise CheckpointError("sparse weights are not read; store them dense")
    if weights > MOST_WEIGHTS:
        raise CheckpointError(f"at most {MOST_WEIGHTS} weights expected, got {weights}")


def _load_beside(model: onnx.ModelProto, folder: pathlib.Path | None) -> None:
    """Reads weights that lie in files beside the model's, and nowhere else."""
    import onnx
    from onnx import external_data_helper as beside

    for tensor in model.graph.initializer:
        if not beside.uses_external_data(tensor):
            continue
        info = {entry.key: entry.value for entry in tensor.external_data}
        where = info.get("location", "")
        place = pathlib.PurePosixPath(where.replace("\\", "/"))
        if folder is None:
            raise CheckpointError(
                f"{shown(tensor.name)}: its weights lie in {shown(where)}: read the model by its path"
            )
        path = (folder / place).resolve()
        if place.is_absolute() or ".." in place.parts or not path.is_relative_to(folder):
            raise CheckpointError(
                f"{shown(tensor.name)}: its weights lie outside of the model's folder: {shown(where)}"
            )
        raw = _bytes(path)
        size = (
            math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )
        try:
            first, length = int(info.get("offset", "0")), int(info.get("length", str(size)))
        except ValueError:
            first = length = -1
        if first < 0 or length != size or first + length > len(raw):
            raise CheckpointError(
                f"{shown(tensor.name)}: {size} bytes expected in {shown(where)}, which has {len(raw)}; "
                f"{shown(info.get('length', ''))} from {shown(info.get('offset', '0'))} on are named"
            )
        tensor.raw_data = raw[first : first + length]
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _check_opset(model: onnx.ModelProto) -> None:
    found = opset(model)
    if not OPSETS[0] <= found <= OPSETS[1]:
        raise GraphError(
            f"opset {found}: {OPSETS[0]} to {OPSETS[1]} are known here; convert it "
            "(onnx.version_converter) or export it again"
        )


def check_domains(graph: onnx.GraphProto) -> None:
    """Refuses operators that no standard has.

    Raises:
      GraphError: there is one; names it.
    """
    others = {node.domain for node in graph.node} - set(OWN_DOMAINS)
    if others:
        node = next(node for node in graph.node if node.domain in others)
        raise GraphError(
            f"{node_name(node)}: operators of {listed(sorted(others))} are another system's; export "
            "with standard operators only (before a runtime has optimised the model)"
        )


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return next((each.version for each in model.opset_import if each.domain in OWN_DOMAINS), 0)


def node_name(node: onnx.NodeProto) -> str:
    """A node as messages call it."""
    name = node.name or (node.output[0] if node.output else "")
    name = name if name.isprintable() and len(name) <= 60 else shown(name)
    return f"{name} ({node.op_type})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
