"""Base oblivious transfers over P-256: the few public-key OTs from which all others are extended.

Chou-Orlandi's "simplest OT" against semi-honest parties (eprint 2015/267):

  1. sender -> receiver   A = aG.                                      512 bits
  2. receiver -> sender   B_i = b_i G + c_i A for every OT i.          512 bits each
  3. keys                 k_i^0 = H(i, A, B_i, a B_i), k_i^1 = H(i, A, B_i, a (B_i - A));
                          the receiver has H(i, A, B_i, b_i A) = k_i^{c_i}.

Both sides also return the SHA-256 of what was said: it names the session, and keys its hash.
"""

import hashlib

import numpy as np
from Crypto.PublicKey.ECC import EccPoint  # pyright: ignore[reportPrivateImportUsage]
from jaxtyping import UInt8

from pqjax.crypto.prg import Randomness
from pqjax.errors import Drift
from pqjax.wire.cost import Cost, message
from pqjax.wire.messenger import Messenger

POINT_BYTES = 64
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
GENERATOR = EccPoint(
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    curve="p256",
)


def _scalar(randomness: Randomness) -> int:
    """A uniform scalar in 1..ORDER-1 (48 random bytes: bias below 2^-128)."""
    return int.from_bytes(randomness.take(48).tobytes(), "big") % (ORDER - 1) + 1


def _encode(point: EccPoint) -> bytes:
    return int(point.x).to_bytes(32, "big") + int(point.y).to_bytes(32, "big")


def _decode(raw: bytes, where: str) -> EccPoint:
    if not any(raw):  # read as the point at infinity, which makes keys that anybody knows
        raise Drift(f"{where}: expected a point on P-256 other than the identity, got zeros")
    x, y = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    try:
        return EccPoint(x, y, curve="p256")
    except ValueError as error:
        raise Drift(f"{where}: expected a point on P-256, got bytes that are not one") from error


def _key(index: int, a: bytes, b: bytes, shared: EccPoint) -> bytes:
    text = index.to_bytes(4, "big") + a + b + _encode(shared)
    return hashlib.sha256(text).digest()[:16]


def base_send(
    messenger: Messenger, randomness: Randomness, n: int
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Runs `n` base OTs as sender: a pair of 16-byte keys each, and the transcript's digest."""
    secret = _scalar(randomness)
    big_a = GENERATOR * secret
    a = _encode(big_a)
    minus = -(big_a * secret)
    messenger.send(np.frombuffer(a, np.uint8), 8 * POINT_BYTES)
    raw = messenger.receive(8 * POINT_BYTES * n).tobytes()
    keys = []
    for i in range(n):
        b = raw[POINT_BYTES * i : POINT_BYTES * (i + 1)]
        shared = _decode(b, messenger.where) * secret
        keys.append((_key(i, a, b, shared), _key(i, a, b, shared + minus)))
    return keys, hashlib.sha256(a + raw).digest()


def base_receive(
    messenger: Messenger, randomness: Randomness, choices: UInt8[np.ndarray, " n"]
) -> tuple[list[bytes], bytes]:
    """Runs base OTs as receiver: the 16-byte key of each choice, and the transcript's digest."""
    a = messenger.receive(8 * POINT_BYTES).tobytes()
    big_a = _decode(a, messenger.where)
    scalars = [_scalar(randomness) for _ in choices]
    offers = []
    for scalar, choice in zip(scalars, choices, strict=True):
        point = GENERATOR * scalar
        both = (point, point + big_a)  # computed for either choice: same work, same time
        offers.append(_encode(both[int(choice)]))
    said = b"".join(offers)
    messenger.send(np.frombuffer(said, np.uint8), 8 * POINT_BYTES * len(offers))
    pairs = enumerate(zip(offers, scalars, strict=True))
    keys = [_key(i, a, b, big_a * s) for i, (b, s) in pairs]
    return keys, hashlib.sha256(a + said).digest()


def base_cost(sender: int, n: int) -> Cost:
    """512 bits from the sender, then 512 bits per OT from the receiver: two flows."""
    return message(sender, 8 * POINT_BYTES) + message(1 - sender, 8 * POINT_BYTES * n)
