"""Rounding of weights by what a layer's output loses, not by what each weight loses.

A layer is fitted to its float twin by least squares over pixels of calibration pictures; then its
weights are rounded one input at a time, and those not yet rounded make up for each error (Frantar et
al., GPTQ, arXiv 2210.17323, sections 3 and 4; there the inputs of both networks are the same, here the
quantized layer reads quantized values and aims at the float network's).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from nets.conv import window_taps
from nets.ops import Dense, Linear

PIXELS = 256  # of a picture that a layer is fitted to, drawn once for all pictures


@dataclasses.dataclass
class Moments:
    """Second moments of a layer's inputs x and aims t, both less their means.

    The inputs of a layer's output are the window's taps of the channels of its group.

    Attributes:
      gram: (groups, d, d) mean of x x'.
      cross: (groups, d, k) mean of x t'.
      inputs: (groups, d) means of x.
      aims: (groups, k) means of t.
    """

    gram: np.ndarray
    cross: np.ndarray
    inputs: np.ndarray
    aims: np.ndarray


def moments(
    layer: Linear,
    parts: Iterable[tuple[Float[Array, "b ..."], Float[Array, "b h2 w2 k"]]],
    seed: int,
) -> Moments:
    """Of pixels of all pictures.

    Args:
      layer: whose windows are looked at.
      parts: pictures' inputs and the wanted outputs, some pictures at a time.
      seed: of the choice of pixels.
    """
    sums: list[np.ndarray] | None = None
    count = 0
    for x, aim in parts:
        pixels = aim.shape[1] * aim.shape[2]
        rng = np.random.default_rng(seed)
        some = np.sort(rng.choice(pixels, min(PIXELS, pixels), replace=False))
        found = _sums(layer, x, aim, jnp.asarray(some))
        found = [np.asarray(each, np.float64) for each in found]
        sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
        count += len(x) * len(some)
    assert sums is not None
    gram, cross, inputs, aims = (each / count for each in sums)
    return Moments(
        gram - inputs[:, :, None] * inputs[:, None, :],
        cross - inputs[:, :, None] * aims[:, None, :],
        inputs,
        aims,
    )


@functools.partial(jax.jit, static_argnums=0)
def _sums(layer, x, aim, some):
    seen, wanted = _windows(layer, x.astype(jnp.float32), some), _picked(aim, some)
    (n, taps, _), groups = seen.shape, layer.groups
    seen = seen.reshape(n, taps, groups, -1).transpose(2, 0, 1, 3).reshape(groups, n, -1)
    split = wanted.T.reshape(groups, -1, n).transpose(0, 2, 1)
    wanted = wanted[None] if groups == 1 else split  # else the same, summed in another order
    highest = lax.Precision.HIGHEST
    return (
        jnp.einsum("gnd,gne->gde", seen, seen, precision=highest),
        jnp.einsum("gnd,gnk->gdk", seen, wanted, precision=highest),
        seen.sum(1),
        wanted.sum(1),
    )


def _picked(values, some):
    """(n, c): those pixels of all pictures."""
    flat = values.reshape(values.shape[0], -1, values.shape[-1])
    return flat[:, some].reshape(-1, values.shape[-1])


def _windows(layer, x, some):
    """(n, taps, c): what the window sees at those pixels."""
    if isinstance(layer, Dense):
        return x.reshape(x.shape[0], 1, -1)
    x = jnp.pad(x, ((0, 0), *layer.padding, (0, 0)))
    taps = window_taps(x, layer.window, layer.stride, layer.dilation)
    return jnp.stack([_picked(tap, some) for tap in taps], 1)


def fitted(
    kernel: np.ndarray, layer: Linear, found: Moments, bits: int, scales: list[int], damp: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Integer weights, biases and the scale of a layer for the least squared error of its output.

    Args:
      kernel: the float network's weights, (..., inputs, outputs).
      layer: whose they are.
      found: moments of what it reads and should give, see `moments`.
      bits: of a signed weight.
      scales: exponents to choose among.
      damp: share of the mean square input that is added to all: keeps weights near the given ones.

    Returns:
      (integers as `kernel` is shaped, real biases (outputs,), scale).
    """
    outputs = kernel.shape[-1]
    flat = kernel.reshape(-1, layer.groups, outputs // layer.groups).astype(np.float64)
    flat = flat.transpose(1, 0, 2)
    inputs = flat.shape[1]
    square = np.maximum(np.trace(found.gram, axis1=1, axis2=2) / inputs, 1e-12)
    held = (damp * square)[:, None, None]
    gram = found.gram + held * np.eye(inputs)
    real = np.linalg.solve(gram, found.cross + held * flat)
    best = (np.inf, 0, real)
    for scale in scales:
        integers = _rounded(real * 2.0**scale, gram, bits)
        off = integers * 2.0**-scale - real
        best = min(best, (float((off * (gram @ off)).sum()), scale, integers), key=lambda b: b[0])
    _, scale, integers = best
    bias = found.aims - np.einsum("gd,gdk->gk", found.inputs, integers * 2.0**-scale)
    return integers.transpose(1, 0, 2).reshape(kernel.shape), bias.ravel(), scale


def _rounded(real: np.ndarray, hessian: np.ndarray, bits: int) -> np.ndarray:
    """Integers near `real` (groups, inputs, outputs), the inputs of largest square first."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1)
    rows = np.arange(len(real))[:, None]
    left = real[rows, order]
    inverse = np.linalg.inv(hessian[rows[:, :, None], order[:, :, None], order[:, None, :]])
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)  # inverse = upper' upper
    done = np.empty_like(left)
    for i in range(left.shape[1]):
        done[:, i] = np.clip(np.floor(left[:, i] + 0.5), low, high)
        error = (left[:, i] - done[:, i]) / upper[:, i, i, None]
        left[:, i + 1 :] -= upper[:, i, i + 1 :, None] * error[:, None, :]
    found = np.empty_like(done)
    found[rows, order] = done
    return found
