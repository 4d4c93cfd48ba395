"""How bytes travel between the two parties, and what a schedule of messages costs.

`pqjax.wire.relay` emulates a network; it is also a program, so it is imported by its own name.
"""

from pqjax.wire.address import parse_address
from pqjax.wire.channel import (
    DEADLINE_S,
    HEADER_BYTES,
    SLOWEST_BYTES_PER_S,
    WINDOW_BYTES,
    local_pair,
)
from pqjax.wire.cost import NOTHING, Cost, crossing, draw, message, total
from pqjax.wire.handshake import (
    PROTOCOL_VERSION,
    greet_client,
    greet_server,
    plan_digest,
)
from pqjax.wire.interface import Payload, Ticket, Wire
from pqjax.wire.link import LAN, Link, parse_link
from pqjax.wire.listener import Listener
from pqjax.wire.lobby import GREETING_S, MOST_WAITING, Guest, Lobby
from pqjax.wire.tcp import TcpWire, dial
from pqjax.wire.tls import Tls, make_certificates

__all__ = [
    "DEADLINE_S",
    "GREETING_S",
    "HEADER_BYTES",
    "LAN",
    "MOST_WAITING",
    "NOTHING",
    "PROTOCOL_VERSION",
    "WINDOW_BYTES",
    "SLOWEST_BYTES_PER_S",
    "Cost",
    "Guest",
    "Link",
    "Listener",
    "Lobby",
    "Payload",
    "TcpWire",
    "Ticket",
    "Tls",
    "Wire",
    "crossing",
    "dial",
    "draw",
    "greet_client",
    "greet_server",
    "local_pair",
    "make_certificates",
    "message",
    "parse_address",
    "parse_link",
    "plan_digest",
    "total",
]
