import hashlib
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peers import accept_wire

from pqjax.errors import HandshakeError, InputError, PeerGone, Refused, WireError
from pqjax.wire.address import parse_address
from pqjax.wire.channel import local_pair
from pqjax.wire.handshake import (
    DOCUMENT_LIMIT_BYTES,
    PROTOCOL_VERSION,
    Objection,
    greet_client,
    greet_server,
    name_digest,
    only,
    plan_digest,
)
from pqjax.wire.listener import Listener
from pqjax.wire.tcp import dial

DOCUMENT = b'{"layers": ["conv1", "relu1"]}'
SERVER, CLIENT = 0, 1


def both(server, client, pair=None):
    """Runs both sides; returns what each gave back, or the error it raised."""
    pair = pair or local_pair(deadline_s=30.0)

    def run(side, wire):
        try:
            return side(wire)
        except WireError as error:
            return error
        finally:
            wire.close()

    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(run, side, wire) for side, wire in zip((server, client), pair, strict=True)
        ]
        return tuple(future.result() for future in futures)


def hello(version=PROTOCOL_VERSION, role=CLIENT, digest=bytes(32), magic=b"pqjax\r\n\0"):
    return struct.pack("<8sHBx32s4x", magic, version, role, digest)


def by_hand(*frames, expect=(48, 8)):
    """A peer that sends these frames whatever it hears, then reads what a greeting sends."""

    def side(wire):
        for frame in frames:
            wire.send(frame, 0, "by hand")
        for nbytes in expect:
            wire.recv(nbytes, "by hand")

    return side


def test_a_client_that_knows_the_plan_is_greeted(join):
    pair = join()

    result = both(
        lambda wire: greet_client(wire, only(DOCUMENT)),
        lambda wire: greet_server(wire, plan_digest(DOCUMENT)),
        pair,
    )

    assert result == ((DOCUMENT, False), None)
    assert pair[0].sent_bytes == pair[1].sent_bytes == 48 + 8 + 2 * 16


@pytest.mark.parametrize("document", [DOCUMENT, b"", b"x" * 3_000_000], ids=len)
def test_a_client_that_asks_gets_the_plan(join, document):
    result = both(
        lambda wire: greet_client(wire, only(document)),
        lambda wire: greet_server(wire, None),
        join(),
    )

    assert result == ((document, False), document)


def test_different_plans_are_the_same_error_on_both_sides(join):
    theirs = plan_digest(b"another plan")

    at_server, at_client = both(
        lambda wire: greet_client(wire, only(DOCUMENT)),
        lambda wire: greet_server(wire, theirs),
        join(),
    )

    assert type(at_server) is type(at_client) is HandshakeError
    assert str(at_server) == str(at_client)
    assert plan_digest(DOCUMENT).hex() in str(at_server) and theirs.hex() in str(at_server)


def test_equal_roles_are_an_error():
    server, _ = both(
        lambda wire: greet_client(wire, only(DOCUMENT)), by_hand(hello(role=SERVER), bytes(8))
    )
    clients = both(lambda wire: greet_server(wire, None), lambda wire: greet_server(wire, None))

    assert str(server) == "handshake: both parties are servers"
    assert [str(error) for error in clients] == ["handshake: both parties are clients"] * 2
    assert all(type(error) is HandshakeError for error in (server, *clients))


def shelf(**documents):
    """A server's models by name; the first is for who names none."""
    named = {name_digest(name): document for name, document in documents.items()}

    def find(asked):
        if asked.named:
            return named.get(asked.digest)
        every = documents.values()
        return next((d for d in every if asked.any or plan_digest(d) == asked.digest), None)

    return find


def test_a_model_is_asked_for_by_name_by_its_plan_or_not_at_all(join):
    find = shelf(cats=b"cats", dogs=b"dogs")

    def asked(*options, **named):
        return both(
            lambda wire: greet_client(wire, find),
            lambda wire: greet_server(wire, *options, **named),
            join(),
        )

    assert asked(None) == ((b"cats", False), b"cats")
    assert asked(None, name="dogs") == ((b"dogs", False), b"dogs")
    assert asked(plan_digest(b"dogs")) == ((b"dogs", False), None)
    assert asked(plan_digest(b"dogs"), name="dogs") == ((b"dogs", False), b"dogs")
    for error in asked(plan_digest(b"dogs"), name="cats"):
        assert type(error) is HandshakeError and plan_digest(b"cats").hex() in str(error)
    at_server, at_client = asked(None, name="birds")
    assert isinstance(at_client, Refused) and type(at_server) is Refused
    assert at_client.reason == "unknown model" and "no model of that name" in str(at_client)
    assert "'birds'" in str(at_client)  # the client knows what it asked for, the server does not
    assert "birds" not in str(at_server)


@pytest.mark.parametrize("objection", Objection)
def test_a_server_says_why_it_does_not_take_a_client(join, objection):
    told = []

    def admit(document, asked):
        told.append((document, asked.ticket, asked.background))
        return objection

    at_server, at_client = both(
        lambda wire: greet_client(wire, only(DOCUMENT), admit),
        lambda wire: greet_server(wire, None, ticket=b"t" * 32, background=True),
        join(),
    )

    assert told == [(DOCUMENT, b"t" * 32, True)]
    assert isinstance(at_client, Refused) and type(at_server) is Refused
    assert str(at_server) == str(at_client)
    assert at_client.reason == objection.name.lower().replace("_", " ")


def test_a_ticket_of_another_size_is_an_input_error():
    with pytest.raises(InputError, match="a ticket has 32 bytes, got 3"):
        greet_server(local_pair()[0], None, ticket=b"abc")


def test_another_version_is_the_same_error_on_both_sides(monkeypatch):
    other = PROTOCOL_VERSION + 1
    verdict = struct.pack("<B7x", 1)

    at_server, _ = both(
        lambda wire: greet_client(wire, only(DOCUMENT)), by_hand(hello(version=other), verdict)
    )
    monkeypatch.setattr("pqjax.wire.handshake.PROTOCOL_VERSION", other)  # the newer side
    _, at_client = both(
        by_hand(hello(version=other - 1, role=SERVER), verdict),
        lambda wire: greet_server(wire, None),
    )

    assert type(at_server) is type(at_client) is HandshakeError
    assert str(at_server) == str(at_client)
    assert f"version {other - 1}, the client {other}" in str(at_server)


@pytest.mark.parametrize("digest", [None, plan_digest(DOCUMENT)], ids=["any", "pinned"])
def test_a_busy_server_says_so_and_names_its_true_plan(join, digest):
    at_server, at_client = both(
        lambda wire: greet_client(wire, only(DOCUMENT), lambda *_: Objection.BUSY),
        lambda wire: greet_server(wire, digest),
        join(),
    )

    assert (
        isinstance(at_client, Refused) and type(at_server) is Refused and at_client.reason == "busy"
    )
    assert str(at_server) == str(at_client) and "busy" in str(at_client)


def test_room_is_asked_for_only_when_the_hello_is_fine():
    asked = []

    def server(wire):
        greet_client(wire, only(DOCUMENT), lambda *_: asked.append(1))

    both(server, lambda wire: greet_server(wire, plan_digest(b"another plan")))
    both(server, by_hand(hello(version=PROTOCOL_VERSION + 1), bytes(8)))
    both(server, by_hand(hello(role=SERVER), bytes(8)))
    both(server, lambda wire: wire.abort())
    assert asked == []

    both(server, lambda wire: greet_server(wire, None))
    assert asked == [1]


@pytest.mark.parametrize("digest", [bytes(32), b"x" * 32], ids=["zero", "other"])
def test_a_pinned_plan_is_enforced_whatever_digest_the_server_sends(digest):
    _, at_client = both(
        by_hand(hello(role=SERVER, digest=digest), bytes(8)),  # its verdict: fine
        lambda wire: greet_server(wire, plan_digest(DOCUMENT)),
    )

    assert type(at_client) is HandshakeError
    assert digest.hex() in str(at_client) and plan_digest(DOCUMENT).hex() in str(at_client)


def test_a_verdict_of_the_future_is_an_error():
    at_server, _ = both(
        lambda wire: greet_client(wire, only(DOCUMENT)), by_hand(hello(), struct.pack("<B7x", 77))
    )

    assert type(at_server) is HandshakeError and "unknown reason (77)" in str(at_server)


def test_another_document_than_promised_is_refused():
    promised = hashlib.sha256(DOCUMENT).digest()

    _, at_client = both(
        by_hand(hello(role=SERVER, digest=promised), bytes(8), struct.pack("<Q", 3), b"abc"),
        lambda wire: greet_server(wire, None),
    )

    assert type(at_client) is HandshakeError and promised.hex() in str(at_client)


def test_an_oversized_document_is_refused_before_it_is_read():
    _, at_client = both(
        by_hand(hello(role=SERVER), bytes(8), struct.pack("<Q", DOCUMENT_LIMIT_BYTES + 1)),
        lambda wire: greet_server(wire, None),
    )

    assert type(at_client) is HandshakeError and f"{DOCUMENT_LIMIT_BYTES + 1} bytes" in str(
        at_client
    )
    find_much = only(bytes(DOCUMENT_LIMIT_BYTES + 1))
    with pytest.raises(InputError, match=str(DOCUMENT_LIMIT_BYTES)):
        both(lambda wire: greet_client(wire, find_much), by_hand(hello(), expect=()))


@pytest.mark.parametrize("digest", [b"", bytes(32), b"x" * 31])
def test_a_malformed_digest_is_an_input_error(digest):
    with pytest.raises(InputError, match="32 bytes"):
        greet_server(local_pair()[0], digest)


def test_a_name_that_is_no_text_is_an_input_error():
    with pytest.raises(InputError, match="name is text"):
        greet_server(local_pair()[0], None, name="cats\udcff")


def test_a_frame_without_our_magic_is_no_pqjax_peer():
    at_server, _ = both(
        lambda wire: greet_client(wire, only(DOCUMENT)), by_hand(hello(magic=b"whatever"), bytes(8))
    )

    assert type(at_server) is HandshakeError and "not a pqjax peer" in str(at_server)


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=1, max_size=200))
@example(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
@example(bytes(200))
@example(struct.pack("<IIQ", 0, 0, 48) + bytes(48))
def test_a_server_survives_any_bytes(noise):
    with Listener("127.0.0.1:0") as listener:
        with socket.create_connection(parse_address(listener.address)) as raw:
            raw.sendall(noise)
            raw.shutdown(socket.SHUT_WR)
            with accept_wire(listener) as wire:
                # All zero so far is how we begin too: then the peer has merely left too early.
                short = len(noise) < 16 and not any(noise[:4])
                with pytest.raises(PeerGone if short else HandshakeError):
                    greet_client(wire, only(DOCUMENT))


def test_a_client_that_dials_a_web_server_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def serve():
            raw, _ = server.accept()
            with raw:
                raw.recv(64)
                raw.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        served = pool.submit(serve)
        with dial(f"127.0.0.1:{server.getsockname()[1]}") as wire:
            with pytest.raises(HandshakeError, match="not a pqjax peer.*HTTP/1.1"):
                greet_server(wire, None)
        served.result()
