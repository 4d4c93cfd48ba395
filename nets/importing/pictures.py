"""Pictures to calibrate on, as a network reads them, and their labels where they are known."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from pqjax.errors import DataError, InputError
from pqjax.graph.bounds import Shape
from pqjax.pictures import labelling, picture_files, picture_pixels, read_picture

_SEED = 0


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What a network is calibrated on.

    Attributes:
      pixels: as the network reads them.
      labels: of all, or None.
      origin: where they are from.
    """

    pixels: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"] | None
    origin: str

    @property
    def digest(self) -> str:
        """SHA-256 of the pixels."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


def read_pictures(
    path: pathlib.Path | str, shape: Shape, shorter: int | None, most: int,
    labels: str | None = None, classes: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> Pictures:  # fmt: skip
    """Pictures of a folder and those within, or an .npy file of integers 0..255.

    Args:
      path: of the folder or file.
      shape: of the network's input (H, W, C).
      shorter: what their shorter side is scaled to, see `pqjax.pictures.fit_picture`.
      most: so many are drawn if there are more, always the same ones.
      labels: a CSV file with the columns `file` and `label` (a class's number or name), or "folders";
        None where labels are not known.
      classes: names that labels may be.
      progress: told how many of all are read.

    Raises:
      DataError: there are none, one is unreadable, or a label is missing or of no class.
    """
    path = pathlib.Path(path)
    if path.suffix == ".npy":
        return _array(path, shape, most, labels)
    files = picture_files(path, "an .npy file of integers 0..255")
    order = np.sort(np.random.default_rng(_SEED).permutation(len(files))[:most])
    files = [files[i] for i in order]
    label_of = None if labels is None else labelling(labels, path, classes)
    pixels, known = [], []
    for i, file in enumerate(files):
        progress(i, len(files))
        try:
            pixels.append(picture_pixels(shape, read_picture(file), shorter))
        except InputError as error:
            raise DataError(f"{file}: {error}") from error
        if label_of is not None:
            known.append(label_of(file))
    progress(len(files), len(files))
    found = None if label_of is None else np.array(known, np.int64)
    return Pictures(np.stack(pixels), found, path.name)


def _array(path: pathlib.Path, shape: Shape, most: int, labels: str | None) -> Pictures:
    if labels is not None:
        raise DataError("labels go with a folder of pictures, not with an .npy file")
    try:
        given = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError, SyntaxError) as error:
        raise DataError(f"cannot read the pictures {path}: {error}") from error
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "iu" or given.size == 0:
        raise DataError(f"{path}: an array of integers 0..255 expected")
    if given.shape[1:] != tuple(shape):
        raise DataError(
            f"{path}: pictures (n, {', '.join(map(str, shape))}) expected, got {given.shape}"
        )
    pixels = np.array(given[:most])
    if pixels.min() < 0 or pixels.max() > 255:
        raise DataError(f"{path}: integers 0..255 expected, got {pixels.min()}..{pixels.max()}")
    return Pictures(pixels.astype(np.uint8), None, path.name)
