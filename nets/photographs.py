"""Labelled photographs of ImageNet's classes from the folder that PQJAX_DATA names.

`imagenet_nips2017`: 1,000 photographs that no ImageNet network was trained on. `imagenet_train1000`: one
training picture of each class, for calibration. Files are checked, decoded once and cached.
"""

from __future__ import annotations

import csv
import hashlib
import pathlib

import numpy as np

from nets.data import cache_folder, data_folder
from pqjax.errors import DataError

TEST, CALIBRATION = "imagenet_nips2017", "imagenet_train1000"
SIDE = 224
ORIGIN = {
    TEST: "dataset/ of the GitHub repository ZhengyuZhao/Targeted-Tansfer",
    CALIBRATION: "the GitHub repository EliSchwartz/imagenet-sample-images",
}


def load_photographs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Photographs, uint8 (n, 224, 224, 3), and labels, int64 (n,).

    Raises:
      DataError: the set is not there, or a file is missing or altered; says where it comes from.
    """
    folder, rows = _rows(name)
    labels = np.array([int(row["label"]) for row in rows])
    sums = _checksums(folder, name)
    digest = hashlib.sha256("".join(sorted(sums.values())).encode()).hexdigest()[:16]
    cached = cache_folder() / f"{name}_{digest}.npy"
    try:
        images = np.load(cached, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, or cut short by a crash: decode again
        images = np.stack([_decoded(folder, row["file"], sums, name) for row in rows])
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_suffix(".part.npy")
        np.save(part, images)
        part.replace(cached)
    return images, labels


def _rows(name: str) -> tuple[pathlib.Path, list[dict[str, str]]]:
    try:
        folder = data_folder(name)
        with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or not {"file", "label"} <= set(rows[0]):
            raise DataError(f"{folder / 'labels.csv'} has no columns file and label")
        return folder, rows
    except (OSError, DataError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"no photographs {name}: {error}; they are from {ORIGIN[name]}") from error


def _checksums(folder: pathlib.Path, name: str) -> dict[str, str]:
    try:
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        return {line.split()[1].removeprefix("./"): line.split()[0] for line in lines if line}
    except (OSError, IndexError) as error:
        raise DataError(f"{folder} has no readable SHA256SUMS: {error}") from error


def _decoded(folder: pathlib.Path, file: str, sums: dict[str, str], name: str) -> np.ndarray:
    import io

    from PIL import Image

    path = folder / "images" / file
    try:
        raw = path.read_bytes()
        found = hashlib.sha256(raw).hexdigest()
        if sums.get(f"images/{file}") != found:
            raise DataError(f"{path} was altered: its SHA-256 is not the one in SHA256SUMS")
        with Image.open(io.BytesIO(raw)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; it is from {ORIGIN[name]}") from error
    if pixels.shape != (SIDE, SIDE, 3):
        raise DataError(f"{path}: {SIDE}x{SIDE} pixels expected, got {pixels.shape}")
    return pixels
