"""How a client comes to a session with a fleet: it asks the directory, then dials a replica itself."""

import dataclasses
import hashlib
import http.client
import json
import re
import ssl
import time
from typing import Annotated, Any
from urllib.parse import urlsplit

from pqjax.engine.catalogue import Title
from pqjax.engine.client import connect
from pqjax.engine.session import Session
from pqjax.errors import (
    AddressError,
    DeadlineExceeded,
    HandshakeError,
    InputError,
    PeerGone,
    Refused,
    shown,
)
from pqjax.graph.strict_json import parse
from pqjax.schema import Length, Printable, read
from pqjax.wire.address import format_address, resolve_guarded
from pqjax.wire.tls import Tls

FLEET = "fleet+"  # before a directory's URL, where an address of a server may stand, too
MOST_TRIES = 8
_MOST_BYTES = 1 << 20
_ANSWER_S = 15.0
_MOST_WAIT_S = 60
_PAUSE_S = 0.25  # after the first try; then twice as long each time
_AGAIN = ("busy", "no memory", "no ticket")  # of a replica: another one may do
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Seat:
    """What a directory gives.

    Attributes:
      address: of a replica.
      ticket: to be shown there, once, soon; hexadecimal.
      model: which the client asked for, or None.
    """

    address: Annotated[str, Length(3, 300), Printable()]
    ticket: Annotated[str, Length(64, 64), Printable()] = dataclasses.field(repr=False)
    model: str | None


def fleet_connect(
    url: str,
    *,
    model: str | None = None,
    tls: Tls | None = None,
    insecure_plaintext: bool = False,
    patience_s: float = 60.0,
    tries: int = MOST_TRIES,
    **options: Any,
) -> Session:
    """Connects to a fleet: as `connect` does to one server.

    If the replica is gone or full when this client comes, or the directory is being replaced, it is
    asked again. A session that breaks later raises its own error, and whoever wants another asks for
    one.

    Args:
      url: of the directory, "http://host:port", or "https://..." with TLS.
      model: NAME or NAME@VERSION; without one the fleet's first.
      tls: this side's certificates; the replicas' have to name the directory's host.
      insecure_plaintext: as of `connect`.
      patience_s: how long to wait for a seat, over all tries; a minute at most at a time.
      tries: how often to ask at most.
      options: as of `connect`.

    Raises:
      AddressError: the URL cannot be read, or is off loopback without TLS.
      PeerGone: no directory is there, or replicas are gone when they are dialled.
      Refused: the fleet has no such model, or no room.
      HandshakeError: what is there is no directory of a fleet.
    """
    until, host = time.monotonic() + patience_s, directory_place(url)[1]
    options = {"name": host} | options
    for tried in range(tries):
        seat = None
        try:
            seat = ask_for_seat(
                url, model, tls=tls, insecure_plaintext=insecure_plaintext,
                wait_s=until - time.monotonic(),
            )  # fmt: skip
            return connect(
                seat.address, model=model, ticket=bytes.fromhex(seat.ticket),
                tls=tls, insecure_plaintext=insecure_plaintext, **options,
            )  # fmt: skip
        except (PeerGone, DeadlineExceeded, Refused) as error:
            final = isinstance(error, Refused) and error.reason not in _AGAIN
            nobody = isinstance(error, PeerGone) and seat is None and not tried
            pause = _PAUSE_S * 2**tried
            if final or nobody or tried == tries - 1 or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
    raise InputError(f"at least 1 try expected, got {tries}")


def ask_for_seat(
    url: str,
    model: str | None = None,
    *,
    tls: Tls | None = None,
    insecure_plaintext: bool = False,
    wait_s: float = 0.0,
) -> Seat:
    """Asks a directory for a replica and a ticket.

    Raises:
      Refused: it has no such model, or no room within so many seconds.
      AddressError, PeerGone, HandshakeError: as of `fleet_connect`.
    """
    asked: dict[str, str | int] = {"wait_s": max(0, min(int(wait_s), _MOST_WAIT_S))}
    if model is not None:
        asked["model"] = model
    if tls is not None:
        asked["owner"] = f"certificate {_certificate_digest(tls)}"
    status, reply = _request("POST", url, "/session", asked, tls, insecure_plaintext)
    if status != 200:
        raise Refused(f"{url}: {_text(reply, 'error')}", _text(reply, "refused"))
    try:
        seat = read(Seat, reply)
        bytes.fromhex(seat.ticket)
    except ValueError as error:
        raise HandshakeError(f"{url} is no directory of a fleet: {error}") from error
    return seat


def fleet_state(url: str, tls: Tls | None = None, insecure_plaintext: bool = False) -> dict:
    """How a fleet is, as its directory tells everybody.

    Raises:
      AddressError, PeerGone, HandshakeError: as of `fleet_connect`.
    """
    status, reply = _request("GET", url, "/state", None, tls, insecure_plaintext)
    if status != 200 or not isinstance(reply.get("replicas"), list):
        raise HandshakeError(f"{url} tells no state of a fleet (status {status})")
    return reply


def fleet_target(text: str) -> tuple[str, str | None]:
    """Of fleet+http://HOST:PORT or fleet+http://HOST:PORT/MODEL: URL, and the model's title.

    Raises:
      InputError: a title that is none.
    """
    scheme, _, rest = text.removeprefix(FLEET).partition("://")
    place, _, title = rest.partition("/")
    return f"{scheme}://{place}", str(Title.parse(title)) if title else None


def directory_place(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a directory's URL.

    Raises:
      AddressError: it is none.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("http", "https") or parts.path.strip("/"):
        raise AddressError(
            f"cannot read {shown(url)}: the URL of a fleet's directory expected, http://HOST:PORT or "
            "https://HOST:PORT"
        )
    return parts.scheme, host, port


def _request(
    method: str,
    url: str,
    path: str,
    body: dict[str, str | int] | None,
    tls: Tls | None,
    insecure_plaintext: bool,
) -> tuple[int, dict]:
    """One request; its status and what came, an object of JSON."""
    scheme, host, port = directory_place(url)
    secured = scheme == "https"
    resolve_guarded(format_address(host, port), guarded=secured or insecure_plaintext)
    timeout = _ANSWER_S + int((body or {}).get("wait_s", 0))
    if secured:
        if tls is None:
            raise InputError(f"{url} needs certificates: --tls, or tls=")
        made = http.client.HTTPSConnection(
            host, port, timeout=timeout, context=tls.context(server=False)
        )
    else:
        made = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        sent = None if body is None else json.dumps(body).encode()
        made.request(method, path, sent, {"Content-Type": "application/json"})
        reply = made.getresponse()
        status, came = reply.status, reply.read(_MOST_BYTES)
    except TimeoutError as error:
        raise DeadlineExceeded(f"{url}: no answer within {timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise PeerGone(f"no directory of a fleet answers at {url}: {error}") from error
    finally:
        made.close()
    try:
        tree = parse(came, _MOST_BYTES)
        if not isinstance(tree, dict):
            raise InputError("an object expected")
    except InputError as error:
        raise HandshakeError(f"{url} is no directory of a fleet: {error}") from error
    return status, tree


def _text(reply: dict, name: str) -> str:
    """What a stranger says, as a message may repeat it."""
    found = str(reply.get(name, "no reason given"))[:300]
    return "".join(c for c in found if c.isprintable())


def _certificate_digest(tls: Tls) -> str:
    """SHA-256 of this side's certificate, as TLS shows it."""
    tls.context(server=False)  # says what is wrong with the files
    with open(tls.certificate, encoding="utf-8", errors="replace") as file:
        found = _PEM.search(file.read())
    assert found  # or there would be no context
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found.group())).hexdigest()
