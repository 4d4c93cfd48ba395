"""Inputs with their labels: an .npz file of integers, or a folder of pictures."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from pqjax.errors import DataError, InputError
from pqjax.graph import Graph
from pqjax.graph.reference import check_input
from pqjax.pictures import labelling, picture_files, picture_input, read_picture


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """Inputs that are read part by part.

    Attributes:
      labels: of all.
      read: some of them, as the network takes them.
    """

    labels: Int[np.ndarray, " n"]
    read: Callable[[slice], Int[np.ndarray, "n ..."]]


def read_labelled(
    path: str,
    graph: Graph,
    labels: str | None = None,
    classes: Sequence[str] = (),
    shorter: int | None = None,
    most: int | None = None,
) -> Labelled:
    """Inputs for a network.

    Args:
      path: an .npz file with `x`, integers (n, ...) as the network takes them, and `y`, n classes; or a
        folder of pictures.
      graph: the network.
      labels: of pictures, see `pqjax.pictures.labelling`.
      classes: their names.
      shorter: see `pqjax.pictures.fit_picture`.
      most: no more than the first so many.

    Raises:
      DataError: it cannot be read, does not fit the network, or lacks labels.
    """
    if pathlib.Path(path).is_dir():
        if labels is None:
            raise DataError(f"{path}: pictures need --labels, a CSV file or folders")
        files = picture_files(path, "an .npz file with x and y")[:most]
        label_of = labelling(labels, pathlib.Path(path), classes)

        def read(part: slice) -> Int[np.ndarray, "n ..."]:
            return np.stack([_picture(graph, file, shorter) for file in files[part]])

        return Labelled(np.array([label_of(file) for file in files], np.int64), read)
    if labels is not None:
        raise DataError("--labels go with a folder of pictures; an .npz file has its own")
    x, y = _arrays(path)
    try:
        x = check_input(graph, x[:most])
    except InputError as error:
        raise DataError(f"{path}, {x.dtype} of shape {x.shape}: {error}") from error
    return Labelled(y[:most].astype(np.int64), lambda part: x[part])


def _picture(graph: Graph, file: pathlib.Path, shorter: int | None) -> Int[np.ndarray, "h w c"]:
    try:
        return picture_input(graph, read_picture(file), shorter)
    except InputError as error:
        raise DataError(f"{file}: {error}") from error


def _arrays(path: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            x, y = found["x"], found["y"]
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"cannot read the data {path}: an .npz file with x and y, or a folder of pictures expected "
            f"({error})"
        ) from error
    if y.ndim != 1 or y.dtype.kind not in "iu" or x.ndim < 2 or len(x) != len(y) or not len(y):
        raise DataError(
            f"{path}: x of shape (n, ...) and y, n classes, expected, got {x.shape} and {y.dtype} "
            f"{y.shape}"
        )
    return x, y
