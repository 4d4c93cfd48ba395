"""Networks without training: random weights, norms fitted to photographs, then quantized like any other.

What a run sends, and how long it takes, does not depend on the weights, so such a network measures what
a trained one would. Its answers mean nothing, and everything that shows them says so.
"""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nets.data import integer_input
from nets.export import export
from nets.floating import FloatNet
from nets.fold import equalize, fold_batch_norm
from nets.ops import Architecture
from nets.quantized import QuantNet, Widths, calibrate
from pqjax.errors import CheckpointError, GraphError
from pqjax.graph import Graph, load_model, save_model

UNTRAINED = "untrained weights"


def untrained(
    architecture: Architecture, widths: Widths, images: np.ndarray, seed: int
) -> tuple[Graph, dict[str, np.ndarray]]:
    """A quantized network of random weights.

    Args:
      architecture: its shape.
      widths: bits of every tensor.
      images: uint8 photographs (n, side, side, 3): norms and scales fit them.
      seed: of the weights.
    """
    net = FloatNet(architecture, nnx.Rngs(seed))
    for held in net.weighted:
        if held.norm is not None:
            held.norm.momentum = 0.0  # the statistics become those of this one batch
    x = integer_input(images, architecture.zero)
    nnx.jit(lambda net, x: net(x))(net, x)
    net.eval()
    student = QuantNet(architecture, widths)
    calibrate(student, equalize(fold_batch_norm(net), architecture), jnp.asarray(x))
    return export(student)


def kept_untrained(
    architecture: Architecture,
    widths: Widths,
    label: str,
    images: np.ndarray,
    seed: int,
    folder: pathlib.Path,
) -> pathlib.Path:
    """Makes such a network once and keeps it as a file; returns its path.

    Args:
      architecture: its shape.
      widths: bits of every tensor.
      label: what the file's name calls them.
      images: see `untrained`.
      seed: of the weights.
      folder: where to keep it.
    """
    bits = {**dataclasses.asdict(widths), "weights": list(widths.weights)}
    meta = {"seed": seed, "widths": bits, "weights": UNTRAINED, "jax": jax.__version__}
    path = folder / f"{architecture.name}_{label}_seed{seed}.npz"
    try:
        if load_model(path)[2] == meta:
            return path
    except (CheckpointError, GraphError):
        pass  # absent, or of another version
    graph, weights = untrained(architecture, widths, images, seed)
    save_model(path, graph, weights, meta)
    return path
