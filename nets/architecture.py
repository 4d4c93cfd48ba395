"""Networks as data: layers with names, sources and sizes. Float, quantized and integer form follow.

Every weight layer is a convolution with batch norm, an optional sum with an earlier tensor, an optional
ReLU and average pool; the last one is the FC. Between them lie shortcuts and pools.
"""

from __future__ import annotations

import dataclasses

INPUT = "input"


@dataclasses.dataclass(frozen=True)
class Layer:
    """conv -> norm -> [+ plus] -> ReLU -> [average pool], or the closing FC.

    Attributes:
      name: of the layer and of the tensor it makes.
      source: the tensor it reads.
      window: side of the square kernel; 0 for the FC.
      in_channels, out_channels: for the FC the lengths of its input and output.
      stride: of the convolution.
      plus: the tensor that is added before the ReLU.
      pool: side of the windows that are averaged after the ReLU, a power of two.
      relu: whether there is a ReLU; a layer without is linear (a downsampling, a bottleneck).
      cap: the largest value that the ReLU lets through (6 for ReLU6), None for any.
      groups: 1, or as many as there are channels: a depthwise convolution.
      margins: zeros before and after rows and columns; None for half a window.
    """

    name: str
    source: str
    window: int
    in_channels: int
    out_channels: int
    stride: int = 1
    plus: str | None = None
    pool: int = 1
    relu: bool = True
    cap: float | None = None
    groups: int = 1
    margins: tuple[int, int] | None = None

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros before and after rows and columns."""
        return self.margins or (self.window // 2, self.window // 2)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of the weights."""
        shape = (self.in_channels // self.groups, self.out_channels)
        return (self.window, self.window, *shape) if self.window else shape

    def out_side(self, side: int) -> int:
        """Side of the square result, before the pool."""
        return (side + sum(self.padding) - self.window) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Largest:
    """Largest value of every window, padded by half of it with zeros: it reads nothing negative."""

    name: str
    source: str
    window: int
    stride: int


@dataclasses.dataclass(frozen=True)
class Average:
    """Average over the whole image, of any side: the sum times round(2^t / side^2), shifted by t."""

    name: str
    source: str
    side: int

    @property
    def shift(self) -> int:
        """t: six bits more than the area has, so the factor is right to 1 %."""
        return (self.side**2 - 1).bit_length() + 6

    @property
    def multiplier(self) -> int:
        """round(2^t / side^2)."""
        return round((1 << self.shift) / self.side**2)


@dataclasses.dataclass(frozen=True)
class Shortcut:
    """Every stride-th row and column, zero channels on both sides alike (He et al., option A)."""

    name: str
    source: str
    stride: int
    in_channels: int
    out_channels: int

    @property
    def margin(self) -> int:
        """Zero channels on either side."""
        return (self.out_channels - self.in_channels) // 2


AnyNode = Layer | Shortcut | Largest | Average


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network's shape.

    Attributes:
      name: as commands and files call it.
      data: the data set it is for, see `nets.data`.
      side: of the square input image.
      classes: length of the output.
      nodes: in order; each reads earlier ones.
      signed: whether activations are signed formats with a sign bit of 0, else unsigned ones.
    """

    name: str
    data: str
    side: int
    classes: int
    nodes: tuple[AnyNode, ...]
    signed: bool

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those that have weights, the FC last."""
        return tuple(node for node in self.nodes if isinstance(node, Layer))

    @property
    def convs(self) -> tuple[Layer, ...]:
        """The weight layers but the FC."""
        return self.layers[:-1]

    @property
    def residuals(self) -> frozenset[str]:
        """Layers whose tensors are added somewhere, straight or by a shortcut, or averaged."""
        made_by = {node.name: node for node in self.nodes}
        found = set(self.averaged)
        for layer in self.layers:
            if layer.plus is not None:
                node = made_by[layer.plus]
                found.add(node.source if isinstance(node, Shortcut) else node.name)
        return frozenset(found)

    @property
    def averaged(self) -> frozenset[str]:
        """Layers whose tensors are averaged into what the FC reads."""
        return frozenset(node.source for node in self.nodes if isinstance(node, Average))

    def only_reader(self, name: str) -> Layer | None:
        """The weight layer that alone reads a tensor, if it is read by nothing else."""
        readers = [node for node in self.nodes if node.source == name]
        added = any(layer.plus == name for layer in self.layers)
        if len(readers) != 1 or added or not isinstance(readers[0], Layer):
            return None
        return readers[0]


def _minionn() -> Architecture:
    windows = (3, 3, 3, 3, 3, 1, 1)
    channels = (3, 64, 64, 64, 64, 64, 64, 16)
    nodes: list[AnyNode] = []
    source = INPUT
    for i, window in enumerate(windows, 1):
        pool = 2 if i in (2, 4) else 1
        nodes.append(Layer(f"conv{i}", source, window, channels[i - 1], channels[i], pool=pool))
        source = f"conv{i}"
    nodes.append(Layer("fc", source, 0, 1024, 10))
    return Architecture("minionn", "cifar10", 32, 10, tuple(nodes), signed=False)


def cifar_resnet(
    name: str, data: str, classes: int, blocks: int, stages: tuple[int, ...] = (16, 32, 64),
    projected: bool = False,
) -> Architecture:  # fmt: skip
    """A CIFAR ResNet of He et al. (section 4.2): 2 * blocks layers a stage, the first, and the FC.

    Shortcuts between stages are option A, or convolutions (option B) where they are `projected`.
    """
    nodes: list[AnyNode] = [Layer("conv1", INPUT, 3, 3, stages[0])]
    at, channels = "conv1", stages[0]
    for stage, width in enumerate(stages, 1):
        for block in range(1, blocks + 1):
            prefix = f"s{stage}b{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            plus = at
            if stride > 1:
                plus = f"{prefix}.down" if projected else f"{prefix}.short"
                nodes.append(
                    Layer(plus, at, 1, channels, width, stride, relu=False)
                    if projected
                    else Shortcut(plus, at, stride, channels, width)
                )
            first, second = f"{prefix}.conv1", f"{prefix}.conv2"
            last = stage == len(stages) and block == blocks
            pool = 32 >> (len(stages) - 1) if last else 1
            nodes.append(Layer(first, at, 3, channels, width, stride))
            nodes.append(Layer(second, first, 3, width, width, plus=plus, pool=pool))
            at, channels = second, width
    nodes.append(Layer("fc", at, 0, channels, classes))
    return Architecture(name, data, 32, classes, tuple(nodes), signed=True)


def bottleneck_resnet(
    name: str, side: int = 224, classes: int = 1000, blocks: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 64,
) -> Architecture:  # fmt: skip
    """ResNet50 and its kin: He et al., table 1, with the stride in the 3x3 convolution (torchvision)."""
    nodes: list[AnyNode] = [
        Layer("conv1", INPUT, 7, 3, width, stride=2),
        Largest("pool1", "conv1", 3, 2),
    ]
    at, channels = "pool1", width
    for stage, count in enumerate(blocks, 1):
        middle = width << (stage - 1)
        for block in range(1, count + 1):
            prefix, stride = f"s{stage}b{block}", 2 if stage > 1 and block == 1 else 1
            plus = at
            if block == 1:
                plus = f"{prefix}.down"
                nodes.append(Layer(plus, at, 1, channels, 4 * middle, stride, relu=False))
            names = [f"{prefix}.conv{i}" for i in (1, 2, 3)]
            nodes += [
                Layer(names[0], at, 1, channels, middle),
                Layer(names[1], names[0], 3, middle, middle, stride),
                Layer(names[2], names[1], 1, middle, 4 * middle, plus=plus),
            ]
            at, channels = names[2], 4 * middle
    nodes.append(Average("average", at, -(-side // (4 << len(blocks) - 1))))
    nodes.append(Layer("fc", "average", 0, channels, classes))
    return Architecture(name, "imagenet", side, classes, tuple(nodes), signed=True)


# Expansion, channels, blocks and stride of each stage: Sandler et al., table 2.
_INVERTED = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2(
    name: str, side: int = 224, classes: int = 1000,
    stages: tuple[tuple[int, int, int, int], ...] = _INVERTED, ends: tuple[int, int] = (32, 1280),
    same: bool = False,
) -> Architecture:  # fmt: skip
    """MobileNetV2: expansion, depthwise convolution and linear bottleneck; ReLU6.

    Args:
      name: as commands and files call it.
      side: of the input, a multiple of 32.
      classes: length of the output.
      stages: (expansion, channels, blocks, stride) of each.
      ends: channels of the first and of the last convolution.
      same: steps of 2 are padded behind only, as TensorFlow's "SAME" does for even sides, and not on
        both sides as PyTorch's networks are.
    """

    def margins(stride: int) -> tuple[int, int] | None:
        return (0, 1) if same and stride == 2 else None

    nodes: list[AnyNode] = [Layer("conv1", INPUT, 3, 3, ends[0], 2, cap=6.0, margins=margins(2))]
    at, channels, side_now = "conv1", ends[0], side // 2
    for stage, (expansion, width, blocks, first) in enumerate(stages, 1):
        for block in range(1, blocks + 1):
            prefix, stride = f"s{stage}b{block}", first if block == 1 else 1
            source, wide = at, channels * expansion
            if expansion > 1:
                source = f"{prefix}.expand"
                nodes.append(Layer(source, at, 1, channels, wide, cap=6.0))
            middle, end = f"{prefix}.depthwise", f"{prefix}.project"
            plus = at if stride == 1 and channels == width else None
            nodes += [
                Layer(middle, source, 3, wide, wide, stride, cap=6.0, groups=wide,
                      margins=margins(stride)),
                Layer(end, middle, 1, wide, width, plus=plus, relu=False),
            ]  # fmt: skip
            at, channels, side_now = end, width, side_now // stride
    nodes += [
        Layer("last", at, 1, channels, ends[1], cap=6.0),
        Average("average", "last", side_now),
        Layer("fc", "average", 0, ends[1], classes),
    ]
    return Architecture(name, "imagenet", side, classes, tuple(nodes), signed=False)


MINIONN = _minionn()
RESNET32 = cifar_resnet("resnet32", "cifar100", 100, 5)
RESNET32_CIFAR10 = cifar_resnet("resnet32_cifar10", "cifar10", 10, 5)
# He et al., table 1, with the 3x3 first convolution and no pool after it, as is usual for 32x32 images.
RESNET18 = cifar_resnet("resnet18", "cifar100", 100, 2, (64, 128, 256, 512), projected=True)
RESNET50 = bottleneck_resnet("resnet50")
MOBILENETV2 = mobilenet_v2("mobilenetv2", same=True)
MOBILENETV2_TORCH = mobilenet_v2("mobilenetv2_torch")
ARCHITECTURES = {a.name: a for a in (MINIONN, RESNET32, RESNET18, RESNET50, MOBILENETV2)}
