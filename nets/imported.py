"""Public CIFAR-10 residual networks as `Network`s: where a training may start from.

`$PQJAX_DATA/cifar10_resnet_ckpt` has the state dictionaries of Y. Idelbayev's ResNets (BSD 2-clause,
(c) 2018 Yerlan Idelbayev, github.com/akamaster/pytorch_resnet_cifar10). They read (pixel / 255 -
mean) / std, ours reads (pixel - 128) / 256; the first convolution absorbs the difference, up to what
the zero padding stands for at the border (the mean colour there, mid-grey here).
"""

import pathlib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from nets.architecture import Architecture
from nets.checkpoint import open_arrays
from nets.data import PIXEL_ZERO, data_folder
from nets.network import ConvNorm, Network
from nets.resnet import cifar_resnet
from pqjax.errors import CheckpointError

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def cifar10_resnet(layers: int) -> Network:
    """The public ResNet20 or ResNet32 for CIFAR-10, ready for evaluation."""
    path = pathlib.Path(data_folder("cifar10_resnet_ckpt")) / f"resnet{layers}.npz"
    net = Network(cifar_resnet(f"resnet{layers}", (layers - 2) // 6, 10), nnx.Rngs(0))
    fill(net, open_arrays(path), skip_fc=False)
    net.eval()
    return net


def fill(net: Network, weights: Mapping[str, np.ndarray], skip_fc: bool) -> None:
    """Puts a state dictionary into `net`; `skip_fc` leaves the FC, whose classes may differ.

    Raises:
      CheckpointError: an entry is missing, superfluous, or of another shape.
    """
    left = dict(weights)
    for conv, norm, layer in _pairs(net.architecture, net.layers):
        kernel = _taken(left, f"{conv}.weight").transpose(2, 3, 1, 0)
        stats = {ours: _taken(left, f"{norm}.{theirs}") for ours, theirs in _NORM.items()}
        if conv == "conv1":
            # kernel * (p/255 - mean)/std = kernel' * (p - 128)/256 + a constant per channel
            constant = (kernel * ((PIXEL_ZERO / 255 - MEAN) / STD)[:, None]).sum((0, 1, 2))
            kernel = kernel * (256 / (255 * STD))[:, None]
            stats["mean"] = stats["mean"] - constant
        _put(layer.kernel, kernel, conv)
        for ours, value in stats.items():
            _put(getattr(layer.norm, ours), value, norm)
        layer.norm.epsilon = 1e-5
        left.pop(f"{norm}.num_batches_tracked", None)
    kernel, bias = _taken(left, "linear.weight").T, _taken(left, "linear.bias")
    if not skip_fc:
        fc = net.layers[net.architecture.steps[-1].name]
        _put(fc.kernel, kernel, "linear")
        _put(fc.bias, bias, "linear")
    if left:
        raise CheckpointError(f"the state dictionary has unknown entries: {sorted(left)[:4]}")


def _pairs(architecture: Architecture, layers: Mapping) -> list[tuple[str, str, ConvNorm]]:
    """(their convolution, their norm, our layer) of every convolution."""
    found = [("conv1", "bn1", layers["conv1"])]
    for name in (step.name for step in architecture.weighted[1:-1]):
        stage, rest = name.removeprefix("s").split("b")
        block, number = rest.split("conv")
        prefix = f"layer{stage}.{int(block) - 1}"
        found.append((f"{prefix}.conv{number}", f"{prefix}.bn{number}", layers[name]))
    return found


def _taken(left: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in left:
        raise CheckpointError(f"the state dictionary has no {name}")
    return np.asarray(left.pop(name), np.float32)


def _put(variable: nnx.Variable, value: np.ndarray, name: str) -> None:
    if variable[...].shape != value.shape:
        raise CheckpointError(f"{name}: {variable[...].shape} expected, got {value.shape}")
    variable[...] = jnp.asarray(value, jnp.float32)
