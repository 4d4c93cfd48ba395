"""Residual networks for 32x32 images (He et al., arXiv 1512.03385, section 4.2), 6 n + 2 layers.

Three stages of n basic blocks; shortcuts have no weights (option A of that paper).
"""

from nets.architecture import INPUT, Architecture, Conv, Fc, Halve, Join, Pool, Step


def cifar_resnet(
    name: str, blocks: int, classes: int, channels: tuple[int, ...] = (16, 32, 64), side: int = 32
) -> Architecture:
    """Stage i has `blocks` blocks of `channels[i]` channels; all but the first halve the image.

    Block b of stage s is made of `s<s>b<b>conv1`, `s<s>b<b>conv2` and the sum `s<s>b<b>`.
    """
    steps: list[Step] = [Conv("conv1", INPUT, channels[0])]
    for stage, width in enumerate(channels, 1):
        for block in range(1, blocks + 1):
            halves = stage > 1 and block == 1
            steps += _block(f"s{stage}b{block}", steps[-1].name, width, halves)
    last = steps[-1].name
    steps += [Pool("pool", last, side >> (len(channels) - 1)), Fc("fc", "pool", classes)]
    return Architecture(name, (side, side, 3), tuple(steps))


def _block(name: str, source: str, channels: int, halves: bool) -> list[Step]:
    one, two, shortcut = f"{name}conv1", f"{name}conv2", f"{name}shortcut"
    steps: list[Step] = [
        Conv(one, source, channels, stride=2 if halves else 1),
        Conv(two, one, channels, activation=None),
    ]
    if halves:
        steps.append(Halve(shortcut, source, channels))
    return [*steps, Join(name, two, shortcut if halves else source)]


RESNET32 = cifar_resnet("resnet32", 5, 100)
