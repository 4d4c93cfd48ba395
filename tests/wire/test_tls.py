import dataclasses
import socket
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pqjax.errors import HandshakeError, InputError, PeerGone, WireError
from pqjax.wire import Listener, Tls, dial, make_certificates, parse_address

pytestmark = pytest.mark.usefixtures("no_thread_left")


def outcomes(server, client, **options):
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

    with Listener("127.0.0.1:0", tls=server, **options) as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(run, lambda: dial(listener.address, tls=client, **options))
        return run(lambda: listener.accept(30.0)), dialled.result()


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
        accepted = pool.submit(listener.accept, 30.0)
        with socket.create_connection(parse_address(listener.address)) as raw:
            raw.settimeout(30.0)
            try:
                context.wrap_socket(raw, server_hostname="localhost").close()
            except OSError:
                pass
        with pytest.raises(HandshakeError):
            accepted.result()


def test_a_silent_peer_does_not_hold_the_handshake(certificates):
    with Listener("127.0.0.1:0", tls=certificates[0], deadline_s=0.3) as listener:
        with socket.create_connection(parse_address(listener.address)):
            with pytest.raises(HandshakeError, match="no answer within 0.3 s"):
                listener.accept(30.0)
        # The next client is served.
        got = []
        server = threading.Thread(target=lambda: got.append(listener.accept(30.0)))
        server.start()
        dial(listener.address, tls=certificates[1]).close()
        server.join()
        with pytest.raises(PeerGone):
            got[0].recv(1, "x")
        got[0].close()


def test_missing_files_are_an_input_error(tmp_path):
    tls = Tls(tmp_path / "a.pem", tmp_path / "a.key", tmp_path / "ca.pem")

    with Listener("127.0.0.1:0") as listener, pytest.raises(InputError, match="pqjax certs"):
        dial(listener.address, tls=tls)


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
