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

from nets.architecture import Layer

PIXELS = 256  # of a picture that a layer is fitted to, drawn once for all pictures


@dataclasses.dataclass
class Moments:
    """Second moments of a layer's inputs x and aims t, both less their means.

    A dense layer is one group of all inputs; a depthwise one is a group a channel: the window's taps are
    its inputs, and it has one output.

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
    layer: Layer, parts: Iterable[tuple[Float[Array, "b h w c"], Float[Array, "b h2 w2 k"]]], seed: int
) -> Moments:  # fmt: skip
    """Of pixels of all pictures.

    Args:
      layer: whose windows are looked at.
      parts: pictures' inputs and the wanted outputs, some pictures at a time.
      seed: of the choice of pixels.
    """
    sums: list[np.ndarray] | None = None
    count = 0
    for x, aim in parts:
        side = aim.shape[1]
        rng = np.random.default_rng(seed)
        some = np.sort(rng.choice(side * side, min(PIXELS, side * side), replace=False))
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
    if layer.groups > 1:  # (n, taps, c) and (n, c): a group a channel
        seen, wanted = seen.transpose(2, 0, 1), wanted.T[:, :, None]
    else:
        seen, wanted = seen.reshape(1, seen.shape[0], -1), wanted[None]
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
    if not layer.window:
        return x.reshape(x.shape[0], 1, -1)
    side = layer.out_side(x.shape[1])
    reach = (side - 1) * layer.stride + 1
    x = jnp.pad(x, ((0, 0), layer.padding, layer.padding, (0, 0)))
    taps = [
        _picked(x[:, i : i + reach : layer.stride, j : j + reach : layer.stride], some)
        for i in range(layer.window)
        for j in range(layer.window)
    ]
    return jnp.stack(taps, 1)


def fitted(
    kernel: np.ndarray, layer: Layer, found: Moments, bits: int, scales: list[int], damp: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Integer weights, biases and the scale of a layer for the least squared error of its output.

    Args:
      kernel: the float network's weights, (..., inputs, outputs).
      layer: dense or depthwise.
      found: moments of what it reads and should give, see `moments`.
      bits: of a signed weight.
      scales: exponents to choose among.
      damp: share of the mean square input that is added to all: keeps weights near the given ones.

    Returns:
      (integers as `kernel` is shaped, real biases (outputs,), scale).
    """
    depthwise = layer.groups > 1
    flat = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    flat = flat.T[:, :, None] if depthwise else flat[None]
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
    shaped = integers[:, :, 0].T if depthwise else integers[0]
    return shaped.reshape(kernel.shape), bias.ravel(), scale


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
