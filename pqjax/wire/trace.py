"""What a session did: bits, bytes, messages, clocks and seconds, per inference, phase and layer."""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator

PHASES = ("setup", "install", "offline", "online")
FRAME_BYTES = 16


@dataclasses.dataclass
class Entry:
    """One layer in one phase, as one party saw it.

    Attributes:
      number: which entry of the session it is, from 0.
      inference: which inference of the session it was for, from 0, its preparation included; the
        setup is the first one's, and the goodbye is nobody's (None).
      sent_bits, received_bits: payload, exact.
      sent_bytes, received_bytes: as serialized, padding and frame headers included.
      messages: messages sent.
      clock_after: this party's logical clock at the end of the layer (see `pqjax.wire.cost`).
      begin, seconds: wall time since the session began, and spent in the layer.
      wait_seconds, send_seconds: of it, waiting for messages and for room to send.
    """

    phase: str
    layer: str
    number: int = 0
    inference: int | None = 0
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
    """Entries of one session, all or those of one inference, in the order in which the layers ran.

    Attributes:
      stored: how many of the session's first inferences were prepared in an earlier one, and kept.
      alive_bytes: what (this side, the other) sent between the session's layers to say that it
        lives; no part of any entry or sum.
      origin: when the session began, by `time.perf_counter`.
    """

    def __init__(
        self, entries: Iterable[Entry] = (), stored: int = 0, origin: float | None = None
    ) -> None:
        self.entries, self.stored = list(entries), stored
        self.alive_bytes: tuple[int, int] = (0, 0)
        self._inference: int | None = 0
        self.origin = time.perf_counter() if origin is None else origin
        self._open: list[Entry] = []

    @contextlib.contextmanager
    def section(self, phase: str, layer: str) -> Iterator[Entry]:
        """Everything sent and received inside belongs to this phase and layer."""
        entry = self._enter(phase, layer)
        try:
            yield entry
        finally:
            self._open.pop()
            entry.seconds = time.perf_counter() - self.origin - entry.begin

    def turn_to(self, inference: int | None) -> None:
        """The last entry, in which it was said, and all that follow are for this inference."""
        self._inference = self.entries[-1].inference = inference

    def of(self, inference: int) -> "Trace":
        """The entries of one inference so far: its setup, preparation and online phase."""
        return Trace(
            (x for x in self.entries if x.inference == inference), self.stored, self.origin
        )

    @property
    def inferences(self) -> list["Trace"]:
        """The entries of every inference, the prepared and never asked ones included."""
        found: dict[int, list[Entry]] = {}
        for entry in self.entries:
            if entry.inference is not None:
                found.setdefault(entry.inference, []).append(entry)
        return [Trace(found[i], self.stored, self.origin) for i in sorted(found)]

    def _enter(self, phase: str, layer: str) -> Entry:
        begin = time.perf_counter() - self.origin
        self.entries.append(Entry(phase, layer, len(self.entries), self._inference, begin=begin))
        self._open.append(self.entries[-1])
        return self._open[-1]

    @property
    def current(self) -> Entry:
        """That of the layer that is running."""
        return self._open[-1] if self._open else self._enter("setup", "session")

    def sent(self, bits: int, n_bytes: int, seconds: float, entry: Entry | None = None) -> None:
        """Enters one message sent, here or where it belongs."""
        entry = entry or self.current
        entry.sent_bits += bits
        entry.sent_bytes += n_bytes + FRAME_BYTES
        entry.messages += 1
        entry.send_seconds += seconds

    def received(self, bits: int, n_bytes: int, seconds: float, entry: Entry | None = None) -> None:
        """Enters one message received, here or where it belongs."""
        entry = entry or self.current
        entry.received_bits += bits
        entry.received_bytes += n_bytes + FRAME_BYTES
        entry.wait_seconds += seconds

    def bits(self, phase: str | None = None) -> tuple[int, int]:
        """Payload bits (sent, received) in a phase, or in all."""
        return self._sum(phase, "sent_bits"), self._sum(phase, "received_bits")

    def bytes(self, phase: str | None = None) -> tuple[int, int]:
        """Serialized bytes (sent, received) in a phase, or in all."""
        return self._sum(phase, "sent_bytes"), self._sum(phase, "received_bytes")

    def seconds(self, phase: str | None = None) -> float:
        """Wall seconds spent in a phase, or in all."""
        return self._sum(phase, "seconds")

    def _sum(self, phase: str | None, field: str):
        return sum(getattr(e, field) for e in self.entries if phase in (None, e.phase))

    def to_json(self) -> list[dict]:
        """The entries as plain dictionaries."""
        return [dataclasses.asdict(entry) for entry in self.entries]
