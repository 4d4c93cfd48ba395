"""One file for a network: its graph as JSON, its weights bit-packed, and a checksum of both.

The file is an npz without pickle. Weights take exactly their declared width, so a 2-bit network of
160,000 parameters is about 40 KB. The client needs the graph only. A file may come from anyone: what is
read of it is bounded by `pqjax.graph.archive`, the graph in it by `pqjax.graph.bounds`.
"""

import hashlib
import json
import math
import os
import pathlib
import struct
import typing

import numpy as np

from pqjax.errors import CheckpointError, InputError, PqjaxError, shown
from pqjax.graph.archive import Archive
from pqjax.graph.bounds import MOST_GRAPH_BYTES
from pqjax.graph.ir import Graph, Weights
from pqjax.graph.strict_json import parse
from pqjax.graph.validate import validate
from pqjax.ring import Ring, pack, packed_bytes, unpack

MOST_META_BYTES = 1 << 20  # a description: a few settings, perhaps thousands of class names

_FORMAT = 1

Loaded = tuple[Graph, dict[str, np.ndarray], dict[str, typing.Any]]


def save_model(path: pathlib.Path | str, graph: Graph, weights: Weights, meta: dict | None = None):
    """Writes graph and weights, checked first; a crash leaves the old file or the whole new one.

    `meta` describes how the network came to be: anything that JSON has, by name.

    Raises:
      GraphError: the graph does not hold together, or is too large to be read again.
      InputError: so is the description, or it holds what JSON has not.
    """
    graph.check_bounds()
    validate(graph, weights)
    path = pathlib.Path(path)
    texts = {"graph": graph.to_json().encode(), "meta": _described(meta or {})}
    if len(texts["graph"]) > MOST_GRAPH_BYTES:
        nbytes = len(texts["graph"])
        raise InputError(f"a graph takes at most {MOST_GRAPH_BYTES} bytes, got {nbytes}")
    arrays = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    for name, (_, bits) in graph.parameters().items():
        arrays[f"w:{name}"] = pack(Ring(bits).reduce(np.asarray(weights[name]).reshape(-1)), bits)
    digest = _digest({name: array.tobytes() for name, array in arrays.items()})
    arrays["sha256"] = np.frombuffer(digest, np.uint8)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "wb") as file:
        np.savez(file, allow_pickle=False, format=np.array(_FORMAT), **arrays)
    os.replace(part, path)


def load_model(path: pathlib.Path | str) -> Loaded:
    """Reads a network: graph, int64 weights by name, and the description it was saved with.

    Raises:
      CheckpointError: the file is missing, cut short, altered, or of another format.
    """
    try:
        with Archive(pathlib.Path(path)) as archive:
            return _loaded(archive)
    except FileNotFoundError as error:
        raise CheckpointError(f"no network at {path}") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder: the network file (.npz) in it?") from error
    except Exception as error:  # also whatever `zipfile` makes of a file that is none
        plain = isinstance(error, (PqjaxError, OSError))
        why = str(error) if plain else f"{type(error).__name__}: {shown(str(error))}"
        raise CheckpointError(
            f"{path} is not a readable network: {_other(pathlib.Path(path)) or why}"
        ) from error


_PICTURE = "it is a picture; the network file (.npz) comes first, the picture goes to `pqjax infer`"
_EXPORT = (
    "networks are integer graphs (docs/importing.md), made by `pqjax import` or `pqjax.save_model`"
)
_OTHERS = {  # how files begin that are given for a network, and what to do
    b"\x89PNG": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"\x93NUMPY": f"it is one array; {_EXPORT}",
    b"{": f"it is JSON, and a graph in it has no weights; {_EXPORT}",
    b"\x89HDF": f"it is an HDF5 file; {_EXPORT}",
    b"\x08": f"it looks like ONNX; {_EXPORT}",
}


def _other(path: pathlib.Path) -> str | None:
    """What a file is that is no network, if its first bytes tell."""
    with open(path, "rb") as file:
        first = file.read(8)
    return next((text for start, text in _OTHERS.items() if first.startswith(start)), None)


def _loaded(archive: Archive) -> Loaded:
    if "format" not in archive:
        raise CheckpointError(f"it holds arrays, no graph, like a training checkpoint; {_EXPORT}")
    (format,) = struct.unpack("<q", archive.read("format", 8, exactly=True))
    if format != _FORMAT:
        raise CheckpointError(f"format {_FORMAT} expected, got {format}")
    limits = {"graph": MOST_GRAPH_BYTES, "meta": MOST_META_BYTES}
    texts = {name: archive.read(name, most) for name, most in limits.items()}
    digest = archive.read("sha256", 32, exactly=True)
    graph = Graph.from_json(texts["graph"])
    validate(graph)
    wanted = graph.parameters()
    archive.check_names({"format", "sha256", *texts, *(f"w:{name}" for name in wanted)})
    packed = {
        name: archive.read(f"w:{name}", packed_bytes(math.prod(shape), bits), exactly=True)
        for name, (shape, bits) in wanted.items()
    }
    if digest != _digest({**texts, **{f"w:{name}": raw for name, raw in packed.items()}}):
        raise CheckpointError("the checksum does not match: the file was altered")
    weights = {}
    for name, (shape, bits) in wanted.items():
        flat = unpack(packed.pop(name), math.prod(shape), bits)
        weights[name] = Ring(bits).signed(flat).reshape(shape)
    validate(graph, weights)
    return graph, weights, _description(texts["meta"])


def _described(meta: dict) -> bytes:
    """A description as JSON, which can be read again."""
    try:
        text = json.dumps(meta, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"a description is what JSON has: {error}") from error
    _description(text)
    return text


def _description(text: bytes) -> dict[str, typing.Any]:
    meta = parse(text, MOST_META_BYTES)
    if not isinstance(meta, dict):
        raise InputError(f"a description by name expected, got {type(meta).__name__}")
    return meta


def _digest(arrays: dict[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name])
    return digest.digest()
