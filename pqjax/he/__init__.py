"""Linear layers over RLWE: parameters, ciphertexts, static hints, replies and shares.

Arrays in, arrays out: it never sees a wire. What a layer costs follows from its `Tiling` and its
`Precision`, or, as published systems compute it, from its `TwoWay`.
"""

from pqjax.he.exchange import Reply, TwoWay
from pqjax.he.hint import Hint, ServerKey
from pqjax.he.levels import Level, Merging
from pqjax.he.matrix import Matrix
from pqjax.he.modulus import LIMITS, STATIC, STATIC_LIMITS, Modulus
from pqjax.he.packing import Packing
from pqjax.he.phases import Geometry
from pqjax.he.precision import Filter, Precision, merged_precision, precision_for
from pqjax.he.published import CHEETAH, HEQUANT, Options, two_way
from pqjax.he.resharing import ReplyPrecision, Sharing
from pqjax.he.secret import Secret
from pqjax.he.tiling import Tiling, cheapest, merged_tilings, tilings
from pqjax.he.version import Version
