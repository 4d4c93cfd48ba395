"""Models of flax, nnx and linen: put into inference mode, then read as any function of JAX."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping

import flax
import jax
import numpy as np
from flax import linen, nnx

from nets.importing.imported import Imported, Pixels
from nets.importing.jaxpr import from_jax
from pqjax.errors import GraphError

# What calls of models are told by habit, and how it is said that they are not in training.
_MODES = {
    "train": False, "training": False, "is_training": False, "deterministic": True,
    "use_running_average": True,
}  # fmt: skip


def from_flax(
    model: nnx.Module | tuple[linen.Module, Mapping[str, typing.Any]],
    example: np.ndarray | jax.Array, *, pixels: Pixels | None = None,
    classes: tuple[str, ...] = (), name: str | None = None, **options: typing.Any,
) -> Imported:  # fmt: skip
    """A flax model in inference mode: batch norms take running averages, nothing is dropped.

    Args:
      model: a module of `flax.nnx`, which stays as it is; or one of `flax.linen` and its variables.
      example: pictures, of which the shape counts, see `from_jax`.
      pixels: how integers 0..255 become what the model reads; None for these as they are.
      classes: their names.
      name: of the network; None for the model's class.
      options: what the model's call is given besides the pictures. `train`, `training` and
        `deterministic` and the like are set where the call knows them.

    Raises:
      GraphError: see `from_jax`.
    """
    module = model[0] if isinstance(model, tuple) else model
    call: Callable[..., typing.Any]
    if isinstance(model, tuple) and isinstance(module, linen.Module):
        call = functools.partial(module.apply, model[1])
    elif isinstance(module, nnx.Module):
        copied = nnx.merge(*nnx.split(module), copy=True)
        copied.eval()
        call = typing.cast(Callable[..., typing.Any], copied)
    else:
        raise GraphError(
            "a module of flax.nnx, or a module of flax.linen and its variables, expected, got "
            f"{type(module).__name__}; `from_jax` takes any function of JAX"
        )
    kind = type(module)
    known = inspect.signature(kind.__call__).parameters
    options = {k: v for k, v in _MODES.items() if k in known} | options
    source = {"format": "flax", "flax": flax.__version__, "model": kind.__name__}
    return from_jax(
        functools.partial(call, **options), example, pixels=pixels, classes=classes,
        name=name or kind.__name__.lower(), source=source,
    )  # fmt: skip
