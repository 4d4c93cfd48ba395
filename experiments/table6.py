"""`make exp-table6`: which of weights and activations hurts ResNet32; see `experiments.table7`."""

from __future__ import annotations

import sys

from experiments import table7


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/table6.json` and `.md`."""
    return table7.main(arguments, "table6")


if __name__ == "__main__":
    sys.exit(main())
