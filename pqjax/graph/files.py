"""One file for a network: its graph as JSON, its weights bit-packed, and a checksum of both.

The file is an npz without pickle. Weights take exactly their declared width, so a 2-bit network of
160,000 parameters is about 40 KB. The client needs the graph only.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zipfile
import zlib

import numpy as np

from pqjax.errors import CheckpointError, GraphError
from pqjax.graph.ir import Graph, Weights
from pqjax.graph.validate import validate
from pqjax.ring import Ring, pack, unpack

_FORMAT = 1


def save_model(path: pathlib.Path | str, graph: Graph, weights: Weights, meta: dict | None = None):
    """Writes graph and weights; a crash leaves the old file or the whole new one.

    Args:
      path: where to, usually `*.npz`.
      graph: the integer network, checked against the weights first.
      weights: integer arrays by parameter name.
      meta: anything JSON-able that describes how the network came to be.
    """
    validate(graph, weights)
    path = pathlib.Path(path)
    arrays: dict[str, np.ndarray] = {"graph": np.frombuffer(graph.to_json().encode(), np.uint8)}
    arrays["meta"] = np.frombuffer(json.dumps(meta or {}, sort_keys=True).encode(), np.uint8)
    for name, (_, bits) in graph.parameters().items():
        arrays[f"w:{name}"] = pack(Ring(bits).reduce(np.asarray(weights[name]).reshape(-1)), bits)
    arrays["sha256"] = np.frombuffer(_digest(arrays), np.uint8)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "wb") as file:
        np.savez(file, allow_pickle=False, format=np.array(_FORMAT), **arrays)
    os.replace(part, path)


def load_model(path: pathlib.Path | str) -> tuple[Graph, dict[str, np.ndarray], dict]:
    """Reads a network: graph, int64 weights by name, and the description it was saved with.

    Raises:
      CheckpointError: the file is missing, cut short, altered, or of another format.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if int(arrays.pop("format")) != _FORMAT:
            raise CheckpointError(f"{path}: format {_FORMAT} expected")
        if arrays.pop("sha256").tobytes() != _digest(arrays):
            raise CheckpointError(f"{path}: the checksum does not match: the file was altered")
        graph = Graph.from_json(arrays["graph"].tobytes())
        weights = {}
        for name, (shape, bits) in graph.parameters().items():
            flat = unpack(arrays[f"w:{name}"], int(np.prod(shape)), bits)
            weights[name] = Ring(bits).signed(flat).reshape(shape)
        validate(graph, weights)
        return graph, weights, json.loads(arrays["meta"].tobytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"no network at {path}") from error
    except (
        OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError,
        zipfile.BadZipFile, zlib.error, GraphError,
    ) as error:  # fmt: skip
        raise CheckpointError(f"{path} is not a readable network: {error}") from error


def _digest(arrays: dict[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name].tobytes())
    return digest.digest()
