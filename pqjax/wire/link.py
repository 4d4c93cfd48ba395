"""A network between the two parties: a rate, a round trip, the seconds a schedule takes."""

import dataclasses
import math
import re

from pqjax.errors import InputError, shown

_UNITS = {"kbps": 1e-3, "mbps": 1.0, "gbps": 1e3}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*(kbps|mbps|gbps)\s*,\s*(\d+(?:\.\d+)?)\s*ms", re.IGNORECASE)
_EXAMPLES = '"200mbps,13ms" (rate per direction, round trip), "lan", or "none"'


@dataclasses.dataclass(frozen=True)
class Link:
    """A full-duplex link.

    Attributes:
      mbps: rate of each direction in 10^6 bits per second, above 0.
      rtt_ms: round trip in milliseconds, at least 0; a one-way trip is half of it.
    """

    mbps: float | int
    rtt_ms: float | int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mbps) and self.mbps > 0):
            raise InputError(f"a link's rate must be above 0 Mbit/s, got {self.mbps}")
        if not (math.isfinite(self.rtt_ms) and self.rtt_ms >= 0):
            raise InputError(f"a link's round trip must be at least 0 ms, got {self.rtt_ms}")

    def seconds(self, bits0: int, bits1: int, flows: int) -> float:
        """Time to move `bits0` one way and `bits1` the other in `flows` one-way bursts.

        The papers' convention: total traffic over the rate of one direction, as if the directions
        took turns, plus half a round trip per flow. Messages that cross make it an upper bound.
        """
        return (bits0 + bits1) / (self.mbps * 1e6) + flows * self.rtt_ms / 2e3

    @property
    def flow_bits(self) -> int:
        """How many bits take as long as a flow."""
        return round(self.mbps * 1e6 * self.rtt_ms / 2e3)

    def __str__(self) -> str:
        return f"{self.mbps:g}mbps,{self.rtt_ms:g}ms"


LAN = Link(mbps=1000.0, rtt_ms=0.3)


def parse_link(text: str) -> Link | None:
    """Reads "200mbps,13ms", "lan" (1000mbps,0.3ms) or "none" (no emulation: None)."""
    plain = text.strip().lower()
    if plain == "none":
        return None
    if plain == "lan":
        return LAN
    match = _TEXT.fullmatch(plain)
    if match is None:
        raise InputError(f"cannot read the link {shown(text)}; expected {_EXAMPLES}")
    rate, unit, rtt = match.groups()
    return Link(mbps=float(rate) * _UNITS[unit], rtt_ms=float(rtt))
