"""Networks at hand in low-bit integers: made once, kept in the cache.

What is kept is derived from third-party weights and photographs; it is not part of the repository.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib

import numpy as np

from nets.data import cache_folder
from nets.importing.named import NAMED, PARTS, crops
from nets.importing.pictures import Pictures
from nets.importing.quantize import RECIPE, Progress, description, quantize, save, silent
from nets.photographs import CALIBRATION, SIDE, load_photographs
from nets.setting import Setting
from pqjax.errors import CheckpointError, GraphError
from pqjax.graph import load_model


def kept(name: str, setting: Setting, progress: Progress = silent) -> pathlib.Path:
    """The file of one of `NAMED`: made unless it is there.

    It is calibrated on ImageNet's training pictures where PQJAX_DATA is set, else on scikit-image's
    photographs.

    Raises:
      CheckpointError, DataError: weights or photographs are missing or altered.
    """
    imported, pictures = NAMED[name].read(), calibration()
    widths = setting.widths(imported.architecture)
    about = {
        "pictures": pictures.origin, "sha256": pictures.digest, "setting": dataclasses.asdict(setting),
        "recipe": dataclasses.asdict(RECIPE),
    }  # fmt: skip
    meta = json.loads(json.dumps(description(imported, widths, about)))
    key = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:12]
    path = cache_folder() / f"{imported.architecture.name}_{key}.npz"
    try:
        if load_model(path)[2] == meta:
            return path
    except (CheckpointError, GraphError):
        pass  # absent, or of another version
    save(path, quantize(imported, widths, pictures.pixels, RECIPE, progress), imported, about)
    return path


def shown(progress: Progress = silent) -> pathlib.Path:
    """The file of the network that `pqjax demo` shows.

    Raises:
      CheckpointError, DataError: as `kept`.
    """
    return kept("efficientnet-lite0", Setting.parse("W8A8"), progress)


def calibration() -> Pictures:
    """The pictures that networks at hand are calibrated on, as many as `RECIPE` takes."""
    if not os.environ.get("PQJAX_DATA"):
        return Pictures(crops((SIDE, SIDE), RECIPE.pool), None, PARTS)
    photographs, labels = load_photographs(CALIBRATION)
    order = np.random.default_rng(RECIPE.seed).permutation(len(photographs))[: RECIPE.pool]
    return Pictures(photographs[order], labels[order], CALIBRATION)
