"""From the float network to plain kernels and biases: batch-norm folding, equalization."""

import numpy as np

from nets.architecture import Architecture
from nets.floating import FloatNet

Folded = list[tuple[np.ndarray, np.ndarray]]  # (kernel, bias) of every layer, the FC last


def fold_batch_norm(net: FloatNet) -> Folded:
    """Absorbs batch norm's running statistics:  norm(conv(x, W))  =>  conv(x, W') + b'."""
    folded = []
    for block in net.blocks:
        norm = block.norm
        assert norm.scale is not None and norm.bias is not None  # both are on by default
        gain = np.asarray(norm.scale[...]) / np.sqrt(np.asarray(norm.var[...]) + norm.epsilon)
        bias = np.asarray(norm.bias[...]) - np.asarray(norm.mean[...]) * gain
        folded.append(((np.asarray(block.kernel[...]) * gain).astype(np.float32), bias))
    folded.append((np.asarray(net.kernel[...]), np.asarray(net.bias[...])))
    return folded


def equalize(
    folded: Folded, architecture: Architecture, rounds: int = 10, strength: float = 1.0
) -> Folded:
    """Moves scale between layers until channel ranges match; the function stays the same.

    ReLU and average pooling commute with positive factors, so where one layer alone reads another's
    tensor, channel c may be divided by t_c there and the weights that read it multiplied by t_c.
    Layers then need only one scale each.

    Args:
      folded: kernels and biases.
      architecture: who reads what.
      rounds: sweeps over the layers.
      strength: 0 leaves the layers alone, 1 equalizes root-mean-square weights fully.
    """
    layers = architecture.layers
    places = {layer.name: i for i, layer in enumerate(layers)}
    pairs = [
        (i, places[reader.name])
        for i, layer in enumerate(layers)
        if (reader := architecture.only_reader(layer.name)) is not None
        and layer.plus is None
        and reader.groups == 1  # a depthwise reader's channels are those of its outputs
    ]
    kernels = [kernel.astype(np.float64) for kernel, _ in folded]
    biases = [bias.astype(np.float64) for _, bias in folded]
    for _ in range(rounds):
        for i, j in pairs:
            channels = layers[i].out_channels
            reader = kernels[j].reshape(-1, channels, kernels[j].shape[-1])
            writes = np.sqrt(np.square(kernels[i]).mean((0, 1, 2)))
            reads = np.sqrt(np.square(reader).mean((0, 2)))
            factor = np.sqrt((writes + 1e-6) / (reads + 1e-6)) ** strength
            factor /= np.exp(np.log(factor).mean())  # layers keep their overall size
            kernels[i] = kernels[i] / factor
            biases[i] = biases[i] / factor
            kernels[j] = (reader * factor[:, None]).reshape(kernels[j].shape)
    return [
        (k.astype(np.float32), b.astype(np.float32)) for k, b in zip(kernels, biases, strict=True)
    ]
