import dataclasses
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from peers import accept_wire, reset, silent, trickling

from pqjax.errors import HandshakeError, InputError, WireError
from pqjax.wire.address import parse_address
from pqjax.wire.listener import Listener
from pqjax.wire.tcp import dial
from pqjax.wire.tls import Tls, make_certificates

pytestmark = pytest.mark.usefixtures("no_thread_left")


def outcomes(server, client):
    """What accept plus a first exchange, and dial plus the same, end in (None: success)."""

    def run(connect):
        try:
            with connect() as wire:
                ticket = wire.expect(5, "hello")
                wire.send(b"hello", 0, "hello")
                ticket.wait()
        except WireError as error:
            return error
        return None

    with Listener("127.0.0.1:0", tls=server) as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(run, lambda: dial(listener.address, tls=client))
        return run(lambda: accept_wire(listener)), dialled.result()


def test_two_sides_of_one_authority_talk(certificates):
    assert outcomes(*certificates) == (None, None)


def test_another_authority_is_refused_by_both(certificates, tmp_path):
    make_certificates(tmp_path / "other")
    other = Tls(*(tmp_path / "other" / name for name in ("client.pem", "client.key", "ca.pem")))

    at_server, at_client = outcomes(certificates[0], other)

    assert isinstance(at_server, HandshakeError) and isinstance(at_client, HandshakeError)
    assert "certificate is not valid here" in str(at_client)


def test_a_client_certificate_of_another_authority_is_refused_by_both(certificates, tmp_path):
    make_certificates(tmp_path / "other")
    forged = dataclasses.replace(
        certificates[1],
        certificate=tmp_path / "other" / "client.pem",
        key=tmp_path / "other" / "client.key",
    )

    at_server, at_client = outcomes(certificates[0], forged)

    assert isinstance(at_server, HandshakeError) and isinstance(at_client, HandshakeError)
    assert "certificate is not valid here" in str(at_server)
    assert "refused this side's certificate" in str(at_client)


def test_a_client_cannot_stand_for_the_server(certificates):
    _, client = certificates

    at_server, at_client = outcomes(client, client)

    assert isinstance(at_server, HandshakeError) and isinstance(at_client, HandshakeError)


def test_the_certificate_must_name_the_host(certificates, tmp_path):
    make_certificates(tmp_path, names=["server.example"])
    server, client = (
        Tls(tmp_path / f"{role}.pem", tmp_path / f"{role}.key", tmp_path / "ca.pem")
        for role in ("server", "client")
    )

    at_server, at_client = outcomes(server, client)

    assert isinstance(at_server, HandshakeError) and isinstance(at_client, HandshakeError)
    assert "must name the host" in str(at_client)


def test_a_plaintext_client_and_a_tls_server_both_say_so(certificates):
    at_server, at_client = outcomes(certificates[0], None)

    assert isinstance(at_server, HandshakeError) and isinstance(at_client, HandshakeError)
    assert "does not speak TLS" in str(at_server)
    assert "seems to speak TLS" in str(at_client)


def test_a_tls_client_and_a_plaintext_server_both_say_so(certificates):
    at_server, at_client = outcomes(None, certificates[1])

    assert isinstance(at_server, HandshakeError) and isinstance(at_client, HandshakeError)
    assert "seems to speak TLS" in str(at_server)
    assert "TLS" in str(at_client)


@pytest.mark.parametrize("flaw", ["no certificate", "TLS 1.2"])
def test_less_than_mutual_tls_1_3_is_refused(certificates, flaw):
    server, client = certificates
    context = ssl.create_default_context(cafile=client.authority)
    if flaw == "TLS 1.2":
        context.load_cert_chain(client.certificate, client.key)
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    with Listener("127.0.0.1:0", tls=server) as listener, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accept_wire, listener)
        with socket.create_connection(parse_address(listener.address)) as raw:
            raw.settimeout(30.0)
            try:
                context.wrap_socket(raw, server_hostname="localhost").close()
            except OSError:
                pass
        with pytest.raises(HandshakeError):
            accepted.result()


def test_a_peer_that_trickles_does_not_hold_the_handshake_of_either_side(certificates):
    server, client = certificates
    hello = b"\x16\x03\x01\x02\x00"  # a record of 512 bytes begins; the rest never comes
    with Listener("127.0.0.1:0", tls=server) as listener, silent(listener.address) as raw:
        raw.sendall(hello)
        with trickling(raw, b"\1", 0.05), pytest.raises(HandshakeError, match="not done in time"):
            accept_wire(listener, 0.4)

    with Listener("127.0.0.1:0") as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(dial, listener.address, tls=client, deadline_s=0.4)
        with listener.accept(30.0)[0] as raw:
            raw.sendall(hello)
            with trickling(raw, b"\1", 0.05):
                with pytest.raises(HandshakeError, match="not done in time"):
                    dialled.result(30)


def test_a_peer_that_resets_before_the_handshake_is_a_handshake_error(certificates):
    with Listener("127.0.0.1:0", tls=certificates[0]) as listener:
        reset(listener.address)
        with pytest.raises(HandshakeError):
            accept_wire(listener)


def locked(folder, tls):
    """The same files, with a key that needs a password."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    (folder / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return dataclasses.replace(tls, key=folder / "locked.key")


def test_files_that_cannot_be_used_are_an_input_error_before_anything_is_bound_or_dialled(
    certificates, tmp_path, monkeypatch
):
    server, _ = certificates
    (tmp_path / "garbage").write_bytes(b"no PEM")
    flawed = [
        dataclasses.replace(server, **{name: path})
        for name in ("certificate", "key", "authority")
        for path in (tmp_path / "missing", tmp_path / "garbage", tmp_path)
    ]
    flawed += [locked(tmp_path, server), dataclasses.replace(server, certificate=server.authority)]
    monkeypatch.setattr(socket.socket, "bind", lambda *_: pytest.fail("bound"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("dialled"))

    for tls in flawed:
        for use in (Listener, dial):
            with pytest.raises(InputError, match="TLS files? .*pqjax certs"):
                use("127.0.0.1:0", tls=tls)
    with pytest.raises(InputError, match="missing: No such file"):
        Listener("127.0.0.1:0", tls=flawed[0])


def test_certificates_have_private_keys_and_are_never_overwritten(tmp_path):
    pytest.importorskip("cryptography")
    folder = tmp_path / "new" / "folder"

    make_certificates(folder)

    files = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert sorted(files) == ["ca.pem", "client.key", "client.pem", "server.key", "server.pem"]
    assert files["server.key"] == files["client.key"] == 0o600
    before = (folder / "server.pem").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        make_certificates(folder)
    assert (folder / "server.pem").read_bytes() == before


def test_no_file_is_written_if_one_exists(tmp_path):
    pytest.importorskip("cryptography")
    (tmp_path / "client.key").write_text("mine")

    with pytest.raises(InputError, match="client.key exists already"):
        make_certificates(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["client.key"]


def test_without_cryptography_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(InputError, match=r"pip install pqjax\[tls\]"):
        make_certificates(tmp_path)


@pytest.mark.parametrize("names", [[], ["\u00fcber.example"]])
def test_bad_names_are_refused_before_anything_is_written(tmp_path, names):
    pytest.importorskip("cryptography")

    with pytest.raises(InputError):
        make_certificates(tmp_path / "x", names)

    assert not (tmp_path / "x").exists()
