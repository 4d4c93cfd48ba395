"""Mutual TLS 1.3 between the two parties, under one private authority.

Both sides show a certificate and check the other's against the authority; the client also checks
that the server's certificate names the host it dialled.
"""

import contextlib
import dataclasses
import datetime
import ipaddress
import os
import pathlib
import re
import socket
import ssl
import time
from collections.abc import Sequence

from pqjax.errors import HandshakeError, InputError, shown
from pqjax.wire.readiness import drain, retry

_VALID_DAYS = 825
_HOST = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?")
_LINGER_S = 1.0
_ALERT = bytes([0x15, 3, 3, 0, 2, 2, 70])  # fatal: protocol_version
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")


@dataclasses.dataclass(frozen=True)
class Tls:
    """The three PEM files one side needs: its certificate, its private key, who signed both sides'."""

    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]
    authority: str | os.PathLike[str]

    def context(self, *, server: bool) -> ssl.SSLContext:
        """An `ssl` context that accepts nothing but TLS 1.3 with a certificate on both sides.

        Raises:
          InputError: a file is missing, unreadable, locked by a password or no PEM.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.verify_mode = ssl.CERT_REQUIRED
        if server:
            made.num_tickets = 0  # sessions are never resumed
        for path in (self.certificate, self.key, self.authority):
            try:
                with open(path, "rb"):  # OpenSSL does not say which of them it could not read
                    pass
            except OSError as error:
                raise InputError(
                    f"cannot read the TLS file {os.fspath(path)}: {error.strerror or error}; make "
                    "certificates with pqjax certs"
                ) from error
        try:
            # Some password, or OpenSSL asks for one on the terminal and waits.
            made.load_cert_chain(self.certificate, self.key, password="")
            made.load_verify_locations(self.authority)
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot use the TLS files {self.certificate}, {self.key}, {self.authority}: "
                f"{error}; expected PEM files without a password, make them with pqjax certs"
            ) from error
        return made


def begin_tls(
    sock: socket.socket, context: ssl.SSLContext, where: str, host: str | None = None
) -> ssl.SSLSocket:
    """Puts TLS on a connected socket; nothing is sent or read before `shake_hands`.

    The socket is non-blocking from here on, and gone if this succeeds, for the returned one owns it.
    `where` names the connection in errors; `host` is whom the dialling side dialled.
    """
    try:
        sock.setblocking(False)
        sock.getpeername()  # raises if it was reset already: wrapping then would lose the socket
        return context.wrap_socket(
            sock, server_side=host is None, server_hostname=host, do_handshake_on_connect=False
        )
    except (OSError, ValueError) as error:
        raise HandshakeError(f"{where} failed: {_reason(error)}") from error


def shake_hands(sock: ssl.SSLSocket, where: str, until: float) -> None:
    """Runs the handshake, which has to be whole at the moment `until`. Does not close `sock`."""
    try:
        retry(sock.do_handshake, sock, until)
    except (OSError, ValueError) as error:
        if sock.server_side and getattr(error, "reason", "") in _NOT_TLS:
            _part(sock, _ALERT)
        raise HandshakeError(f"{where} failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the other party's certificate is not valid here ({error.verify_message}); "
            "both sides need certificates of one authority, and the server's must name the host"
        )
    if isinstance(error, TimeoutError):
        return "the handshake was not done in time; does the other party use TLS?"
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return "the other party closed the connection; does it use TLS?"
    if isinstance(error, ssl.SSLError):
        code = error.reason or str(error)
        if code in _NOT_TLS:
            return f"the other party does not speak TLS ({code})"
        if code == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "the other party showed no certificate"
        return f"the other party and this one did not agree ({code})"
    return str(error)


def _part(sock: ssl.SSLSocket, last: bytes) -> None:
    """Says `last` below TLS, where OpenSSL says nothing: our own plaintext client understands it."""
    until = time.monotonic() + _LINGER_S
    with contextlib.suppress(OSError):
        socket.socket.send(sock, last)
        socket.socket.shutdown(sock, socket.SHUT_WR)
    drain(sock, until)


def make_certificates(
    folder: str | os.PathLike[str], names: Sequence[str] = ("localhost", "127.0.0.1")
) -> None:
    """Writes ca.pem, server.pem, server.key, client.pem and client.key into `folder`.

    The authority's own key is thrown away: these two certificates are all it ever signs. A client's
    certificate cannot stand for a server, nor the other way round. None of the five files may exist;
    `names` are host names and addresses under which clients reach the server.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as error:
        raise InputError(
            "making certificates needs the cryptography package: pip install pqjax[tls]"
        ) from error
    if not names:
        raise InputError("a server certificate needs at least one host name or address, got none")
    reached_as = x509.SubjectAlternativeName([_general_name(x509, name) for name in names])
    folder = pathlib.Path(folder)
    files = ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"]
    for name in files:
        if (folder / name).exists():
            raise InputError(f"{folder / name} exists already; choose another folder or remove it")
    folder.mkdir(parents=True, exist_ok=True)

    now = datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pqjax authority")])

    def start(subject, key):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )

    def usage(**on):
        bits = "digital_signature content_commitment key_encipherment data_encipherment "
        bits += "key_agreement key_cert_sign crl_sign encipher_only decipher_only"
        return x509.KeyUsage(**{bit: on.get(bit, False) for bit in bits.split()})

    authority = (
        start(authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    _write(folder / "ca.pem", authority.public_bytes(serialization.Encoding.PEM), 0o644)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    for role, purpose in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pqjax {role}")])
        builder = (
            start(subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer, critical=False)
        )
        if role == "server":
            builder = builder.add_extension(reached_as, critical=False)
        signed = builder.sign(authority_key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write(folder / f"{role}.key", private, 0o600)
        _write(folder / f"{role}.pem", signed.public_bytes(serialization.Encoding.PEM), 0o644)


def _general_name(x509, name: str):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _HOST.fullmatch(name):
        raise InputError(
            f"{shown(name)} is neither an address nor a host name in plain ASCII: expected what clients "
            "dial, without scheme, port or path, for example server.example or 192.0.2.7"
        )
    return x509.DNSName(name)


def _write(path: pathlib.Path, content: bytes, mode: int) -> None:
    """Creates the file, with its final mode from the start; never overwrites."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise InputError(f"{path} exists already; choose another folder or remove it") from error
    with os.fdopen(handle, "wb") as file:
        file.write(content)
