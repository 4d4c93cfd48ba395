"""The networks that the commands know by name, and what each is trained on."""

import dataclasses

from nets.architecture import Architecture
from nets.minionn import MINIONN
from nets.resnet import RESNET32


@dataclasses.dataclass(frozen=True)
class Entry:
    """An architecture and the data set that it is for."""

    architecture: Architecture
    data: str


ZOO = {"minionn": Entry(MINIONN, "cifar10"), "resnet32": Entry(RESNET32, "cifar100")}
