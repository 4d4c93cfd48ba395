"""Z_2^bits: elements, exact-width packing, exact products. Imports nothing else of pqjax."""

from pqjax.ring.bits import (
    bits_of,
    digits,
    from_bits,
    pack,
    packed_bytes,
    transpose_bits,
    unpack,
)
from pqjax.ring.kernel import blockwise, kernel
from pqjax.ring.ring import Ring

__all__ = [
    "Ring",
    "bits_of",
    "blockwise",
    "digits",
    "from_bits",
    "kernel",
    "pack",
    "packed_bytes",
    "transpose_bits",
    "unpack",
]
