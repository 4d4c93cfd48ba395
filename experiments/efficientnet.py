"""`make exp-efficientnet`: private EfficientNet-Lite0 on 224x224 photographs, two processes.

Its weights are real and come with this environment, as scikit-image's photographs do: answers by name
from a bare clone. It is calibrated on parts of those, or on ImageNet's pictures if PQJAX_DATA is set.
"""

import sys

from experiments import imagenet

PROTOCOLS = ("pqjax", "pqjax-ot", "privquant")
NETWORK = imagenet.Network("efficientnet", "efficientnet-lite0", PROTOCOLS, bundled=True)


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/efficientnet.json`, `.md`, traces and pictures."""
    return imagenet.main(NETWORK, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
