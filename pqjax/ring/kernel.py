"""How a kernel is compiled: jit, with 64-bit types on, and nothing changed for the caller.

And where its operands lie: a copy of each costs as much as the kernel itself.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import jax
import numpy as np
import numpy.typing

P = ParamSpec("P")
R = TypeVar("R")
_LINE = 64  # bytes; XLA reads a host array where it is only if it begins on such a boundary


def aligned(shape: int | tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """An uninitialized array that kernels read in place; any other is copied first."""
    shape = (shape,) if isinstance(shape, int) else shape
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(n_bytes + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + n_bytes].view(dtype).reshape(shape)


def kernel(function: Callable[P, R], static: Sequence[str] = ()) -> Callable[P, R]:
    """Compiles a pure function of arrays; 64-bit types are on inside, in the calling thread only.

    `static` names the arguments that are compile-time constants (widths, shapes).
    """
    compiled = jax.jit(function, static_argnames=tuple(static))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(True):
            return compiled(*args, **kwargs)

    return call


_BLOCKS = (256, 1024, 4096, 16384, 65536)


def blockwise(function: Callable, static: Sequence[str] = ()) -> Callable:
    """A kernel over the leading axis, compiled for a handful of lengths only.

    All positional arguments are arrays of one leading length n, all results too; rows are
    independent of each other. Long arrays run in blocks of 65,536 rows, which also keeps them in
    the cache; short ones are padded to the next of five lengths. A new n compiles nothing. `static`
    names the keyword arguments that are compile-time constants.
    """
    compiled = jax.jit(function, static_argnames=tuple(static))

    @functools.wraps(function)
    def call(*arrays: np.ndarray, **constants):
        n = arrays[0].shape[0]
        outs: list[np.ndarray] = []
        single = False
        with jax.enable_x64(True):
            for at in range(0, max(n, 1), _BLOCKS[-1]):
                m = min(_BLOCKS[-1], n - at)
                length = next(b for b in _BLOCKS if m <= b)
                parts = [_padded(array[at : at + m], length) for array in arrays]
                got = compiled(*parts, **constants)
                single = not isinstance(got, tuple)
                results = [np.asarray(r) for r in ((got,) if single else got)]
                if n <= _BLOCKS[-1]:
                    outs = [r[:m] for r in results]
                    break
                if not outs:
                    outs = [np.empty((n, *r.shape[1:]), r.dtype) for r in results]
                for out, r in zip(outs, results, strict=True):
                    out[at : at + m] = r[:m]
        return outs[0] if single else tuple(outs)

    return call


def _padded(x: np.ndarray, length: int) -> np.ndarray:
    x = np.asarray(x)
    if x.shape[0] == length:
        return x
    out = np.zeros((length, *x.shape[1:]), x.dtype)
    out[: x.shape[0]] = x
    return out
