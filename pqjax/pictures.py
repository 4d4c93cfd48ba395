"""Pictures as network inputs: any readable file, resized and centred to the graph's input format."""

import csv
import pathlib
import typing
from collections.abc import Callable, Sequence

import numpy as np

from pqjax.errors import DataError, InputError
from pqjax.graph.ir import Graph

FOLDERS = "folders"  # instead of a file of labels: every picture's folder names its class
_SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read_picture(path: pathlib.Path | str | typing.BinaryIO, called: str = "") -> np.ndarray:
    """Reads a picture file: uint8 (H, W, 3), transparency on white, orientation applied.

    Of an animation the first frame; grey levels of 16 bits keep their upper 8.

    Args:
      path: the file, or what is in it, to be read in bytes.
      called: what errors call it, if not by its path.

    Raises:
      DataError: there is no such file, or it is not a whole picture that can be held in memory.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I;16"):  # conversion would cut at 255: all white
                return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                rgba = picture.convert("RGBA")
                ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
                picture = Image.alpha_composite(ground, rgba)
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise DataError(f"no picture at {called or path}") from error
    except Exception as error:  # every format's reader has errors of its own, some of them bare
        raise DataError(f"{called or path} is not a readable picture: {error}") from error


def fit_picture(
    picture: np.ndarray, side: tuple[int, int], shorter: int | None = None
) -> np.ndarray:
    """Scales the shorter side and cuts the centre: uint8 (H, W, 3) of the given height and width.

    Args:
      picture: uint8 (H, W, 3); of the given sides already, it stays as it is.
      side: height and width.
      shorter: what the shorter side is scaled to, at least as much as the lesser of the given ones; None
        for no more than is cut.
    """
    from PIL import Image, ImageOps

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"a picture is uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
    height, width = side
    if picture.shape[:2] == (height, width):
        return picture
    grown = (shorter or min(side)) / min(side)
    whole = (round(width * grown), round(height * grown))
    fitted = ImageOps.fit(Image.fromarray(picture), whole, Image.Resampling.BILINEAR)
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    return np.asarray(fitted)[top : top + height, left : left + width]


def picture_input(graph: Graph, picture: np.ndarray, shorter: int | None = None) -> np.ndarray:
    """A picture as the integers that a graph with 8-bit pixels expects, of three channels or one (grey).

    It is fitted by `fit_picture`.

    Signed inputs are pixel - 128 (zero padding is then mid-grey), unsigned ones the pixel itself. Grey
    is the luminance of ITU-R BT.601.
    """
    out = graph.input.out
    if out.bits != 8:
        raise InputError(
            f"the network takes {out.shape} of {out.bits} bits, which is no 8-bit picture, RGB or grey: "
            "pass integers in an .npy file instead"
        )
    pixels = picture_pixels(out.shape, picture, shorter).astype(np.int64)
    return pixels - 128 if out.signed else pixels


def picture_pixels(
    shape: tuple[int, ...], picture: np.ndarray, shorter: int | None = None
) -> np.ndarray:
    """A picture in a network's shape (H, W, C), uint8: of three channels or one, grey, see above."""
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InputError(
            f"the network takes {shape}, which is no 8-bit picture, RGB or grey: pass integers in an "
            ".npy file instead"
        )
    fitted = fit_picture(picture, shape[:2], shorter)
    if shape[2] == 1:
        from PIL import Image

        fitted = np.asarray(Image.fromarray(fitted).convert("L"))[..., None]
    return fitted


def picture_files(folder: pathlib.Path | str, instead: str) -> list[pathlib.Path]:
    """The pictures in a folder and those within, in the order of their names.

    Raises:
      DataError: there are none; names what may be given `instead`.
    """
    found = [
        each
        for each in sorted(pathlib.Path(folder).rglob("*"))
        if each.suffix.lower() in _SUFFIXES and each.is_file()
    ]
    if not found:
        raise DataError(
            f"no pictures in {folder}: a folder with {', '.join(sorted(_SUFFIXES))} files expected, or "
            f"{instead}"
        )
    return found


def labelling(
    labels: str, folder: pathlib.Path, classes: Sequence[str]
) -> Callable[[pathlib.Path], int]:
    """From a picture's path to its label.

    Args:
      labels: a CSV file with the columns `file` and `label` (a class's number or name), or "folders":
        every picture's folder names its class.
      folder: that the pictures are in.
      classes: names that labels may be.

    Raises:
      DataError: the file cannot be read; or, of a picture, it has no label, or one of no class.
    """
    numbers = {name: i for i, name in enumerate(classes)}

    def number(text: str, file: object) -> int:
        if text in numbers:
            return numbers[text]
        if text.isascii() and text.isdigit() and (not classes or int(text) < len(classes)):
            return int(text)
        raise DataError(f"{file}: a class's number or name expected as its label, got {text!r}")

    if labels == FOLDERS:
        return lambda file: number(file.parent.name, file)
    try:
        with open(labels, newline="", encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the labels {labels}: {error}") from error
    if not rows or not {"file", "label"} <= set(rows[0]):
        raise DataError(f"{labels}: columns file and label expected")
    said = {pathlib.PurePath(row["file"] or "").name: row["label"] or "" for row in rows}

    def looked_up(file: pathlib.Path) -> int:
        if file.name not in said:
            raise DataError(f"{labels} has no label for {file.relative_to(folder)}")
        return number(said[file.name], file.name)

    return looked_up
