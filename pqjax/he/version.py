"""A model's version: what its hints are made of, and what makes the same ones again.

New weights, or another plan, need a new version: u and e1 are one hint's own.
"""

import dataclasses
import hashlib

from pqjax.crypto.prg import BLOCK_BYTES, Randomness


@dataclasses.dataclass(frozen=True, repr=False)  # the key is secret
class Version:
    """What the server keeps of a version beside the hints.

    Attributes:
      seed: public, of the polynomials that ciphertexts and hints are made with.
      key: secret, of every layer's u and e1.
    """

    seed: bytes
    key: bytes

    @classmethod
    def fresh(cls) -> "Version":
        """A new one, of the operating system's entropy."""
        randomness = Randomness()
        return cls(randomness.block(), randomness.block())

    def randomness(self, purpose: str, layer: str) -> Randomness:
        """A stream for one purpose in one layer, the same at every call."""
        text = f"pqjax {purpose} of {layer}".encode()
        return Randomness(hashlib.sha256(self.key + text).digest()[:BLOCK_BYTES])
