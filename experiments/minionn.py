"""`make exp-minionn`: private MiniONN on CIFAR-10, two processes, beside the published rows."""

import sys

from experiments import inference

NAMES = ("minionn_w2a4_long", "minionn_w4a4_long")
NETWORKS = tuple(inference.committed(name, "cifar10") for name in NAMES)
JOB = inference.Job("minionn", "MiniONN, CIFAR-10", NETWORKS, column=0)


def main(arguments: list[str] | None = None) -> int:
    """Writes the job's results, `.json` and `.md`."""
    return inference.main(JOB, arguments)


if __name__ == "__main__":
    sys.exit(main())
