"""Z_2^bits: elements, exact-width packing, exact products. Imports nothing else of pqjax."""

from pqjax.ring.bits import bits_of, digits, from_bits, pack, packed_bytes, unpack
from pqjax.ring.kernel import aligned, blockwise, kernel, laid_out
from pqjax.ring.linear import conv, matmul
from pqjax.ring.ring import Ring
from pqjax.ring.transpose import transpose_bits
