"""Any imported network in integers, without training: calibrated, fitted layer by layer, described."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from nets.data import integer_input
from nets.export import export
from nets.folded import FoldedNet
from nets.importing.imported import Imported
from nets.ptq import Recipe, fit, ranged
from nets.quantized import QuantNet, Widths
from nets.quantizer import best_weight_scale
from pqjax.graph import Graph, save_model, with_norms
from pqjax.version import VERSION

METHOD = 3  # of quantization; a file made by another is made again
RECIPE = Recipe()
PROBED = 16  # pictures on which layers are probed one by one

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, steps: int) -> None:
    """A progress that nobody sees."""


@dataclasses.dataclass(frozen=True)
class Quantized:
    """A network in integers, and the float network it was fitted to.

    Attributes:
      graph: validated, with its filters' norms.
      weights: int64, by parameter name.
      student: the same in training form.
      net: in floating point, its streams scaled as the student's formats want it.
    """

    graph: Graph
    weights: dict[str, np.ndarray]
    student: QuantNet
    net: FoldedNet

    def kernels(self) -> dict[str, np.ndarray]:
        """The float network's kernels as the student has them, by layer."""
        found = {}
        for layer in self.student.layers:
            whole = self.weights[f"{layer.op.name}/weight"]
            unit = 2.0 ** -float(layer.weight_scale[...])
            found[layer.op.name] = (whole * unit).astype(np.float32)
        return found


def quantize(
    imported: Imported,
    widths: Widths,
    pixels: UInt8[np.ndarray, "n h w c"],
    recipe: Recipe = RECIPE,
    progress: Progress = silent,
) -> Quantized:
    """The network in integers.

    Args:
      imported: in floating point.
      widths: bits of every tensor.
      pixels: pictures to calibrate on; none is asked for its label.
      recipe: how; so many of the pictures are used as it says.
      progress: told of every layer.

    Raises:
      GraphError: the network does not fit these widths; says where.
    """
    x = integer_input(pixels[: recipe.pool], imported.architecture.zero)
    student = QuantNet(imported.architecture, widths)
    steps = len(imported.architecture.layers) + 1
    progress("channel factors", 0, steps)
    unscaled = FoldedNet.of(imported.architecture, imported.of_integers())
    net = ranged(unscaled, student, x[: recipe.images])
    done = 0

    def say(text: str) -> None:
        nonlocal done
        done += 1
        progress(text, done, steps)

    fit(student, net, x, recipe, say)
    graph, weights = export(student, exact=False)
    progress("quantized", steps, steps)
    return Quantized(with_norms(graph, weights), weights, student, net)


def save(
    path: Any, made: Quantized, imported: Imported, calibration: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes a network's file, and what is known of how it came to be; returns that.

    Args:
      path: where to.
      made: the network.
      imported: what it is made of.
      calibration: on what, and how.
    """
    meta = description(imported, made.student.widths, calibration)
    save_model(path, made.graph, made.weights, meta)
    return meta


def description(
    imported: Imported, widths: Widths, calibration: Mapping[str, Any]
) -> dict[str, Any]:
    """A model file's: class names, how pictures are scaled, and provenance."""
    pixels = imported.pixels
    meta: dict[str, Any] = {
        "network": imported.architecture.name,
        "source": dict(imported.source),
        "pixels": {"mean": pixels.mean, "std": pixels.std, "bgr": pixels.bgr},
        "widths": dataclasses.asdict(widths),
        "calibration": dict(calibration),
        "method": METHOD,
        "versions": {"pqjax": VERSION, "jax": jax.__version__, "numpy": np.__version__},
    }
    if imported.classes:
        meta["classes"] = list(imported.classes)
    if pixels.shorter is not None:
        meta["shorter"] = pixels.shorter
    return meta


def felt(
    net: FoldedNet,
    kernels: Mapping[str, np.ndarray],
    pixels: UInt8[np.ndarray, "n h w c"],
    progress: Progress = silent,
) -> dict[str, float]:
    """What a network's answers lose by other kernels, one layer's at a time, without labels.

    Args:
      net: in floating point.
      kernels: of some layers, by name.
      pixels: pictures, of which the first `PROBED` are asked about.
      progress: told of every layer.

    Returns:
      By layer: the mean square that the logits move by, over their variance.
    """
    x = integer_input(pixels[:PROBED], net.architecture.zero)
    wanted = net.logits(x, batch=PROBED)
    found = {}
    for at, (name, kernel) in enumerate(kernels.items()):
        progress(f"{name}: probed", at, len(kernels))
        changed = [
            (kernel if layer.name == name else before, bias)
            for layer, (before, bias) in zip(net.architecture.layers, net.weights, strict=True)
        ]
        off = dataclasses.replace(net, weights=changed).logits(x, batch=PROBED) - wanted
        found[name] = float(np.square(off).mean() / max(wanted.var(), 1e-30))
    progress("probed", len(kernels), len(kernels))
    return found


def rounded(kernel: np.ndarray, bits: int) -> np.ndarray:
    """A kernel with weights of so many bits at their best power-of-two scale."""
    unit, high = 2.0 ** float(best_weight_scale(kernel, bits)), 2 ** (bits - 1)
    return (np.clip(np.floor(kernel * unit + 0.5), -high, high - 1) / unit).astype(np.float32)
