"""Where the experiments' pictures come from: PQJAX_DATA, CIFAR's public home, or scikit-image."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import sys
import tarfile
import urllib.error
import urllib.request

import numpy as np
from jaxtyping import Integer, UInt8

from nets.data import load_cifar
from nets.photographs import TEST, load_photographs
from pqjax.engine.process import cache_folder
from pqjax.errors import DataError
from pqjax.graph import Graph
from pqjax.pictures import fit_picture, picture_input, read_picture


@dataclasses.dataclass(frozen=True)
class _Home:
    """The original archive of a data set, as its page publishes it."""

    title: str
    url: str
    md5: str
    member: str
    labels: int  # bytes before a picture; the last one is its label


_HOMES = {
    "cifar10": _Home(
        "CIFAR-10",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin/test_batch.bin",
        labels=1,
    ),
    "cifar100": _Home(
        "CIFAR-100",
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-binary/test.bin",
        labels=2,
    ),
}
_TIMEOUT_S = 20.0
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def cifar_test(
    name: str,
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Integer[np.ndarray, " n"] | None, str]:
    """Pictures for a CIFAR network and where they come from.

    Args:
      name: "cifar10" or "cifar100".

    Returns:
      uint8 (n, 32, 32, 3), labels (n,) if there are any, and the origin in words.
    """
    home = _HOMES[name]
    if os.environ.get("PQJAX_DATA"):
        images, labels = load_cifar(name, "test")
        return images, labels, f"{home.title} test set from PQJAX_DATA"
    try:
        images, labels = _downloaded(home)
        return images, labels, f"{home.title} test set from its public home"
    except (OSError, DataError) as error:
        print(
            f"{home.title} is not at hand ({error}); using scikit-image's photographs, resized to "
            f"32x32: they have no {home.title} labels",
            file=sys.stderr,
        )
    photos, _ = photographs((32, 32))
    return photos, None, "photographs of scikit-image, resized to 32x32 (no labels)"


def _downloaded(home: _Home) -> tuple[np.ndarray, np.ndarray]:
    """The original test batch, fetched once and checked."""
    kept = cache_folder() / home.url.rsplit("/", 1)[1]
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with (
                urllib.request.urlopen(home.url, timeout=_TIMEOUT_S) as source,
                open(part, "wb") as to,
            ):
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    to.write(chunk)
        except urllib.error.URLError as error:
            part.unlink(missing_ok=True)
            raise DataError(f"cannot download {home.url}: {error.reason}") from error
        if digest.hexdigest() != home.md5:
            part.unlink(missing_ok=True)
            raise DataError(f"{home.url}: MD5 {home.md5} expected, got {digest.hexdigest()}")
        os.replace(part, kept)
    try:
        with tarfile.open(kept) as archive:
            member = archive.extractfile(home.member)
            if member is None:
                raise DataError(f"{kept} holds no {home.member}")
            raw = np.frombuffer(member.read(), np.uint8).reshape(10_000, 3072 + home.labels)
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise DataError(f"{kept} is damaged ({error}): delete it") from error
    pixels = raw[:, home.labels :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return pixels, raw[:, home.labels - 1]


def photographs(size: tuple[int, int]) -> tuple[UInt8[np.ndarray, "n h w 3"], list[str]]:
    """The photographs that scikit-image's wheel carries, centre cut and scaled, and their names."""
    return np.stack([fit_picture(picture, size) for picture in _whole()]), list(_PHOTOGRAPHS)


def _whole() -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """The same as they are."""
    from skimage import data

    return [getattr(data, name)() for name in _PHOTOGRAPHS]


@dataclasses.dataclass(frozen=True)
class Questions:
    """What is asked: integer inputs, the pictures' names, and labels where they are known."""

    inputs: Integer[np.ndarray, "n ..."]
    names: list[str]
    labels: list[int | None]


def questions(
    graph: Graph, image: pathlib.Path | None, labelled: int, count: int, shorter: int | None = None
) -> Questions:
    """What an experiment's options ask for.

    Args:
      graph: whose input the pictures become; 224x224 unless it is a picture of one's own.
      image: a picture of one's own, or None.
      labelled: so many labelled photographs of PQJAX_DATA, evenly spaced; 0 for none.
      count: else so many of scikit-image's.
      shorter: what pictures' shorter side is scaled to, see `pqjax.pictures.fit_picture`.
    """
    if image is not None:
        x = picture_input(graph, read_picture(image), shorter)[None]
        return Questions(x, [image.name], [None])
    if labelled:
        images, labels = load_photographs(TEST)
        if labelled > len(images):
            raise DataError(f"{TEST} holds {len(images)} photographs, got LABELLED={labelled}")
        pick = np.linspace(0, len(images) - 1, labelled).astype(int)
        x = np.stack([picture_input(graph, images[i]) for i in pick])
        return Questions(x, [f"{TEST} {i}" for i in pick], [int(labels[i]) for i in pick])
    x = np.stack([picture_input(graph, p, shorter) for p in _whole()[:count]])
    return Questions(x, list(_PHOTOGRAPHS[:count]), [None] * count)
