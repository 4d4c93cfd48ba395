"""State dicts of networks whose shape is known here, recognized by the names of their tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import numpy as np

from nets.architecture import cifar_resnet, efficientnet_lite0, imagenet_resnet, mobilenet_v2
from nets.importing.imported import Imported, Pixels
from nets.labels import CLASSES, imagenet
from nets.ops import Architecture
from nets.public import IMAGENET_MEAN, IMAGENET_STD, public_layers, read_state_dict
from pqjax.errors import CheckpointError

PYTORCH = Pixels(
    tuple((255 * IMAGENET_MEAN).tolist()), tuple((255 * IMAGENET_STD).tolist()), shorter=256
)
LITE = Pixels((127.0,) * 3, (128.0,) * 3, shorter=256)  # TensorFlow's, for its "lite" networks


@dataclasses.dataclass(frozen=True)
class Known:
    """A network that public state dicts are of.

    Attributes:
      marks: names of tensors that it has, together with none of the networks before it.
      head: the FC's weights, whose rows are the classes.
      build: its operations, for so many classes.
      pixels: what its inputs mean.
      epsilon: that its norms add to variances.
    """

    marks: tuple[str, ...]
    head: str
    build: Callable[[int], Architecture]
    pixels: Pixels
    epsilon: float = 1e-5


KNOWN = {
    "EfficientNet-Lite0": Known(
        ("_conv_stem.weight", "_blocks.15._project_conv.weight"), "_fc.weight",
        lambda classes: efficientnet_lite0(classes=classes), LITE, 1e-3,
    ),
    "MobileNetV2 of torchvision": Known(
        ("features.0.0.weight", "features.18.0.weight"), "classifier.1.weight",
        lambda classes: mobilenet_v2("mobilenetv2_torch", classes=classes), PYTORCH,
    ),
    "MobileNetV2 of timm": Known(
        ("conv_stem.weight", "blocks.6.0.conv_pwl.weight"), "classifier.weight",
        lambda classes: mobilenet_v2("mobilenetv2_torch", classes=classes), PYTORCH,
    ),
    "ResNet50": Known(
        ("layer4.2.conv3.weight", "layer3.5.conv3.weight"), "fc.weight",
        lambda classes: imagenet_resnet("resnet50", classes=classes), PYTORCH,
    ),
    "ResNet18": Known(
        ("layer4.1.conv2.weight", "fc.weight"), "fc.weight",
        lambda classes: imagenet_resnet(
            "resnet18_imagenet", classes=classes, blocks=(2, 2, 2, 2), bottleneck=False
        ), PYTORCH,
    ),
    "a CIFAR ResNet32": Known(
        ("layer3.4.conv2.weight", "linear.weight"), "linear.weight",
        lambda classes: cifar_resnet(f"resnet32_cifar{classes}", f"cifar{classes}", classes, 5),
        dataclasses.replace(PYTORCH, shorter=None),
    ),
}  # fmt: skip


def read_known(path: pathlib.Path | str) -> Imported:
    """The network of a state dict: PyTorch's file, safetensors or npz.

    Raises:
      CheckpointError: the file is unreadable, or no known network's; says which are known.
    """
    path = pathlib.Path(path)
    found = read_state_dict(path)
    fitting = [n for n, k in KNOWN.items() if {*k.marks, k.head} <= found.keys()]
    if not fitting:
        raise CheckpointError(
            f"{path} holds tensors and no shape, and of no network that is known here "
            f"({', '.join(KNOWN)}): export the network as ONNX and import that"
        )
    known = KNOWN[fitting[0]]
    if found[known.head].ndim != 2:
        raise CheckpointError(f"{path}: {known.head}: a matrix expected")
    classes = len(found[known.head])
    architecture = known.build(classes)
    folded = [
        (np.asarray(kernel, np.float32), np.asarray(bias, np.float32))
        for kernel, bias in (
            layer.folded(known.epsilon) for layer in public_layers(architecture, path)
        )
    ]
    source = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "format": f"state dict of {fitting[0]}",
    }
    return Imported(architecture, folded, known.pixels, _names(classes), source)


def _names(classes: int) -> tuple[str, ...]:
    """What so many classes are called in the data set that networks of so many are usually of."""
    named = {1000: imagenet(), 10: CLASSES["cifar10"], 100: CLASSES["cifar100"]}
    return tuple(named.get(classes, ()))
