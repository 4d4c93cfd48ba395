"""`make exp-resnet18`: private ResNet18, HEQuant's network, on CIFAR-100 and at ImageNet's 224x224.

For CIFAR-100 it is the trained network of this repository if there is one; that of ImageNet's shape has
random weights from a seed, and says so. Bits, flows and seconds do not depend on them.
"""

import pathlib
import sys

from experiments import inference
from experiments.images import photographs
from nets.architecture import RESNET18, RESNET18_IMAGENET
from nets.ops import Architecture
from nets.quantized import Widths
from nets.untrained import kept_untrained
from pqjax.engine.process import cache_folder

SEED = 18
BITS = "W4A4R8"


def untrained(architecture: Architecture, text: str = BITS) -> pathlib.Path:
    """The file of a network of random weights, made on the first run.

    Args:
      architecture: of square pictures.
      text: bits, as `Widths.parse` reads them; what is averaged keeps 8 of them.
    """
    high, wide, _ = architecture.image
    images, _ = photographs((high, wide))
    widths = Widths.parse(text, architecture)
    return kept_untrained(architecture, widths, text.lower(), images, SEED, cache_folder())


def networks() -> tuple[inference.Network, ...]:
    """The trained ones, or an untrained one, and that of ImageNet's shape."""
    trained = sorted(inference.CHECKPOINTS.glob("resnet18_w*.npz"))
    small = [inference.committed(path.stem, "cifar100") for path in trained]
    if not small:
        name = f"resnet18_{BITS.lower()}"
        small = [inference.Network(name, "cifar100", lambda: untrained(RESNET18))]
    name = f"resnet18_{BITS.lower()}_224x224"
    return (*small, inference.Network(name, "imagenet", lambda: untrained(RESNET18_IMAGENET)))


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/resnet18.json` and `.md`."""
    title = "ResNet18, CIFAR-100 and 224x224"
    return inference.main(inference.Job("resnet18", title, networks()), arguments)


if __name__ == "__main__":
    sys.exit(main())
