"""Z_2^bits: arrays of residues in the narrowest unsigned dtype, for numpy and JAX alike."""

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pqjax.errors import InputError

Array = Any  # np.ndarray or jax.Array; the result is of the kind that came in.


@dataclasses.dataclass(frozen=True)
class Ring:
    """The integers modulo 2^bits, in the narrowest unsigned dtype that holds them.

    Ring arrays are always reduced: every bit above `bits` is zero. Every method takes numpy arrays
    or JAX arrays (traced ones too) and answers in kind; if one operand is a JAX array, the result
    is. An operand of another integer dtype than `dtype` is reduced first; one of `dtype` is taken
    to be reduced already.
    """

    bits: int

    def __post_init__(self):
        if isinstance(self.bits, bool) or not isinstance(self.bits, (int, np.integer)):
            raise InputError(f"ring width must be an int, got {type(self.bits).__name__}")
        if not 1 <= self.bits <= 64:
            raise InputError(f"ring width must be in 1..64, got {self.bits}")
        object.__setattr__(self, "bits", int(self.bits))

    @property
    def dtype(self) -> np.dtype:
        """The narrowest of uint8, uint16, uint32, uint64 that holds `bits` bits."""
        return np.dtype(f"u{1 << max(0, (self.bits - 1).bit_length() - 3)}")

    @property
    def mask(self) -> np.unsignedinteger:
        """2^bits - 1, a numpy scalar of `dtype`."""
        return self.dtype.type((1 << self.bits) - 1)

    def reduce(self, x: Array) -> Array:
        """Takes integers of any dtype modulo 2^bits; negative ones read as two's complement.

        From an integer or bool array, or a Python int of any magnitude, to the same shape in `dtype`.
        """
        if isinstance(x, int):
            return np.asarray(x & int(self.mask), self.dtype)
        if not isinstance(x, jax.Array):
            x = np.asarray(x)
        if x.dtype.kind not in "iub":
            raise InputError(f"ring elements must be integers, got dtype {x.dtype}")
        with _wide(x):
            return self._cut(x.astype(self.dtype))

    def signed(self, x: Array) -> Array:
        """Reads two's complement: values in [-2^(bits-1), 2^(bits-1)).

        In int64 for numpy arrays; for JAX arrays in int32 while bits <= 32 (so that it works with
        64-bit types off), int64 beyond.
        """
        x = self._element(x)
        wide = 32 if isinstance(x, jax.Array) and self.bits <= 32 else 64
        spare = np.dtype(f"i{wide // 8}").type(wide - self.bits)
        with _wide(x):
            return (x.astype(spare.dtype) << spare) >> spare

    def add(self, x: Array, y: Array) -> Array:
        """Element-wise x + y."""
        return self._apply("add", x, y)

    def sub(self, x: Array, y: Array) -> Array:
        """Element-wise x - y."""
        return self._apply("subtract", x, y)

    def neg(self, x: Array) -> Array:
        """Element-wise -x."""
        return self._apply("negative", x)

    def mul(self, x: Array, y: Array) -> Array:
        """Element-wise x * y."""
        return self._apply("multiply", x, y)

    def shift_left(self, x: Array, shift: int) -> Array:
        """Element-wise x * 2^shift, for a public shift >= 0 (zero once shift >= bits)."""
        if shift < 0:
            raise InputError(f"shift must be >= 0, got {shift}")
        x = self._element(x)
        with _wide(x):
            if shift >= self.bits:
                return _xp(x).zeros_like(x)
            return self._cut(_xp(x).left_shift(x, self.dtype.type(shift)))

    def share(self, x: Array, mask: Array) -> tuple[Array, Array]:
        """Splits x into (x - mask, mask); `mask` must be uniform over this ring and used once."""
        x, mask = self._element(x), self._element(mask)
        if x.shape != mask.shape:
            raise InputError(f"mask must have the shape of x, {x.shape}, got {mask.shape}")
        return self.sub(x, mask), mask

    def reconstruct(self, x0: Array, x1: Array) -> Array:
        """Joins two shares: x0 + x1."""
        return self.add(x0, x1)

    def _apply(self, name: str, *operands: Array) -> Array:
        operands = tuple(self._element(x) for x in operands)
        with _wide(*operands):
            return self._cut(getattr(_xp(*operands), name)(*operands))

    def _element(self, x: Array) -> Array:
        if isinstance(x, (np.ndarray, jax.Array)) and x.dtype == self.dtype:
            return x
        return self.reduce(x)

    def _cut(self, x: Array) -> Array:
        return x if self.bits == 8 * self.dtype.itemsize else x & self.mask


def _xp(*arrays: Array) -> Any:
    return jnp if any(isinstance(a, jax.Array) for a in arrays) else np


def _wide(*arrays: Array) -> contextlib.AbstractContextManager:
    """64-bit types on, for JAX operands only: with them off JAX would silently cut to 32 bits."""
    return jax.enable_x64(True) if _xp(*arrays) is jnp else contextlib.nullcontext()
