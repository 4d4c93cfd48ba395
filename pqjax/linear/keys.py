"""What all encrypted layers of one inference share: secrets, and their public keys.

Every tile of a layer needs a secret of its own, and the i-th tiles of all layers share the i-th. They
are drawn for one inference and live while it is prepared.

  1. rank 1 -> rank 0   b_pk = e - a_pk s of every secret.   N log2 q bits each
"""

import dataclasses

import numpy as np

from pqjax.he import STATIC, Secret
from pqjax.he.polynomial import Polynomials
from pqjax.protocols.party import Party
from pqjax.wire.cost import NOTHING, Cost, message


@dataclasses.dataclass(frozen=True, repr=False)
class Keys:
    """One party's half.

    Attributes:
      seed: of the model's public polynomials.
      secrets: the client's.
      public: the server's, (secrets, N) mod q.
    """

    seed: bytes
    secrets: tuple[Secret, ...] = ()
    public: Polynomials | None = None


def keys_cost(secrets: int) -> Cost:
    """One message, where there are any."""
    return message(1, secrets * STATIC.degree * STATIC.bits) if secrets else NOTHING


def exchange_keys(party: Party, seed: bytes, secrets: int) -> Keys:
    """Fresh secrets at rank 1, their public keys at rank 0; both at once. Cost: `keys_cost`."""
    ring, shape = STATIC.ring, (1, STATIC.degree)
    messenger = party.messenger
    if party.rank == 0:
        public = messenger.receive_elements(secrets * STATIC.degree, ring)
        return Keys(seed, public=public.reshape(secrets, STATIC.degree))
    own = tuple(Secret(STATIC, party.randomness) for _ in range(secrets))
    zeros = [secret.zero(seed).reshape(shape) for secret in own]
    messenger.send_elements(np.concatenate(zeros), ring)
    return Keys(seed, own)
