"""CIFAR-10 and CIFAR-100 from the folder that PQJAX_DATA names, decoded once and cached outside."""

import os
import pathlib
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from nets.ops import PIXEL_ZERO
from pqjax.errors import DataError

if TYPE_CHECKING:
    import jax

Pixels = TypeVar("Pixels", np.ndarray, "jax.Array")
DATA_SETS = ("cifar10", "cifar100")
SPLITS = {"train": 50_000, "test": 10_000}
INPUT_SCALE_BITS = 8  # the real value is (pixel - 128) / 2^8, in [-0.5, 0.5), or pixel / 2^8


def data_folder(name: str) -> pathlib.Path:
    """Returns `$PQJAX_DATA/<name>`; raises DataError where there is none."""
    root = os.environ.get("PQJAX_DATA")
    if not root:
        raise DataError(f"PQJAX_DATA is not set: it must name a folder that has {name}/")
    folder = pathlib.Path(root) / name
    if not folder.is_dir():
        raise DataError(f"PQJAX_DATA is {root!r}, but that folder has no {name}/")
    return folder


def cache_folder() -> pathlib.Path:
    """Returns the folder for decoded images: `$XDG_CACHE_HOME/pqjax` or `~/.cache/pqjax`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "pqjax"


def load_cifar(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Loads one split, from the cache when a former call left the decoded images there.

    Args:
      name: "cifar10" or "cifar100".
      split: "train" (50,000 images) or "test" (10,000 images).

    Returns:
      Images, uint8 (n, 32, 32, 3), and labels, uint8 (n,).
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {sorted(SPLITS)}, got {split!r}")
    if name not in DATA_SETS:
        raise ValueError(f"data set must be one of {list(DATA_SETS)}, got {name!r}")
    folder = data_folder(name)
    labels = _read_labels(folder / "labels.npz", split)
    cached = cache_folder() / f"{name}_{split}.npy"
    images = _read_cached(cached)
    if images is None:
        images = _decode(folder, split)
        _write_cached(cached, images)
    if images.shape != (SPLITS[split], 32, 32, 3) or labels.shape != (SPLITS[split],):
        raise DataError(
            f"{split} must hold {SPLITS[split]} images of 32x32x3 and as many labels, "
            f"got {images.shape} and {labels.shape}"
        )
    return images, labels


def integer_input(images: Pixels, zero: int = PIXEL_ZERO) -> Pixels:
    """Turns uint8 pixels, of numpy or jax, into a network's integer input.

    Args:
      images: the pixels.
      zero: the pixel that 0 stands for: 128 (the result is pixel - 128, int8) or 0 (pixels as they are).
    """
    return (images.astype(np.int16) - PIXEL_ZERO).astype(np.int8) if zero else images


def _read_labels(path: pathlib.Path, split: str) -> np.ndarray:
    try:
        # Opened here, because np.load leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive[split].astype(np.uint8)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"cannot read the labels of {split} in {path}: {error}") from error


def _decode(folder: pathlib.Path, split: str) -> np.ndarray:
    import pillow_jxl  # noqa: F401  registers the JPEG-XL decoder with Pillow

    paths = sorted(folder.glob(f"{split}_*.jxl"))
    if not paths:
        raise DataError(f"{folder} has no {split}_*.jxl")
    try:
        stacks = [np.asarray(Image.open(path)).reshape(-1, 32, 32, 3) for path in paths]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot decode the {split} images in {folder}: {error}") from error
    return np.concatenate(stacks)


def _read_cached(path: pathlib.Path) -> np.ndarray | None:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # absent, or cut short by a crash: decode again


def _write_cached(path: pathlib.Path, images: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with open(part, "wb") as file:
        np.save(file, images)
    os.replace(part, path)  # a reader sees the old file or the whole new one
