"""`make exp-resnet32`: private ResNet32 on CIFAR-100, two processes, beside the published rows."""

import sys

from experiments import inference

NAMES = ("resnet32_w3a6_long", "resnet32_w4a6_long")
NETWORKS = tuple(inference.committed(name, "cifar100") for name in NAMES)
JOB = inference.Job("resnet32", "ResNet32, CIFAR-100", NETWORKS, column=1)


def main(arguments: list[str] | None = None) -> int:
    """Writes the job's results, `.json` and `.md`."""
    return inference.main(JOB, arguments)


if __name__ == "__main__":
    sys.exit(main())
