"""Secrets and their public keys: what all layers with hints share, and what one with a reply has alone.

Every tile of a layer needs a secret of its own, and the i-th tiles of all layers share the i-th. They
are drawn for one inference and live while it is prepared.

  1. rank 1 -> rank 0   b_pk = e - a_pk s of every secret, and of the first of them the keys that merge
                        hints (`pqjax.he.merging`).   N log2 q bits for b_pk and for each digit of a key

A layer with a reply has a seed and a secret of its own in every inference (`exchange_own_key`).
"""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from pqjax.he import STATIC, Level, Modulus, Secret
from pqjax.he.matrix import SEED_BYTES
from pqjax.he.polynomial import Polynomials
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, message, work


@dataclasses.dataclass(frozen=True)
class Secrets:
    """What layers use of an inference's secrets.

    Attributes:
      count: how many.
      merging: of how many the keys that merge hints.
      digits: of those keys, by depth.
    """

    count: int = 0
    merging: int = 0
    digits: tuple[int, ...] = ()

    @property
    def polynomials(self) -> int:
        """How many polynomials their public keys are."""
        return self.count + self.merging * sum(self.digits)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The keys, by depth."""
        return tuple(Level(depth, digits) for depth, digits in enumerate(self.digits))

    def within(self, limit: "Secrets") -> bool:
        """Whether a layer that uses these needs no more."""
        if self.count > limit.count or self.merging > limit.merging:
            return False
        digits = zip(self.digits, limit.digits, strict=False)
        return len(self.digits) <= len(limit.digits) and all(a <= b for a, b in digits)

    @classmethod
    def of_all(cls, layers: Iterable["Secrets"]) -> "Secrets":
        """What is enough for each of some layers."""
        every = [cls(), *layers]
        digits = itertools.zip_longest(*(each.digits for each in every), fillvalue=0)
        return cls(
            max(each.count for each in every),
            max(each.merging for each in every),
            tuple(max(column) for column in digits),
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Keys:
    """One party's half.

    Attributes:
      seed: of the model's public polynomials.
      secrets: the client's.
      public: the server's, (secrets, N) mod q.
      merging: the server's, of each secret that has them: by depth (digits, N) mod q.
    """

    seed: bytes
    secrets: tuple[Secret, ...] = ()
    public: Polynomials | None = None
    merging: tuple[tuple[Polynomials, ...], ...] = ()


def keys_cost(wanted: Secrets) -> Cost:
    """One message, where there are any."""
    n = wanted.polynomials * STATIC.degree
    return (
        work("steps", 2, 10) + work("coefficients", 0, n) + message(1, n * STATIC.bits)
        if n
        else NOTHING
    )


def exchange_keys(party: Party, seed: bytes, wanted: Secrets) -> Keys:
    """Fresh secrets at rank 1, their public keys at rank 0; both at once. Cost: `keys_cost`."""
    ring, messenger, levels = STATIC.ring, party.messenger, wanted.levels
    if party.rank == 0:
        rows = messenger.receive_elements(wanted.polynomials * STATIC.degree, ring)
        public, rest = np.split(rows.reshape(-1, STATIC.degree), [wanted.count])
        places = np.cumsum(wanted.digits[:-1], dtype=int)
        each = np.split(rest, wanted.merging) if wanted.merging else []
        return Keys(seed, public=public, merging=tuple(tuple(np.split(x, places)) for x in each))
    own = tuple(Secret(STATIC, party.randomness) for _ in range(wanted.count))
    zeros = [secret.zero(seed) for secret in own]
    keys = [s.switching(seed, level) for s in own[: wanted.merging] for level in levels]
    messenger.send_elements(np.concatenate([*zeros, *keys]), ring)
    return Keys(seed, own)


@dataclasses.dataclass(frozen=True, repr=False)  # a secret, at the client
class OwnKey:
    """One party's half of a layer's key, for one inference, to be used once.

    Attributes:
      seed: of the layer's public polynomials.
      secret: the client's.
      public: the server's b_pk (1, N).
    """

    seed: bytes
    secret: Secret | None = None
    public: Polynomials | None = None


def exchange_own_key(party: Party, modulus: Modulus) -> OwnKey:
    """A fresh seed and secret at rank 1, b_pk at rank 0; both at once. Cost: `own_key_cost`.

    1. rank 1 -> rank 0   the seed, b_pk = e - a_pk s.   128 + N log2 q bits
    """
    messenger, byte = party.messenger, Ring(8)
    with messenger.step("key"):
        if party.rank == 0:
            seed = messenger.receive_elements(SEED_BYTES, byte).tobytes()
            public = messenger.receive_elements(modulus.degree, modulus.ring)
            return OwnKey(seed, public=public.astype(np.uint64)[None])
        seed, secret = party.randomness.block(), Secret(modulus, party.randomness)
        messenger.send_elements(np.frombuffer(seed, np.uint8), byte)
        messenger.send_elements(modulus.ring.reduce(secret.zero(seed)), modulus.ring)
        return OwnKey(seed, secret)


def own_key_cost(modulus: Modulus) -> Cost:
    """One seed and one polynomial from the client."""
    made = work("steps", 1, 10) + work("coefficients", 0, modulus.degree)
    return made + message(1, 8 * SEED_BYTES + modulus.degree * modulus.bits)
