"""Files that only who wrote them can read and alter: AES-256 in GCM, a key for each of them.

A file's key follows from its owner's master key and 32 random bytes at its head, and serves once, so
that its nonce, which is zero, never meets a key twice.
"""

import hashlib
import hmac

from Crypto.Cipher import AES

from pqjax.crypto.prg import Randomness
from pqjax.errors import CheckpointError

KEY_BYTES = 32
_TAG_BYTES = 16
_NONCE = bytes(12)
SEALED_BYTES = KEY_BYTES + _TAG_BYTES  # more than what was sealed


def fresh_key() -> bytes:
    """32 random bytes."""
    return Randomness().take(KEY_BYTES).tobytes()


def seal(master: bytes, about: bytes, data: bytes) -> bytes:
    """Encrypts and authenticates data, and authenticates what it is about, which is not in it."""
    salt = fresh_key()
    sealed, tag = _cipher(master, salt, about).encrypt_and_digest(data)
    return b"".join([salt, tag, sealed])


def unseal(master: bytes, about: bytes, sealed: bytes) -> bytes:
    """What was sealed under this key about this.

    Raises:
      CheckpointError: it was not, or it was altered.
    """
    salt, tag = sealed[:KEY_BYTES], sealed[KEY_BYTES:SEALED_BYTES]
    try:
        cipher = _cipher(master, salt, about)
        return cipher.decrypt_and_verify(memoryview(sealed)[SEALED_BYTES:], tag)
    except ValueError:
        raise CheckpointError("cut off, altered, copied, or sealed by somebody else") from None


def proof(key: bytes, *said: bytes) -> bytes:
    """Shows that who says this knows the key, HMAC-SHA256; parts are told apart by their lengths."""
    parts = b"".join(len(part).to_bytes(8, "little") + part for part in said)
    return hmac.digest(key, b"pqjax proof" + parts, "sha256")


def same(a: bytes, b: bytes) -> bool:
    """Compares secrets, in a time that does not tell where they differ."""
    return hmac.compare_digest(a, b)


def _cipher(master: bytes, salt: bytes, about: bytes):
    key = hmac.digest(master, b"pqjax sealed" + salt, hashlib.sha256)
    cipher = AES.new(key, AES.MODE_GCM, nonce=_NONCE, mac_len=_TAG_BYTES)
    cipher.update(about)
    return cipher
