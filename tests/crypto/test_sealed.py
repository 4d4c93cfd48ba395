"""Sealed files: nobody else's key, place or byte opens them."""

import pytest

from pqjax.crypto.sealed import SEALED_BYTES, fresh_key, proof, same, seal, unseal
from pqjax.errors import CheckpointError


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_what_is_sealed_is_opened_by_the_same_key_for_the_same_place_alone(n):
    key, data = fresh_key(), bytes(range(256)) * 4
    data = data[:n]
    sealed = seal(key, b"here", data)

    assert unseal(key, b"here", sealed) == data and len(sealed) == n + SEALED_BYTES
    for other, about in ((fresh_key(), b"here"), (key, b"there"), (key, b"")):
        with pytest.raises(CheckpointError):
            unseal(other, about, sealed)


def test_any_altered_or_missing_byte_is_noticed():
    key = fresh_key()
    sealed = seal(key, b"here", b"a secret")
    for i in range(len(sealed)):
        flipped = bytes([*sealed[:i], sealed[i] ^ 1, *sealed[i + 1 :]])
        for bad in (flipped, sealed[:i]):
            with pytest.raises(CheckpointError):
                unseal(key, b"here", bad)


def test_the_same_data_is_never_sealed_twice_alike():
    key, data = fresh_key(), bytes(64)
    sealed = [seal(key, b"here", data) for _ in range(50)]

    assert len({s[:32] for s in sealed}) == len({s[SEALED_BYTES:] for s in sealed}) == 50
    assert not any(data in s for s in sealed)


def test_proofs_tell_what_was_said_apart():
    key = fresh_key()

    assert same(proof(key, b"a", b"bc"), proof(key, b"a", b"bc"))
    others = [proof(fresh_key(), b"a", b"bc"), proof(key, b"ab", b"c"), proof(key, b"abc")]
    assert not any(same(proof(key, b"a", b"bc"), other) for other in others)
