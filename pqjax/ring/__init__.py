"""Z_2^bits: elements, exact-width packing, exact products. Imports nothing else of pqjax."""

from pqjax.ring.bits import digits, pack, packed_bytes, unpack
from pqjax.ring.kernel import aligned, blockwise, kernel
from pqjax.ring.linear import conv, matmul
from pqjax.ring.ring import Ring
from pqjax.ring.transpose import transpose_bits
