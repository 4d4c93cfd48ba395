"""From the float network to plain kernels and biases: batch-norm folding, equalization."""

import numpy as np

from nets.floating import FloatNet
from nets.ops import Architecture, Flatten, Linear, Op
from nets.steps import blocks, steps

Folded = list[tuple[np.ndarray, np.ndarray]]  # (kernel, bias) of every layer, in order


def fold_batch_norm(net: FloatNet) -> Folded:
    """Absorbs batch norm's running statistics:  norm(conv(x, W))  =>  conv(x, W') + b'."""
    folded = []
    for held in net.weighted:
        kernel, norm = np.asarray(held.kernel[...]), held.norm
        if norm is None:
            assert held.bias is not None  # a layer has the one or the other
            folded.append((kernel, np.asarray(held.bias[...])))
            continue
        assert norm.scale is not None and norm.bias is not None  # both are on by default
        gain = np.asarray(norm.scale[...]) / np.sqrt(np.asarray(norm.var[...]) + norm.epsilon)
        bias = np.asarray(norm.bias[...]) - np.asarray(norm.mean[...]) * gain
        folded.append(((kernel * gain).astype(np.float32), bias))
    return folded


def equalize(
    folded: Folded, architecture: Architecture, rounds: int = 10, strength: float = 1.0
) -> Folded:
    """Moves scale between layers until channel ranges match; the function stays the same.

    ReLU and average pooling commute with positive factors, so where one layer alone reads another's
    tensor, channel c may be divided by t_c there and the weights that read it multiplied by t_c.
    Layers then need only one scale each. A ReLU with a cap does not commute, and is left alone.

    Args:
      folded: kernels and biases.
      architecture: who reads what.
      rounds: sweeps over the layers.
      strength: 0 leaves the layers alone, 1 equalizes root-mean-square weights fully.
    """
    pairs = _pairs(architecture)
    kernels = [kernel.astype(np.float64) for kernel, _ in folded]
    biases = [bias.astype(np.float64) for _, bias in folded]
    for _ in range(rounds):
        for i, j in pairs:
            reader = kernels[j].reshape(-1, len(biases[i]), kernels[j].shape[-1])
            writes = np.sqrt(np.square(kernels[i]).mean(tuple(range(kernels[i].ndim - 1))))
            reads = np.sqrt(np.square(reader).mean((0, 2)))
            factor = np.sqrt((writes + 1e-6) / (reads + 1e-6)) ** strength
            factor /= np.exp(np.log(factor).mean())  # layers keep their overall size
            kernels[i] = kernels[i] / factor
            biases[i] = biases[i] / factor
            kernels[j] = (reader * factor[:, None]).reshape(kernels[j].shape)
    return [
        (k.astype(np.float32), b.astype(np.float32)) for k, b in zip(kernels, biases, strict=True)
    ]


def _pairs(architecture: Architecture) -> list[tuple[int, int]]:
    """Layers without a sum or cap of which one layer, not a grouped one, alone reads the tensor."""
    places = {layer.name: i for i, layer in enumerate(architecture.layers)}
    readers: dict[str, list[Op]] = {}
    for step in steps(architecture):
        for source in step.sources:
            readers.setdefault(source, []).append(step)
    found = []
    for block in blocks(architecture):
        if block.fit is None or block.fit.capped or len(block.sources) > 1:
            continue
        following = readers[block.name]
        if len(following) == 1 and isinstance(following[0], Flatten):
            following = readers.get(following[0].name, [])
        if len(following) == 1 and isinstance(following[0], Linear) and following[0].groups == 1:
            found.append((places[block.fit.layer], places[following[0].name]))
    return found
