"""Training checkpoints: one npz without pickle, named leaves plus a JSON description."""

import json
import os
import pathlib
import zipfile
import zlib
from typing import Any

import jax
import numpy as np

from pqjax.errors import CheckpointError

_META = "meta.json"


def save_arrays(
    path: pathlib.Path | str, arrays: dict[str, np.ndarray], meta: dict, small: bool = True
) -> None:
    """Writes arrays and a JSON-able description; a crash leaves the old file or the new one.

    Weights compress by a twentieth and slowly: `small` says whether that is worth it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8)
    named: dict[str, Any] = {_META: text, **arrays}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(part, "wb") as file:
        (np.savez_compressed if small else np.savez)(file, **named)
    os.replace(part, path)


def load_arrays(path: pathlib.Path | str) -> tuple[dict[str, np.ndarray], dict]:
    """Reads `save_arrays`'s file; anything missing, cut short or altered is a CheckpointError."""
    path = pathlib.Path(path)
    try:
        # Opened here, because np.load leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays.pop(_META).tobytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except (
        OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path}: the description must be a JSON object, got {type(meta)}")
    return arrays, meta


def save_tree(path: pathlib.Path | str, tree: Any, meta: dict, small: bool = True) -> None:
    """Writes a pytree of arrays, each leaf under its path in the tree; see `save_arrays`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays = {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}
    save_arrays(path, arrays, meta, small)


def load_tree(path: pathlib.Path | str, like: Any) -> tuple[Any, dict]:
    """Reads a pytree with the structure, shapes and dtypes of `like`."""
    arrays, meta = load_arrays(path)
    return fill_tree(arrays, like, path), meta


def fill_tree(arrays: dict[str, np.ndarray], like: Any, origin: Any) -> Any:
    """Puts named arrays in the place of `like`'s leaves; narrower floats are widened."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(key) for key, _ in leaves]
    if set(names) != set(arrays):
        odd = sorted(set(names) ^ set(arrays))[:4]
        raise CheckpointError(f"{origin} belongs to another model: entries {odd} do not match")
    filled = []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        found, shape, dtype = arrays[name], np.shape(leaf), np.asarray(leaf).dtype
        if found.shape != shape or not np.can_cast(found.dtype, dtype, "same_kind"):
            raise CheckpointError(
                f"{origin}: {name} must be {dtype}{shape}, got {found.dtype}{found.shape}"
            )
        filled.append(found.astype(dtype))
    return jax.tree_util.tree_unflatten(structure, filled)
