"""`make exp-mobilenetv2`: private MobileNetV2 on 224x224 photographs, two processes.

With PQJAX_DATA set the network is Google's, quantized here, and knows ImageNet's classes; without it, it
is random weights from a seed, and everything that shows its answers says so.
"""

import sys

from experiments import imagenet

NETWORK = imagenet.Network("mobilenetv2", "mobilenetv2")


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/mobilenetv2.json`, `.md`, traces and pictures."""
    return imagenet.main(NETWORK, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
