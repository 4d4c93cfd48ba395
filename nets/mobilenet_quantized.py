"""MobileNetV2 in low-bit integers, from Google's weights: made once, kept in the cache.

    python -m nets.mobilenet_quantized mobilenetv2.npz --setting W8A8

What is kept is derived from third-party weights and photographs; it is not part of the repository.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import pathlib
import shutil
import sys

import numpy as np

from nets.architecture import MOBILENETV2
from nets.data import cache_folder, integer_input
from nets.export import export
from nets.folded import FoldedNet
from nets.labels import imagenet
from nets.malloc import keep_freed_memory
from nets.mobilenet import SHA256, read_mobilenet
from nets.ops import Architecture
from nets.photographs import CALIBRATION, load_photographs
from nets.ptq import Recipe, Say, quantized
from nets.quantized import Widths
from pqjax.errors import CheckpointError, GraphError, PqjaxError
from pqjax.graph import load_model, save_model, with_norms


@dataclasses.dataclass(frozen=True)
class Setting:
    """Bits of MobileNetV2's tensors.

    Attributes:
      name: as results call it.
      weights: of the 1x1 convolutions.
      depthwise: of the depthwise ones, which are 7 % of all products.
      ends: of the first layer and of the FC.
      activations: of what layers read; unsigned after ReLU6, signed after bottlenecks.
      residual: of what is added.
    """

    name: str
    weights: int
    depthwise: int
    ends: int
    activations: int
    residual: int = 8

    def widths(self, architecture: Architecture = MOBILENETV2) -> Widths:
        """By layer."""
        last = len(architecture.layers) - 1
        bits = [
            self.ends if i in (0, last) else self.depthwise if layer.groups > 1 else self.weights
            for i, layer in enumerate(architecture.layers)
        ]
        return Widths(tuple(bits), self.activations, residual=self.residual, head=8)


SETTINGS = {
    s.name: s
    for s in (
        Setting("W8A8", 8, 8, 8, 8),
        Setting("W6A6", 6, 6, 8, 6, 10),
        Setting("W4A6", 4, 4, 8, 6, 10),
        Setting("W4A4", 4, 4, 8, 4, 10),
        Setting("mixed W4/8A8", 4, 8, 8, 8),
        Setting("mixed W4/8A6", 4, 8, 8, 6, 10),
    )
}

METHOD = 3  # of quantization; a file made by another is made again
RECIPE = Recipe()


def kept_mobilenet(setting: Setting, say: Say = lambda text: None) -> pathlib.Path:
    """The network's file: made from PQJAX_DATA's weights and calibration set unless it is there.

    Raises:
      CheckpointError, DataError: weights or photographs are missing or altered.
    """
    meta = {
        "weights": SHA256, "method": METHOD, "setting": dataclasses.asdict(setting),
        "recipe": dataclasses.asdict(RECIPE), "classes": list(imagenet()),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:12]
    path = cache_folder() / f"mobilenetv2_{key}.npz"
    try:
        if load_model(path)[2] == meta:
            return path
    except (CheckpointError, GraphError):
        pass  # absent, or of another version
    photographs, _ = load_photographs(CALIBRATION)
    order = np.random.default_rng(RECIPE.seed).permutation(len(photographs))
    x = integer_input(photographs[order[: RECIPE.pool]])
    net = FoldedNet.of(MOBILENETV2, read_mobilenet())
    graph, weights = export(quantized(net, setting.widths(), x, RECIPE, say))
    save_model(path, with_norms(graph, weights), weights, meta)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Writes a network file that `pqjax serve` takes."""
    options = argparse.ArgumentParser(
        prog="python -m nets.mobilenet_quantized",
        description="Quantizes Google's MobileNetV2 (PQJAX_DATA) and writes a network file.",
    )
    options.add_argument("file", type=pathlib.Path, help="where to")
    options.add_argument("--setting", default="W8A8", choices=list(SETTINGS), help="bits")
    args = options.parse_args(arguments)
    try:
        found = kept_mobilenet(
            SETTINGS[args.setting], lambda text: print(text, file=sys.stderr, flush=True)
        )
        shutil.copyfile(found, args.file)
    except (PqjaxError, OSError) as error:
        print(f"nets.mobilenet_quantized: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
