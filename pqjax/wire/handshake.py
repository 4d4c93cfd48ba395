"""The first words on a wire: who speaks which version, in which role, of which plan.

  1. client -> server hello: magic, protocol version, role, whether it has stored preparations to
                      offer, and which model it asks for                             48 bytes
                      and, if it says so, a ticket                                   32 bytes
  2. server -> client hello: likewise, with the digest of that model's plan          48 bytes
  3. both -> other    verdict: fine, or what does not match                          8 bytes each
  4. server -> client the length of the plan document, then the document, unless the client had
                      its digest

A client asks for a model by its plan's digest, by its name's, or for the one that the server has for
whoever names none. Both sides judge the same two hellos, so both raise the same HandshakeError. A
server that does not take the client, whose hello is fine, says why in its verdict. The sizes of hello
and verdict never change between versions. These frames carry clock 0 and belong to no plan.
"""

import dataclasses
import enum
import hashlib
import struct
from collections.abc import Callable

from pqjax.errors import Drift, HandshakeError, InputError, Refused, shown
from pqjax.wire.interface import Wire
from pqjax.wire.word import Word

# 2: hashes keyed by the session; 3: words between frames; 4: lanes; 5: stored preparations; 6: models
PROTOCOL_VERSION = 6
DOCUMENT_LIMIT_BYTES = 4 << 20

_MAGIC = b"pqjax\r\n\0"
_HELLO = struct.Struct("<8sHBB32s4x")
HELLO_BYTES = _HELLO.size
_VERDICT = struct.Struct("<B7x")
_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = 32
_NO_DIGEST = bytes(_DIGEST_BYTES)
_NAME = b"pqjax model\0"
_SERVER, _CLIENT = 0, 1
_OFFERS, _NAMED, _TICKET, _BACKGROUND = 1, 2, 4, 8  # bits of a hello's flags
TICKET_BYTES = 32
_WHERE = "handshake"


class Objection(enum.IntEnum):
    """Why a server does not take a client whose hello is fine."""

    BUSY = 4
    UNKNOWN_MODEL = 5
    NO_MEMORY = 6
    TOO_MANY_SESSIONS = 7
    SPENT = 8
    NO_TICKET = 9


class _Verdict(enum.IntEnum):
    FINE = 0
    VERSIONS_DIFFER = 1
    SAME_ROLE = 2
    PLANS_DIFFER = 3


_OBJECTIONS = {
    Objection.BUSY: "the server is busy with other clients; try again later",
    Objection.UNKNOWN_MODEL: "the server has no model of that name and version",
    Objection.NO_MEMORY: "the server has no memory left for another session of this model; try again "
    "later",
    Objection.TOO_MANY_SESSIONS: "this client has as many sessions with the server as it may have at a "
    "time: end one, or try again later",
    Objection.SPENT: "this client has made all inferences that the server allows it in a day; try again "
    "tomorrow",
    Objection.NO_TICKET: "the server takes clients that its directory has sent: ask the directory for a "
    "ticket, and use it once, soon, and with the certificate that asked for it",
}


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which model a client asks for, and how it comes.

    Attributes:
      digest: of its plan or, if `named`, of its name (`name_digest`); all zero: whichever the server
        has for those who name none.
      named: whether by name.
      ticket: what a directory of servers gave it, or nothing.
      background: it comes to prepare, and gives way to everybody else.
    """

    digest: bytes = _NO_DIGEST
    named: bool = False
    ticket: bytes = b""
    background: bool = False

    @property
    def any(self) -> bool:
        """Whether no model is named."""
        return not self.named and self.digest == _NO_DIGEST


Find = Callable[[Asked], bytes | None]  # the plan document of what is asked for, if it is there
Admit = Callable[[bytes, Asked], Objection | None]  # asked with that document, too


def name_digest(name: str) -> bytes:
    """What stands for a model's name in a hello, so that hellos keep their size.

    Raises:
      InputError: the name is no text, as where a command line's bytes are no UTF-8.
    """
    try:
        return hashlib.sha256(_NAME + name.encode()).digest()
    except UnicodeError as error:
        raise InputError(f"a model's name is text, got {shown(name)}") from error


def only(document: bytes) -> Find:
    """A server's one model, which has no name."""

    def find(asked: Asked) -> bytes | None:
        return None if asked.named else document

    return find


def plan_digest(document: bytes) -> bytes:
    """What identifies a plan: the SHA-256 of its public document."""
    return hashlib.sha256(document).digest()


def greet_client(
    wire: Wire, find: Find, admit: Admit = lambda document, asked: None
) -> tuple[bytes, bool]:
    """The server's side: agrees on everything, and sends the plan document unless the client has it.

    Args:
      wire: to a client that nothing was said to yet.
      find: the model that the client asks for; a plan's digest may be found or not, what it is told
        then is that plans differ.
      admit: asked once, for a client whose hello is fine.

    Returns:
      The document agreed on, and whether the client goes on by offering stored preparations.

    Raises:
      Refused: the client was told why it is not taken.
      HandshakeError: the two do not fit.
    """
    theirs = _Hello.heard(wire)
    asked = Asked(theirs.digest, theirs.named, theirs.ticket, theirs.background)
    document = find(asked)
    # A plan that is not there is answered by the one there is: what a client that insists is to hear.
    told = document if document is not None or asked.named else find(Asked())
    nbytes = 0 if told is None else len(told)
    if nbytes > DOCUMENT_LIMIT_BYTES:
        raise InputError(f"a plan document has at most {DOCUMENT_LIMIT_BYTES} bytes, got {nbytes}")
    mine = _Hello(_SERVER, False, False, _NO_DIGEST if told is None else plan_digest(told))
    mine.say(wire)
    insists = _NO_DIGEST if asked.named else asked.digest
    own = _judged(mine, theirs, insists, mine.digest)
    if own is _Verdict.FINE:
        own = Objection.UNKNOWN_MODEL if told is None else admit(told, asked) or own
    _agree(wire, own, mine, theirs, insists)
    assert told is not None
    if asked.named or asked.any:
        wire.send(_LENGTH.pack(nbytes), 0, _WHERE)
        wire.send(told, 0, _WHERE)
    return told, theirs.offers


def greet_server(
    wire: Wire,
    digest: bytes | None,
    offers: bool = False,
    name: str | None = None,
    ticket: bytes = b"",
    background: bool = False,
) -> bytes | None:
    """The client's side; returns the plan document, unless it asked by its `digest` alone.

    A model that is asked for by its name has to have the digest, too, if one is given: versions of a
    model may have one plan. If the client `offers` stored preparations, that comes next. A ticket is
    what a directory of servers gave it. In the `background` a client gives way to others.

    Raises:
      Refused: the server does not take this client, and says why.
      HandshakeError: the two do not fit, or the other side is no server.
    """
    if digest is not None and (len(digest) != _DIGEST_BYTES or digest == _NO_DIGEST):
        raise InputError(f"a plan digest is a SHA-256, 32 bytes, got {digest!r}")
    insists = digest or _NO_DIGEST
    asked = insists if name is None else name_digest(name)
    if len(ticket) not in (0, TICKET_BYTES):
        raise InputError(f"a ticket has {TICKET_BYTES} bytes, got {len(ticket)}")
    mine = _Hello(_CLIENT, offers, name is not None, asked, ticket, background)
    mine.say(wire)
    theirs = _Hello.heard(wire)
    _agree(wire, _judged(mine, theirs, insists, theirs.digest), theirs, mine, insists, name)
    if digest is not None and name is None:
        return None
    (nbytes,) = _LENGTH.unpack(_receive(wire, _LENGTH.size))
    if nbytes > DOCUMENT_LIMIT_BYTES:
        raise HandshakeError(
            f"{_WHERE}: the server's plan document has {nbytes} bytes, more than the "
            f"{DOCUMENT_LIMIT_BYTES} allowed"
        )
    document = _receive(wire, nbytes)
    if plan_digest(document) != theirs.digest:
        raise HandshakeError(
            f"{_WHERE}: the plan document has SHA-256 {plan_digest(document).hex()}, "
            f"the server promised {theirs.digest.hex()}"
        )
    return document


def _receive(wire: Wire, nbytes: int) -> bytes:
    try:
        return wire.recv(nbytes, _WHERE)[0].tobytes()
    except Drift as error:
        raise HandshakeError(f"not a pqjax peer: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Hello:
    """What one side says first."""

    role: int
    offers: bool
    named: bool
    digest: bytes
    ticket: bytes = b""
    background: bool = False
    version: int = dataclasses.field(default_factory=lambda: PROTOCOL_VERSION)

    def say(self, wire: Wire) -> None:
        flags = _OFFERS * self.offers | _NAMED * self.named | _TICKET * bool(self.ticket)
        flags |= _BACKGROUND * self.background
        wire.send(_HELLO.pack(_MAGIC, self.version, self.role, flags, self.digest), 0, _WHERE)
        if self.ticket:
            wire.send(self.ticket, 0, _WHERE)

    @classmethod
    def heard(cls, wire: Wire) -> "_Hello":
        """The other side's.

        Raises:
          HandshakeError: it is something else.
        """
        magic, version, role, flags, digest = _HELLO.unpack(_receive(wire, _HELLO.size))
        if magic != _MAGIC:
            raise HandshakeError(f"{_WHERE}: not a pqjax peer: its hello begins with {magic!r}")
        same = version == PROTOCOL_VERSION and role == _CLIENT
        ticket = _receive(wire, TICKET_BYTES) if same and flags & _TICKET else b""
        offers, named, background = (bool(flags & bit) for bit in (_OFFERS, _NAMED, _BACKGROUND))
        return cls(role, offers, named, digest, ticket, background, version)


def _judged(mine: _Hello, theirs: _Hello, insists: bytes, server: bytes) -> _Verdict:
    """Of a client that insists on a plan, or on none; and the server's."""
    if theirs.version != PROTOCOL_VERSION:
        return _Verdict.VERSIONS_DIFFER
    if theirs.role == mine.role:
        return _Verdict.SAME_ROLE
    if insists not in (_NO_DIGEST, server):
        return _Verdict.PLANS_DIFFER
    return _Verdict.FINE


def _agree(
    wire: Wire,
    own: _Verdict | Objection,
    server: _Hello,
    client: _Hello,
    insists: bytes,
    name: str | None = None,
) -> None:
    """Exchanges verdicts.

    Raises:
      Refused, HandshakeError: one of them is not fine.
    """
    wire.send(_VERDICT.pack(own), 0, _WHERE)
    (said,) = _VERDICT.unpack(_receive(wire, _VERDICT.size))
    if not (own or said):
        return
    found = own or said
    if found in _OBJECTIONS:
        of = f" ({shown(name)})" if name is not None and found == Objection.UNKNOWN_MODEL else ""
        objection = Objection(found)
        text = f"{_WHERE}: {_OBJECTIONS[objection]}{of}"
        raise Refused(text, objection.name.lower().replace("_", " "))
    both = "servers" if server.role == client.role == _SERVER else "clients"
    objections: dict[int, str] = {
        _Verdict.VERSIONS_DIFFER: f"the server speaks protocol version {server.version}, "
        f"the client {client.version}",
        _Verdict.SAME_ROLE: f"both parties are {both}",
        _Verdict.PLANS_DIFFER: f"the server's plan is {server.digest.hex()}, the client's "
        f"{insists.hex()}",
    }
    unknown = f"the other party objects for an unknown reason ({said})"
    raise HandshakeError(f"{_WHERE}: {objections.get(found, unknown)}")


def hang_up(wire: Wire, word: Word = Word.REFUSED) -> None:
    """Ends a wire after what was sent has gone out, and a last word: the other side is to hear why."""
    wire.leave(word)
    wire.abort()
