"""Where the experiments' pictures come from: PQJAX_DATA, CIFAR's public home, or scikit-image."""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
import urllib.error
import urllib.request

import numpy as np

from nets.data import load_cifar10
from pqjax.engine.process import cache_folder
from pqjax.errors import DataError
from pqjax.pictures import fit_picture

_HOME = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as published on the data set's page
_TIMEOUT_S = 20.0
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def cifar10_test() -> tuple[np.ndarray, np.ndarray | None, str]:
    """Pictures for MiniONN: uint8 (n, 32, 32, 3), labels (n,) if there are any, and their origin."""
    if os.environ.get("PQJAX_DATA"):
        images, labels = load_cifar10("test")
        return images, labels, "CIFAR-10 test set from PQJAX_DATA"
    try:
        images, labels = _downloaded()
        return images, labels, "CIFAR-10 test set from its public home"
    except (OSError, DataError) as error:
        print(
            f"CIFAR-10 is not at hand ({error}); using scikit-image's photographs, resized to "
            "32x32: they have no CIFAR-10 labels",
            file=sys.stderr,
        )
    return _photographs(), None, "photographs of scikit-image, resized to 32x32 (no labels)"


def _downloaded() -> tuple[np.ndarray, np.ndarray]:
    """The original test batch, fetched once and checked."""
    kept = cache_folder() / "cifar-10-binary.tar.gz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with (
                urllib.request.urlopen(_HOME, timeout=_TIMEOUT_S) as source,
                open(part, "wb") as to,
            ):
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    to.write(chunk)
        except urllib.error.URLError as error:
            part.unlink(missing_ok=True)
            raise DataError(f"cannot download {_HOME}: {error.reason}") from error
        if digest.hexdigest() != _MD5:
            part.unlink(missing_ok=True)
            raise DataError(f"{_HOME}: MD5 {_MD5} expected, got {digest.hexdigest()}")
        os.replace(part, kept)
    try:
        with tarfile.open(kept) as archive:
            member = archive.extractfile("cifar-10-batches-bin/test_batch.bin")
            if member is None:
                raise DataError(f"{kept} holds no test batch")
            raw = np.frombuffer(member.read(), np.uint8).reshape(10_000, 3073)
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise DataError(f"{kept} is damaged ({error}): delete it") from error
    return raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), raw[:, 0]


def _photographs() -> np.ndarray:
    """The photographs that scikit-image's wheel carries, centre cut and scaled."""
    from skimage import data

    return np.stack([fit_picture(getattr(data, name)(), (32, 32)) for name in _PHOTOGRAPHS])
