"""The public polynomials of a layer, from a seed: AES under a public key, as FrodoKEM makes its matrix.

A seed belongs to one version of a model: new weights need a new one (`pqjax.he.hint`).
"""

import dataclasses
import hashlib

import numpy as np

from pqjax.crypto.prg import BLOCK_BYTES, Stream
from pqjax.errors import InputError
from pqjax.he.modulus import Modulus
from pqjax.he.polynomial import Polynomials

SEED_BYTES = BLOCK_BYTES
_KEY = "\0"  # no layer has this name, or one that begins so


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Uniform polynomials, the same for everybody who knows the seed.

    Attributes:
      modulus: the ring they live in.
      seed: 16 public bytes of the model's version.
      name: the layer's; different names give independent polynomials.
      count: how many there are.
    """

    modulus: Modulus
    seed: bytes
    name: str
    count: int

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise InputError(f"a seed has {SEED_BYTES} bytes, got {len(self.seed)}")

    @classmethod
    def key(cls, modulus: Modulus, seed: bytes) -> "Matrix":
        """The one polynomial a_pk of a model, under which hints and encryptions of zero are made."""
        return cls(modulus, seed, _KEY, 1)

    @classmethod
    def switching(cls, modulus: Modulus, seed: bytes, depth: int, digits: int) -> "Matrix":
        """Polynomials of a key that merges hints at some depth (`pqjax.he.merging`)."""
        return cls(modulus, seed, f"{_KEY}{depth}", digits)

    def polynomials(self) -> Polynomials:
        """Its coefficients (count, N), made anew at every call."""
        digest = hashlib.sha256(b"pqjax matrix" + self.seed + self.name.encode()).digest()
        words = Stream(digest[:BLOCK_BYTES]).take(8 * self.count * self.modulus.degree)
        found = words.view(np.uint64).reshape(self.count, self.modulus.degree)
        return found & np.uint64(self.modulus.ring.mask)
