"""The first words on a wire: who speaks which version, in which role, of which plan.

  1. both -> other    hello: magic, protocol version, role, whether a client has
                      stored preparations to offer, plan digest                     48 bytes each
  2. both -> other    verdict: fine, or what does not match                          8 bytes each
  3. server -> client the length of the plan document, then the document, if the client's digest
                      was all zero ("send me the plan")

Both sides judge the same two hellos, so both raise the same HandshakeError. A server with no room
says so in its verdict, once the client's hello is fine: its digest is its plan's in any case. The
sizes of hello and verdict never change between versions. These frames carry clock 0 and belong to
no plan.
"""

import enum
import hashlib
import struct
from collections.abc import Callable

from pqjax.errors import Drift, HandshakeError, InputError
from pqjax.wire.interface import Wire
from pqjax.wire.word import Word

# 2: hashes keyed by the session; 3: words between frames; 4: lanes; 5: stored preparations
PROTOCOL_VERSION = 5
DOCUMENT_LIMIT_BYTES = 4 << 20

_MAGIC = b"pqjax\r\n\0"
_HELLO = struct.Struct("<8sHBB32s4x")
HELLO_BYTES = _HELLO.size
_VERDICT = struct.Struct("<B7x")
_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = 32
_NO_DIGEST = bytes(_DIGEST_BYTES)
_SERVER, _CLIENT = 0, 1
_WHERE = "handshake"


class _Verdict(enum.IntEnum):
    FINE = 0
    VERSIONS_DIFFER = 1
    SAME_ROLE = 2
    PLANS_DIFFER = 3
    BUSY = 4


def plan_digest(document: bytes) -> bytes:
    """What identifies a plan: the SHA-256 of its public document."""
    return hashlib.sha256(document).digest()


def greet_client(wire: Wire, document: bytes, admit: Callable[[], bool] = lambda: True) -> bool:
    """The server's side: agrees on everything, and sends the plan document if asked to.

    `admit` is asked once, for a client whose hello is fine: is there room for it? Returns whether the
    client goes on by offering stored preparations.
    """
    most, nbytes = DOCUMENT_LIMIT_BYTES, len(document)
    if nbytes > most:
        raise InputError(f"a plan document has at most {most} bytes, got {nbytes}")
    asked, offers = _meet(wire, _SERVER, plan_digest(document), admit)
    if asked == _NO_DIGEST:
        wire.send(_LENGTH.pack(nbytes), 0, _WHERE)
        wire.send(document, 0, _WHERE)
    return offers


def greet_server(wire: Wire, digest: bytes | None, offers: bool = False) -> bytes | None:
    """The client's side; without a `digest` it asks for the plan document and returns it.

    If it `offers` stored preparations, that comes next.
    """
    if digest is not None and (len(digest) != _DIGEST_BYTES or digest == _NO_DIGEST):
        raise InputError(f"a plan digest is a SHA-256, 32 bytes, got {digest!r}")
    promised, _ = _meet(wire, _CLIENT, digest or _NO_DIGEST, offers=offers)
    if digest is not None:
        return None
    (nbytes,) = _LENGTH.unpack(_receive(wire, _LENGTH.size))
    if nbytes > DOCUMENT_LIMIT_BYTES:
        raise HandshakeError(
            f"{_WHERE}: the server's plan document has {nbytes} bytes, more than the "
            f"{DOCUMENT_LIMIT_BYTES} allowed"
        )
    document = _receive(wire, nbytes)
    if plan_digest(document) != promised:
        raise HandshakeError(
            f"{_WHERE}: the plan document has SHA-256 {plan_digest(document).hex()}, "
            f"the server promised {promised.hex()}"
        )
    return document


def _receive(wire: Wire, nbytes: int) -> bytes:
    try:
        return wire.recv(nbytes, _WHERE)[0].tobytes()
    except Drift as error:
        raise HandshakeError(f"not a pqjax peer: {error}") from error


def _meet(
    wire: Wire,
    role: int,
    digest: bytes,
    admit: Callable[[], bool] = lambda: True,
    offers: bool = False,
) -> tuple[bytes, bool]:
    """Exchanges hellos and verdicts; if all is well the other's digest, and whether it offers."""
    wire.send(_HELLO.pack(_MAGIC, PROTOCOL_VERSION, role, offers, digest), 0, _WHERE)
    magic, version, other_role, offered, other_digest = _HELLO.unpack(_receive(wire, _HELLO.size))
    if magic != _MAGIC:
        raise HandshakeError(f"{_WHERE}: not a pqjax peer: its hello begins with {magic!r}")
    mine, theirs = (PROTOCOL_VERSION, digest), (version, other_digest)
    server, client = (mine, theirs) if role == _SERVER else (theirs, mine)

    own = _Verdict.FINE
    if version != PROTOCOL_VERSION:
        own = _Verdict.VERSIONS_DIFFER
    elif other_role == role:
        own = _Verdict.SAME_ROLE
    elif client[1] not in (_NO_DIGEST, server[1]):
        own = _Verdict.PLANS_DIFFER
    elif not admit():
        own = _Verdict.BUSY
    wire.send(_VERDICT.pack(own), 0, _WHERE)
    (said,) = _VERDICT.unpack(_receive(wire, _VERDICT.size))

    if not (own or said):
        return other_digest, bool(offered)
    objections = {
        _Verdict.VERSIONS_DIFFER: f"the server speaks protocol version {server[0]}, "
        f"the client {client[0]}",
        _Verdict.SAME_ROLE: f"both parties are {'servers' if role == _SERVER else 'clients'}",
        _Verdict.PLANS_DIFFER: f"the server's plan is {server[1].hex()}, the client's {client[1].hex()}",
        _Verdict.BUSY: "the server is busy with other clients; try again later",
    }
    unknown = f"the other party objects for an unknown reason ({said})"
    raise HandshakeError(f"{_WHERE}: {objections.get(own or said, unknown)}")


def hang_up(wire: Wire, word: Word = Word.REFUSED) -> None:
    """Ends a wire after what was sent has gone out, and a last word: the other side is to hear why."""
    wire.leave(word)
    wire.abort()
