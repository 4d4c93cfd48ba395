"""What a network is made of: named steps on (height, width, channels) tensors, written down once.

The float network, batch-norm folding, the quantized network and the exported graph are all read off
an `Architecture`; none of them knows a network by name.
"""

import dataclasses
import functools
from typing import Literal

from pqjax.errors import GraphError

Shape = tuple[int, ...]
Activation = Literal["relu", "relu6"]


@dataclasses.dataclass(frozen=True)
class Conv:
    """Convolution with batch norm: odd square window, half a window of zeros around the image."""

    name: str
    source: str
    channels: int
    window: int = 3
    stride: int = 1
    depthwise: bool = False
    activation: Activation | None = "relu"


@dataclasses.dataclass(frozen=True)
class Join:
    """Sum of a residual block's last convolution and its shortcut."""

    name: str
    source: str  # the convolution, which has no activation of its own
    shortcut: str
    activation: Activation | None = "relu"


@dataclasses.dataclass(frozen=True)
class Halve:
    """Shortcut without weights: every second row and column, zero channels on either side."""

    name: str
    source: str
    channels: int


@dataclasses.dataclass(frozen=True)
class Pool:
    """Mean or largest value of square windows that tile the image."""

    name: str
    source: str
    window: int
    kind: Literal["mean", "max"] = "mean"


@dataclasses.dataclass(frozen=True)
class Fc:
    """Fully connected layer with bias on the flattened tensor; the last step of a network."""

    name: str
    source: str
    channels: int


Step = Conv | Join | Halve | Pool | Fc
INPUT = "input"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Steps in order of execution; the first reads `INPUT`, the last is the `Fc`."""

    name: str
    shape: Shape  # of the image
    steps: tuple[Step, ...]

    def __post_init__(self):
        if not self.steps or not isinstance(self.steps[-1], Fc):
            raise GraphError(f"{self.name}: the last step must be an Fc")
        if len({step.name for step in self.steps}) != len(self.steps):
            raise GraphError(f"{self.name}: names of steps must be unique")
        _ = self.shapes

    @functools.cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of the input and of every step's output."""
        found = {INPUT: self.shape}
        for step in self.steps:
            for source in sources(step):
                if source not in found:
                    raise GraphError(f"{step.name}: {source!r} is not an earlier step")
            found[step.name] = _shape(step, found)
        return found

    @property
    def weighted(self) -> tuple[Conv | Fc, ...]:
        """The steps that have weights, in order."""
        return tuple(step for step in self.steps if isinstance(step, (Conv, Fc)))

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.shapes[self.steps[-1].name][0]

    def __getitem__(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def readers(self, name: str) -> tuple[Step, ...]:
        """The steps that read a step's output."""
        return tuple(step for step in self.steps if name in sources(step))

    def kernel_shape(self, step: Conv | Fc) -> Shape:
        """(h, w, channels in, channels out) of a convolution, (in, out) of an `Fc`."""
        source = self.shapes[step.source]
        if isinstance(step, Fc):
            return (_elements(source), step.channels)
        return (step.window, step.window, 1 if step.depthwise else source[2], step.channels)


def sources(step: Step) -> tuple[str, ...]:
    """Names of what a step reads."""
    return (step.source, step.shortcut) if isinstance(step, Join) else (step.source,)


def _elements(shape: Shape) -> int:
    return functools.reduce(lambda a, b: a * b, shape, 1)


def _shape(step: Step, found: dict[str, Shape]) -> Shape:
    source = found[step.source]
    if isinstance(step, Fc):
        return (step.channels,)
    if len(source) != 3:
        raise GraphError(f"{step.name}: an image is needed, got shape {source}")
    h, w, c = source
    if isinstance(step, Conv):
        if step.window % 2 == 0 or (step.depthwise and step.channels != c):
            raise GraphError(f"{step.name}: odd window and, if depthwise, {c} channels expected")
        return (-(-h // step.stride), -(-w // step.stride), step.channels)
    if isinstance(step, Halve):
        if step.channels < c or (step.channels - c) % 2:
            raise GraphError(f"{step.name}: cannot pad {c} channels evenly to {step.channels}")
        return (-(-h // 2), -(-w // 2), step.channels)
    if isinstance(step, Pool):
        if h % step.window or w % step.window:
            raise GraphError(f"{step.name}: windows of {step.window} do not tile {h}x{w}")
        return (h // step.window, w // step.window, c)
    if found[step.shortcut] != source:
        raise GraphError(f"{step.name}: cannot add {source} and {found[step.shortcut]}")
    return source
