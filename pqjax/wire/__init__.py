"""How bytes travel between the two parties, and what a schedule of messages costs.

`pqjax.wire.relay` emulates a network; it is also a program, so it is imported by its own name.
"""

from pqjax.wire.address import parse_address
from pqjax.wire.channel import (
    DEADLINE_S,
    HEADER_BYTES,
    WINDOW_BYTES,
    Payload,
    Ticket,
    Wire,
    local_pair,
)
from pqjax.wire.cost import NOTHING, Cost, crossing, draw, message, total
from pqjax.wire.handshake import (
    PROTOCOL_VERSION,
    greet_client,
    greet_server,
    plan_digest,
    turn_away,
)
from pqjax.wire.link import LAN, Link, parse_link
from pqjax.wire.tcp import Listener, TcpWire, dial
from pqjax.wire.tls import Tls, make_certificates

__all__ = [
    "DEADLINE_S",
    "HEADER_BYTES",
    "LAN",
    "NOTHING",
    "PROTOCOL_VERSION",
    "WINDOW_BYTES",
    "Cost",
    "Link",
    "Listener",
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
    "turn_away",
]
