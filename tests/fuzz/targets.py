"""What strangers' bytes go into: a function a parser, which only the package's own errors may leave.

A target takes bytes and says whether they were taken. `tried` holds it to what must hold of any bytes:
an error is one that the parser promises, behind which stands nothing that nobody foresaw, with a
text fit for a terminal; and nothing takes long, or much memory. All else is a `Finding`.

The first byte, or a few, say which of a target's parsers the rest is for: bytes behind a checksum that
is right get further than any mutation would.
"""

import contextlib
import dataclasses
import hashlib
import ipaddress
import pathlib
import socket
import time
from collections.abc import Callable

import numpy as np
from artefacts import (
    ABOUT,
    KEY,
    NAME,
    TICKET,
    batch,
    document,
    encrypted_plan,
    frame,
    hints,
    key_file,
    model_file,
    place,
    served,
)
from hostile import npy, refused, refused_file, sealed, zipped
from tiny import tiny_weights

from nets.importing.onnx import read_onnx
from pqjax.crypto.sealed import unseal
from pqjax.engine.catalogue import Title
from pqjax.engine.half import from_bytes
from pqjax.engine.hints import HintFolder, Hints, find_made, header, read_hints
from pqjax.engine.process import peak_bytes
from pqjax.engine.spending import spend_at_server
from pqjax.engine.store import Store
from pqjax.errors import (
    AddressError,
    CheckpointError,
    GraphError,
    InputError,
    PqjaxError,
    StoreError,
    WireError,
)
from pqjax.fleet.client import Seat, directory_place, fleet_target
from pqjax.fleet.door import Question
from pqjax.fleet.tickets import Tickets
from pqjax.graph.strict_json import parse
from pqjax.he import Hint
from pqjax.ring import Ring
from pqjax.schema import read
from pqjax.wire.address import format_address, is_loopback, parse_address, resolve
from pqjax.wire.handshake import TICKET_BYTES, greet_client, greet_server, name_digest, plan_digest
from pqjax.wire.interface import LANES
from pqjax.wire.link import parse_link
from pqjax.wire.lobby import Guest
from pqjax.wire.messenger import Messenger
from pqjax.wire.tcp import TcpWire

MOST_SECONDS = 5.0  # of all processors, for any bytes
MOST_MORE_BYTES = 256 << 20  # at a time, for any bytes
MOST_TEXT = 1000  # characters of an error
_CLEAR = pathlib.Path("/proc/self/clear_refs")
_MOST_STREAM = 1 << 16  # bytes that a socket takes at once
_DEADLINE_S = 0.5


class Finding(Exception):
    """A parser has done what it must not."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser that strangers feed.

    Attributes:
      name: of its corpus's folder, too.
      take: the parser; whether it took the bytes.
      errors: what it raises if it does not.
      causes: what may stand behind these; None: anything, another package's errors are wrapped.
    """

    name: str
    take: Callable[[bytes], bool]
    errors: tuple[type[PqjaxError], ...]
    causes: tuple[type[BaseException], ...] | None = (
        PqjaxError,
        OSError,
        ValueError,
        RecursionError,
    )

    def tried(self, data: bytes) -> bool:
        """Feeds it; whether it took the bytes.

        Raises:
          Finding: it did what no bytes may make it do.
        """
        with contextlib.suppress(OSError):  # the most memory so far is forgotten, where Linux can
            _CLEAR.write_text("5")
        before, begin = peak_bytes(), time.process_time()
        try:
            taken = self.take(data)
        except self.errors as error:
            self._judge(error)
            taken = False
        except Finding:
            raise
        except Exception as error:
            raise Finding(f"{self.name}: {type(error).__name__}: {error}") from error
        seconds, more = time.process_time() - begin, peak_bytes() - before
        if seconds > MOST_SECONDS or more > MOST_MORE_BYTES:
            raise Finding(f"{self.name}: {seconds:.1f} s, {more >> 20} MiB more")
        return taken

    def _judge(self, error: PqjaxError) -> None:
        text, cause = str(error), error.__cause__
        if not text or not text.isprintable() or len(text) > MOST_TEXT:
            raise Finding(f"{self.name}: a text of {len(text)} characters: {text!r}") from error
        if cause is not None and self.causes is not None and not isinstance(cause, self.causes):
            raise Finding(f"{self.name}: not foreseen: {cause!r}") from error


def _must(true: bool, what: str) -> None:
    if not true:
        raise Finding(what)


class _Bytes:
    """Bytes to take from the front; none left are zeros."""

    def __init__(self, data: bytes):
        self.rest = data

    def number(self, nbytes: int = 1) -> int:
        taken, self.rest = self.rest[:nbytes], self.rest[nbytes:]
        return int.from_bytes(taken, "little")


@contextlib.contextmanager
def _stream(content: bytes):
    """A socket whose other side has said all this, and says no more."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(content[:_MOST_STREAM])
        theirs.shutdown(socket.SHUT_WR)
        yield ours


def _frames(data: bytes) -> bool:
    """Tickets for some frames, then a stream: what is delivered has the length of its ticket."""
    control = _Bytes(data)
    flags = control.number()
    wanted = [(control.number() % LANES, control.number(2)) for _ in range(flags & 7)]
    stream = control.rest[:_MOST_STREAM]
    with _stream(stream) as sock:
        wire = TcpWire(sock, _DEADLINE_S)
        try:
            if flags & 8:
                wire.send(b"hello", 0, "hello")
            if flags & 16:
                return _elements(wire, wanted)
            slots = [wire.expect(n, f"frame {i}", lane=at) for i, (at, n) in enumerate(wanted)]
            for slot, (_, nbytes) in zip(slots, wanted, strict=True):
                payload, clock = slot.wait()
                _must(payload.nbytes == nbytes, "a frame of another length was delivered")
                _must(payload.tobytes() in stream, "what was delivered was never sent")
                _must(0 <= clock < 1 << 32, "a clock of more than 32 bits")
            return True
        finally:
            wire.abort()


def _elements(wire: TcpWire, wanted: list[tuple[int, int]]) -> bool:
    """As a protocol reads: elements of rings, in lane 0."""
    messenger = Messenger(wire, 0)
    for i, (_, n) in enumerate(wanted):
        ring = Ring(1 + n % 64)
        with messenger.step(f"step {i}"):
            found = messenger.receive_elements(n // 64, ring)
        _must(found.size == n // 64 and not (found & ~ring.mask).any(), "no elements of the ring")
    return True


def _cut(data: bytes, sizes: list[int]) -> bytes:
    """Frames of these lengths, and one of the rest."""
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    parts.append(data[at:])
    return b"".join(frame(i, part) for i, part in enumerate(parts) if part)


def _greeting(data: bytes) -> bool:
    """Either side's greeting: as it stands on the stream, or in frames of the lengths that it has."""
    control = _Bytes(data)
    flags = control.number()
    kind, rest = flags >> 3 & 3, control.rest
    if flags & 1:
        sizes = [48, TICKET_BYTES, 8] if flags & 4 else [48, 8]
        with _stream(_cut(rest, sizes) if flags & 2 else rest) as sock:
            return _greet_client(sock)
    with _stream(_cut(rest, [48, 8, 8]) if flags & 2 else rest) as sock:
        return _greet_server(sock, kind)


def _greet_client(sock: socket.socket) -> bool:
    guest = Guest(sock, "a client", _DEADLINE_S)
    try:
        wire = guest.open(None, _DEADLINE_S)
        told, _ = greet_client(wire, lambda asked: document())
        _must(told == document(), "a client was told of another plan")
        return True
    finally:
        guest.close()


def _greet_server(sock: socket.socket, kind: int) -> bool:
    digest = plan_digest(document()) if kind == 3 else None
    wire = TcpWire(sock, _DEADLINE_S)
    try:
        named = {"name": NAME} if kind == 1 else {}
        ticket = {"ticket": TICKET, "offers": True} if kind == 2 else {}
        told = greet_server(wire, digest, **named, **ticket)
        _must((told is None) == (kind == 3), "a document that was not asked for")
        return True
    finally:
        wire.abort()


def _address(text: str) -> None:
    host, port = parse_address(text)
    _must(parse_address(format_address(host, port)) == (host, port), "another address in a text")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])  # others would be asked for in a network
        is_loopback(resolve(text))


def _title(text: str) -> None:
    title = Title.parse(text)
    _must(Title.parse(str(title)) == title, "another title in a text")


def _seat(text: str) -> None:
    seat = read(Seat, parse(text, 1 << 16))
    _must(len(seat.ticket) == 2 * TICKET_BYTES, "no ticket")


_WORDS: tuple[Callable[[str], object], ...] = (
    _address, _title, name_digest, fleet_target, directory_place, parse_link, _seat,
    lambda text: Question.of(text.encode(errors="surrogateescape")),
)  # fmt: skip


def _words(data: bytes) -> bool:
    """Short texts: addresses, names, URLs, links, questions to a directory; and tickets."""
    control = _Bytes(data)
    which = control.number() % (len(_WORDS) + 1)
    if which == len(_WORDS):
        tickets = Tickets()
        issued = tickets.issue("owner")
        _must(not tickets.take(control.rest, "owner"), "a ticket that nobody issued")
        _must(tickets.take(issued, "owner"), "a ticket that was issued, and refused")
        return False
    _WORDS[which](control.rest.decode("utf-8", "surrogateescape"))  # as a command line gives it
    return True


def _plan(data: bytes) -> bool:
    """A plan's document."""
    return refused(data, MOST_SECONDS) is None


def _model(data: bytes) -> bool:
    """A model file, or the graph or description in one whose checksum is right."""
    control = _Bytes(data)
    which, (_, found) = control.number() % 3, model_file()
    path = place("model.npz")
    if which == 0:
        path.write_bytes(control.rest)
    else:
        part = ("graph.npy", "meta.npy")[which - 1]
        zipped(path, sealed({**found, part: npy(control.rest)}))
    return refused_file(path) is None


def _hints(data: bytes) -> bool:
    """A file of hints, with or without its head; one under the name of its digest; a server's key."""
    control = _Bytes(data)
    which, made, body = control.number() % 4, encrypted_plan(), control.rest
    if which == 2:
        name, _ = key_file()
        path = place("keys") / name
        path.write_bytes(body + hashlib.sha256(body).digest())
        return find_made(place("keys"), made, tiny_weights()) is not None
    if which == 1:
        whole = header(made, bytes(16)) + body
        body = whole + bytes(max(0, hints().whole.size - len(whole)))
    if which == 3:
        digest = hashlib.sha256(body).digest()
        place(f"{digest.hex()}.hint").write_bytes(body)
        try:
            found = HintFolder(place("")).find(digest, made)
            return found is not None
        finally:
            place(f"{digest.hex()}.hint").unlink(missing_ok=True)
    path = place("some.hint")
    path.unlink(missing_ok=True)  # nobody writes into a file that is mapped
    path.write_bytes(body)
    return _unpacked(read_hints(path, made))


def _unpacked(found: Hints) -> bool:
    """Any bytes are a hint's, so a client can compute with them."""
    for layer, packed in found.by_layer(encrypted_plan()).items():
        key = served().own.layers[layer].encoded.key
        high = Hint.unpack(key.precision, packed).high
        _must(high.shape == (key.tiling.hints, key.precision.modulus.degree), "no hint")
        _must(int(high.max()).bit_length() <= key.precision.hint_bits, "a hint out of its ring")
    return True


def _store_of(**contents: bytes) -> Store:
    """A store with a client's batch in it, some of its files written by somebody else."""
    where = place("store")
    if not where.exists():
        Store(where).put(batch(), "owner", 0, b"a half")
    (kept,) = where.glob("*-*")
    for name, content in contents.items():
        path = where / name if name == "key" else kept / f"{name}".replace("_", ".")
        path.write_bytes(content)
        path.chmod(0o600)
    return Store(where)


def _forgotten() -> None:
    """The next store is made anew."""
    where = place("store")
    for path in sorted(where.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if where.exists():
        where.rmdir()


def _stored(data: bytes) -> bool:
    """Sealed bytes; both parties' halves once they are opened; files of a store; who comes to spend."""
    control = _Bytes(data)
    which, body = control.number() % 7, control.rest
    if which == 0:
        return unseal(KEY, ABOUT, body) is not None
    if which in (1, 2):
        from_bytes(body, encrypted_plan(), which - 1)
        return True
    if which == 6:
        return _spent(body)
    try:
        store = _store_of(**{("key", "head", "00_half")[which - 3]: body})
        found = store.batches("owner")
        return any(store.claim(each, 0) is not None for each in found)
    finally:
        _forgotten()


def _spent(body: bytes) -> bool:
    """A client that offers to spend what it has, in frames of 40 bytes, which all of them have."""
    sizes = [40] * (len(body) // 40)
    with _stream(_cut(body, sizes)) as sock:
        wire = TcpWire(sock, _DEADLINE_S)
        try:
            notes: list[str] = []
            about = encrypted_plan(), served().identity, _store_of(), 8, notes.append
            found = spend_at_server(wire, *about)
            _must(not found, "who holds no key has spent a preparation")
            _must(all(note.isprintable() for note in notes), "a note that steers a terminal")
            return True
        finally:
            wire.abort()


def _onnx(data: bytes) -> bool:
    """An ONNX model."""
    path = place("model.onnx")
    path.write_bytes(data)
    net = read_onnx(path)
    _must(all(np.isfinite(each).all() for pair in net.weights for each in pair), "no numbers")
    return True


_UNFIT = PqjaxError, OSError, ValueError, KeyError, TypeError  # what does not fit a dataclass
TARGETS = {
    target.name: target
    for target in (
        Target("frames", _frames, (WireError,)),
        Target("greeting", _greeting, (WireError,)),
        Target("words", _words, (AddressError, InputError)),
        Target("plan", _plan, ()),
        Target("model", _model, ()),
        Target("hints", _hints, (CheckpointError,)),
        Target("stored", _stored, (CheckpointError, StoreError, WireError), _UNFIT),
        Target("onnx", _onnx, (CheckpointError, GraphError), None),
    )
}
