"""The networks: lists of operations (`nets.ops`), and how to write such lists block by block."""

from __future__ import annotations

from nets import ops
from nets.ops import INPUT, Architecture, part_name


class Draft:
    """A list of operations that grows; every method returns the name of the tensor it makes.

    What is not named takes its name from the convolution: conv2 has norm2, add2, relu2 and pool2.
    """

    def __init__(self) -> None:
        self.ops: list[ops.Op] = []

    def add(self, op: ops.Op) -> str:
        """One operation of any kind."""
        self.ops.append(op)
        return op.name

    def block(
        self, name: str, source: str, channels: int, window: int = 1, stride: int = 1, *,
        padding: tuple[int, int] | None = None, groups: int = 1, norm: bool = True,
        plus: str | None = None, relu: bool = True, cap: float | None = None, pool: int = 1,
    ) -> str:  # fmt: skip
        """A square conv -> norm -> [+ plus] -> [ReLU] -> [average pool].

        Args:
          name: of the convolution.
          source: the tensor it reads.
          channels: that it makes.
          window: side of the kernel.
          stride: of rows and columns.
          padding: zeros before and after rows and columns; None for one less than a window is wide,
            which keeps the sides where steps are 1 (of an odd number the larger half behind).
          groups: of channels.
          norm: whether there is a batch norm, else a bias.
          plus: the tensor that is added.
          relu: whether there is a ReLU.
          cap: the largest value that it lets through (6.0 for ReLU6), None for any.
          pool: side of the windows that are averaged in the end.
        """
        margins = padding or ((window - 1) // 2, window // 2)
        square = (window, window), (stride, stride), (margins, margins)
        at = self.add(ops.Conv(name, (source,), channels, *square, groups))
        if norm:
            at = self.add(ops.Norm(part_name(name, "norm"), (at,)))
        if plus is not None:
            at = self.add(ops.Add(part_name(name, "add"), (at, plus)))
        if relu:
            at = self.add(ops.Relu(part_name(name, "relu"), (at,), cap))
        if pool > 1:
            at = self.add(ops.AvgPool(part_name(name, "pool"), (at,), (pool, pool), (pool, pool)))
        return at

    def shortcut(self, name: str, source: str, stride: int, margin: int) -> str:
        """Every stride-th row and column, `margin` zero channels on both sides (option A)."""
        half = self.add(ops.Subsample(f"{name}.half", (source,), (stride, stride)))
        return self.add(ops.Pad(name, (half,), ((0, 0), (0, 0), (margin, margin))))

    def largest(
        self, name: str, source: str, window: int, stride: int, padding: tuple[int, int] = (0, 0)
    ) -> str:
        """Largest of every window; `padding` zeros around, as is right for what is not negative."""
        if padding != (0, 0):
            margins = (padding, padding, (0, 0))
            source = self.add(ops.Pad(f"{name}.pad", (source,), margins))
        return self.add(ops.MaxPool(name, (source,), (window, window), (stride, stride)))

    def head(self, source: str, classes: int) -> tuple[ops.Op, ...]:
        """The whole list, closed by a dense layer."""
        flat = self.add(ops.Flatten("flatten", (source,)))
        self.add(ops.Dense("fc", (flat,), classes))
        return tuple(self.ops)


def _minionn() -> Architecture:
    draft, at = Draft(), INPUT
    for i, (window, channels) in enumerate([(3, 64)] * 5 + [(1, 64), (1, 16)], 1):
        at = draft.block(f"conv{i}", at, channels, window, pool=2 if i in (2, 4) else 1)
    return Architecture("minionn", "cifar10", (32, 32, 3), 10, draft.head(at, 10), signed=False)


def cifar_resnet(
    name: str, data: str, classes: int, blocks: int, stages: tuple[int, ...] = (16, 32, 64),
    projected: bool = False,
) -> Architecture:  # fmt: skip
    """A CIFAR ResNet of He et al. (section 4.2): 2 * blocks layers a stage, the first, and the FC.

    Shortcuts between stages are option A, or convolutions (option B) where they are `projected`.
    """
    draft, channels = Draft(), stages[0]
    at = draft.block("conv1", INPUT, channels, 3)
    for stage, width in enumerate(stages, 1):
        for block in range(1, blocks + 1):
            prefix = f"s{stage}b{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            plus = at
            if stride > 1 and projected:
                plus = draft.block(f"{prefix}.down", at, width, 1, stride, relu=False)
            elif stride > 1:
                plus = draft.shortcut(f"{prefix}.short", at, stride, (width - channels) // 2)
            last = stage == len(stages) and block == blocks
            pool = 32 >> (len(stages) - 1) if last else 1
            at = draft.block(f"{prefix}.conv1", at, width, 3, stride)
            at = draft.block(f"{prefix}.conv2", at, width, 3, plus=plus, pool=pool)
            channels = width
    return Architecture(name, data, (32, 32, 3), classes, draft.head(at, classes), signed=True)


def imagenet_resnet(
    name: str, side: int = 224, classes: int = 1000, blocks: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 64, bottleneck: bool = True, data: str = "imagenet",
) -> Architecture:  # fmt: skip
    """A ResNet of He et al., table 1, with the stride of a bottleneck in its 3x3 (torchvision).

    Args:
      name: as commands and files call it.
      side: of the input.
      classes: length of the output.
      blocks: of each stage.
      width: channels of the first convolution.
      bottleneck: whether a block is 1x1, 3x3 and 1x1 to four times the channels (ResNet50 and its kin),
        or two 3x3 (ResNet18 and its kin).
      data: whose pictures it is for.
    """
    draft, channels = Draft(), width
    at = draft.block("conv1", INPUT, width, 7, 2)
    at = draft.largest("pool1", at, 3, 2, padding=(1, 1))
    for stage, count in enumerate(blocks, 1):
        middle = width << (stage - 1)
        out = 4 * middle if bottleneck else middle
        for block in range(1, count + 1):
            prefix, stride = f"s{stage}b{block}", 2 if stage > 1 and block == 1 else 1
            plus = at
            if stride > 1 or channels != out:
                plus = draft.block(f"{prefix}.down", at, out, 1, stride, relu=False)
            if bottleneck:
                at = draft.block(f"{prefix}.conv1", at, middle)
                at = draft.block(f"{prefix}.conv2", at, middle, 3, stride)
                at = draft.block(f"{prefix}.conv3", at, out, plus=plus)
            else:
                at = draft.block(f"{prefix}.conv1", at, out, 3, stride)
                at = draft.block(f"{prefix}.conv2", at, out, 3, plus=plus)
            channels = out
    at = draft.add(ops.GlobalAverage("average", (at,)))
    return Architecture(name, data, (side, side, 3), classes, draft.head(at, classes), signed=True)


# Expansion, channels, blocks and stride of each stage: Sandler et al., table 2.
_INVERTED = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
# EfficientNet-B0's (Tan & Le, table 1) without squeeze-and-excitation and with ReLU6: its "lite" form.
_LITE = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 40, 2, 2), (6, 80, 3, 2), (6, 112, 3, 1), (6, 192, 4, 2),
    (6, 320, 1, 1),
)  # fmt: skip
_LITE_WINDOWS = (3, 3, 5, 3, 5, 5, 3)


def mobilenet_v2(
    name: str, side: int = 224, classes: int = 1000,
    stages: tuple[tuple[int, int, int, int], ...] = _INVERTED, ends: tuple[int, int] = (32, 1280),
    same: bool = False, windows: tuple[int, ...] | None = None,
) -> Architecture:  # fmt: skip
    """MobileNetV2 and its kin: expansion, depthwise convolution and linear bottleneck; ReLU6.

    Args:
      name: as commands and files call it.
      side: of the input, a multiple of 32.
      classes: length of the output.
      stages: (expansion, channels, blocks, stride) of each.
      ends: channels of the first and of the last convolution.
      same: steps of 2 are padded behind only, as TensorFlow's "SAME" does for even sides, and not on
        both sides as PyTorch's networks are. Of wider windows one step less before than behind.
      windows: sides of the depthwise kernels of each stage; None: 3 in all.
    """

    def padding(stride: int, window: int = 3) -> tuple[int, int] | None:
        return (window // 2 - 1, window // 2) if same and stride == 2 else None

    draft, channels = Draft(), ends[0]
    at = draft.block("conv1", INPUT, channels, 3, 2, padding=padding(2), cap=6.0)
    sides = windows or (3,) * len(stages)
    for stage, (window, (expansion, width, blocks, first)) in enumerate(
        zip(sides, stages, strict=True), 1
    ):
        for block in range(1, blocks + 1):
            prefix, stride = f"s{stage}b{block}", first if block == 1 else 1
            wide, before = channels * expansion, at
            if expansion > 1:
                at = draft.block(f"{prefix}.expand", at, wide, cap=6.0)
            apart = {"padding": padding(stride, window), "groups": wide}
            at = draft.block(f"{prefix}.depthwise", at, wide, window, stride, cap=6.0, **apart)
            plus = before if stride == 1 and channels == width else None
            at = draft.block(f"{prefix}.project", at, width, plus=plus, relu=False)
            channels = width
    at = draft.block("last", at, ends[1], cap=6.0)
    at = draft.add(ops.GlobalAverage("average", (at,)))
    return Architecture(
        name, "imagenet", (side, side, 3), classes, draft.head(at, classes), signed=False
    )


def efficientnet_lite0(name: str = "efficientnet_lite0", classes: int = 1000) -> Architecture:
    """EfficientNet-Lite0: of MobileNetV2's blocks, some with 5x5 windows."""
    return mobilenet_v2(name, 224, classes, _LITE, same=True, windows=_LITE_WINDOWS)


MINIONN = _minionn()
RESNET32 = cifar_resnet("resnet32", "cifar100", 100, 5)
RESNET32_CIFAR10 = cifar_resnet("resnet32_cifar10", "cifar10", 10, 5)
# He et al., table 1, with the 3x3 first convolution and no pool after it, as is usual for 32x32 images.
RESNET18 = cifar_resnet("resnet18", "cifar100", 100, 2, (64, 128, 256, 512), projected=True)
RESNET18_IMAGENET = imagenet_resnet("resnet18_imagenet", blocks=(2, 2, 2, 2), bottleneck=False)
RESNET50 = imagenet_resnet("resnet50")
MOBILENETV2 = mobilenet_v2("mobilenetv2", same=True)
MOBILENETV2_TORCH = mobilenet_v2("mobilenetv2_torch")
EFFICIENTNET_LITE0 = efficientnet_lite0()
ARCHITECTURES = {a.name: a for a in (MINIONN, RESNET32, RESNET18, RESNET50, MOBILENETV2)}
