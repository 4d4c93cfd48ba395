"""The public ResNet32 for CIFAR-10 as a start: from its state dict's names and layout to ours.

Its input is (pixel / 255 - mean) / std, ours (pixel - 128) / 256. Scale and offset of the difference go
into the first kernel and its norm's mean; only what the zero padding stands for differs, at the edges.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from nets.architecture import Architecture
from pqjax.errors import CheckpointError

_MEAN = np.array([0.485, 0.456, 0.406])
_STD = np.array([0.229, 0.224, 0.225])
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def is_public(path: pathlib.Path | str) -> bool:
    """Whether a file holds such a state dict."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return "conv1.weight" in archive.files
    except (OSError, ValueError, EOFError):
        return False


def import_public(
    architecture: Architecture, state: dict[str, Any], path: pathlib.Path | str
) -> dict[str, Any]:
    """Parameters and statistics of a training state with the file's convolutions and norms.

    The FC is taken over where it has as many classes, else the state's own is kept.

    Raises:
      CheckpointError: a tensor is missing or of another shape.
    """
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}

    def take(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in found or found[name].shape != shape:
            got = found[name].shape if name in found else "nothing"
            raise CheckpointError(f"{path}: {name} of shape {shape} expected, got {got}")
        return found[name].astype(np.float32)

    params, stats = dict(state["params"]), dict(state["stats"])
    blocks, norms = {}, {}
    for i, layer in enumerate(architecture.convs):
        name = _public_name(layer.name)
        c, k, n = layer.in_channels, layer.out_channels, layer.window
        kernel = take(f"{name}.weight", (k, c, n, n)).transpose(2, 3, 1, 0)
        norm = {
            ours: take(f"{name.replace('conv', 'bn')}.{theirs}", (k,))
            for ours, theirs in _NORM.items()
        }
        if i == 0:
            offset = (128 / 255 - _MEAN) / _STD
            norm["mean"] = norm["mean"] - np.einsum("hwck,c->k", kernel, offset)
            kernel = kernel * (256 / (255 * _STD))[:, None]
        blocks[i] = {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "norm": {n: jnp.asarray(norm[n]) for n in ("scale", "bias")},
        }
        norms[i] = {"norm": {n: jnp.asarray(norm[n], jnp.float32) for n in ("mean", "var")}}
    params["blocks"], stats["blocks"] = blocks, norms
    fc = architecture.layers[-1]
    if found.get("linear.weight", np.empty(0)).shape == (fc.out_channels, fc.in_channels):
        params["kernel"] = jnp.asarray(take("linear.weight", (10, 64)).T)
        params["bias"] = jnp.asarray(take("linear.bias", (10,)))
    return {"params": params, "stats": stats}


def _public_name(name: str) -> str:
    """s2b1.conv1 is layer2.0.conv1 there."""
    if not name.startswith("s"):
        return name
    place, conv = name.split(".")
    stage, block = place[1:].split("b")
    return f"layer{stage}.{int(block) - 1}.{conv}"
