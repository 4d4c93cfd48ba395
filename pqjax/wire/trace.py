"""What a session did: bits, bytes, messages, clocks and seconds, per phase and layer."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

PHASES = ("setup", "offline", "online")
FRAME_BYTES = 16


@dataclasses.dataclass
class Entry:
    """One layer in one phase, as one party saw it.

    Attributes:
      sent_bits, received_bits: payload, exact.
      sent_bytes, received_bytes: as serialized, padding and frame headers included.
      messages: messages sent.
      clock_after: this party's logical clock at the end of the layer (see `pqjax.wire.cost`).
      begin, seconds: wall time since the session began, and spent in the layer.
      wait_seconds, send_seconds: of it, waiting for messages and for room to send.
    """

    phase: str
    layer: str
    sent_bits: int = 0
    received_bits: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    messages: int = 0
    clock_after: int = 0
    begin: float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    send_seconds: float = 0.0


class Trace:
    """All entries of one session, in the order in which the layers ran."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._origin = time.perf_counter()
        self._open: list[Entry] = []

    @contextlib.contextmanager
    def section(self, phase: str, layer: str) -> Iterator[Entry]:
        """Everything sent and received inside belongs to this phase and layer."""
        entry = Entry(phase, layer, begin=time.perf_counter() - self._origin)
        self.entries.append(entry)
        self._open.append(entry)
        try:
            yield entry
        finally:
            self._open.pop()
            entry.seconds = time.perf_counter() - self._origin - entry.begin

    def _current(self) -> Entry:
        if not self._open:
            entry = Entry("setup", "session", begin=time.perf_counter() - self._origin)
            self.entries.append(entry)
            self._open.append(entry)
        return self._open[-1]

    def sent(self, bits: int, n_bytes: int, seconds: float) -> None:
        """Enters one message sent."""
        entry = self._current()
        entry.sent_bits += bits
        entry.sent_bytes += n_bytes + FRAME_BYTES
        entry.messages += 1
        entry.send_seconds += seconds

    def received(self, bits: int, n_bytes: int, seconds: float) -> None:
        """Enters one message received."""
        entry = self._current()
        entry.received_bits += bits
        entry.received_bytes += n_bytes + FRAME_BYTES
        entry.wait_seconds += seconds

    def select(self, phase: str | None = None, layer: str | None = None) -> list[Entry]:
        """The entries of a phase, a layer, or both."""
        return [
            e for e in self.entries
            if (phase is None or e.phase == phase) and (layer is None or e.layer == layer)
        ]  # fmt: skip

    def bits(self, phase: str | None = None) -> tuple[int, int]:
        """Payload bits (sent, received) in a phase, or in all."""
        chosen = self.select(phase)
        return sum(e.sent_bits for e in chosen), sum(e.received_bits for e in chosen)

    def bytes(self, phase: str | None = None) -> tuple[int, int]:
        """Serialized bytes (sent, received) in a phase, or in all."""
        chosen = self.select(phase)
        return sum(e.sent_bytes for e in chosen), sum(e.received_bytes for e in chosen)

    def seconds(self, phase: str | None = None) -> float:
        """Wall seconds spent in a phase, or in all."""
        return sum(e.seconds for e in self.select(phase))

    def to_json(self) -> list[dict]:
        """The entries as plain dictionaries."""
        return [dataclasses.asdict(entry) for entry in self.entries]
