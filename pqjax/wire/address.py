"""Addresses: "host:port" text to what a socket takes, and which of them are loopback."""

import ipaddress
import socket

from pqjax.errors import AddressError, shown

PORT = 7700
_MOST_DIGITS = 9  # of a port, leading zeros included: integers of thousands are not read
_SYNTAX = f'expected "host:port", for example 127.0.0.1:{PORT} or [::1]:{PORT}'

Place = tuple[socket.AddressFamily, tuple]


def parse_address(address: str) -> tuple[str, int]:
    """Splits "host:port" or "[v6]:port"; the host comes without brackets."""
    scheme, url, rest = address.partition("://")
    if url:
        place = rest.partition("/")[0]
        meant = place if ":" in place else f"{place}:{PORT}"
        raise AddressError(
            f"{shown(address)} is a URL, but a pqjax server speaks a protocol of its own and no "
            f"{shown(scheme)}: did you mean {shown(meant)}? {_SYNTAX}"
        )
    if address.isascii() and address.lstrip(":").isdigit():
        port = address.lstrip(":")
        raise AddressError(
            f"cannot read the address {shown(address)}: it has no host, this machine would be "
            f"127.0.0.1:{shown(port)[1:-1]}; {_SYNTAX}"
        )
    if address and ":" not in address:
        meant = f"{address}:{PORT}"
        raise AddressError(
            f"cannot read the address {shown(address)}: it has no port, did you mean "
            f"{shown(meant)}? {_SYNTAX}"
        )
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"the address {shown(address)} lacks brackets: {_SYNTAX}")
    number = port.isascii() and port.isdigit() and len(port) <= _MOST_DIGITS
    # What no terminal shows no host is called; a socket would read it up to a zero byte.
    if not host or not host.isprintable() or not number or int(port) > 65535:
        raise AddressError(f"cannot read the address {shown(address)}: {_SYNTAX}")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(address: str) -> list[Place]:
    """Every socket address the text stands for, in the system's order of preference."""
    host, port = parse_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"cannot resolve the host of {shown(address)}: {error}") from error
    return [(family, place) for family, _, _, _, place in found]


def is_loopback(places: list[Place]) -> bool:
    """True if none of the places is reachable from another machine."""
    hosts = [str(place[0]).split("%")[0] for _, place in places]
    return all(ipaddress.ip_address(host).is_loopback for host in hosts)


def resolve_guarded(address: str, *, guarded: bool) -> list[Place]:
    """`resolve`, but refuses any address off loopback unless the traffic is `guarded`."""
    places = resolve(address)
    if not guarded and not is_loopback(places):
        raise AddressError(
            f"{shown(address)[1:-1]} is not a loopback address: give certificates for mutual TLS "
            "(make them with pqjax certs), or pass --insecure-plaintext to send everything unencrypted"
        )
    return places
