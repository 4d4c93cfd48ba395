"""Who may begin a session, and what one client may have of a server: seats, memory, answers a day.

Whose limits hold for a client, its owner, is its certificate or, without TLS, its host (`Guest`). A
client that has the answers to enough questions of its choice can train a model like the server's, so
how many a client gets in a day is the server's to say.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Annotated, Protocol

from pqjax.engine.memory import least_bytes
from pqjax.errors import DataError, InputError
from pqjax.graph.strict_json import parse
from pqjax.planner.plan import Plan
from pqjax.schema import Between, read
from pqjax.wire.handshake import Objection

_MOST_BYTES = 64 << 20  # of a day's books


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server gives.

    Attributes:
      most_clients: sessions at a time.
      each_clients: of them for one client; None: as many as there are.
      each_inferences: answers for one client in a day (UTC); None: no limit.
      memory_bytes: of all sessions together, by what their plans take at the least; None: no limit.
    """

    most_clients: int = 2
    each_clients: int | None = None
    each_inferences: int | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.most_clients < 1:
            raise InputError(
                f"a server serves at least 1 client at a time, got {self.most_clients}"
            )
        for name in ("each_clients", "each_inferences", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: at least 1 expected, got {value}")


class Desk(Protocol):
    """Where a session is asked for, wherever the limits are kept."""

    def enter(
        self, guest: Hashable, owner: str, takes: int, ticket: bytes = b"", background: bool = False
    ) -> Objection | None:
        """Takes a guest in for a session that takes so many bytes of memory; or why not.

        In the `background` it has no seat: it is let in where nobody else is, and when somebody comes
        those in the background are to go (`give_way`).
        """
        ...

    def leave(self, guest: Hashable, *, served: bool) -> None:
        """A guest that was taken in is gone; a session is over if it was `served`."""
        ...

    def permit(self, owner: str, count: int) -> bool:
        """Counts so many answers that a client is about to get; False if that is more than it may."""
        ...

    def close_after(self, sessions: int | None) -> None:
        """Takes no more in once so many sessions have begun; None: any number."""
        ...

    @property
    def over(self) -> bool:
        """Whether no session can begin any more, and the last one has ended."""
        ...

    def give_way(self, go: Callable[[], None]) -> None:
        """Says what to call when those in the background are to go."""
        ...


class LimitsDesk:
    """Keeps limits, for any number of threads."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        books: pathlib.Path | None = None,
        tickets: Callable[[bytes, str], bool] | None = None,
        resident: Callable[[], int] = lambda: 0,
        permits: Callable[[str, int], bool] = lambda owner, count: True,
    ):
        """An empty house.

        Args:
          limits: see there.
          books: a file in which the day's answers are counted, so that a new start forgets none.
          tickets: takes a guest's ticket, and its owner, if it is good; None: nobody needs one.
          resident: bytes that sessions have taken as measured, which count if they are more.
          permits: asked for answers, too, as `permit` is, where several servers count together.

        Raises:
          DataError: the books cannot be read.
        """
        self._limits, self._tickets, self._resident = limits, tickets, resident
        self._permits = permits
        self._taken: dict[Hashable, tuple[str, int]] = {}
        self._behind: set[Hashable] = set()  # of these, in the background
        self._go: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._answers = Answers(books)
        self._left: int | None = None

    def enter(
        self, guest: Hashable, owner: str, takes: int, ticket: bytes = b"", background: bool = False
    ) -> Objection | None:
        """As a `Desk`: a ticket is used up whatever follows."""
        limits = self._limits
        if self._tickets is not None and not self._tickets(ticket, owner):
            return Objection.NO_TICKET
        with self._lock:
            most, left = limits.most_clients, self._left
            seated = [whose for who, (whose, _) in self._taken.items() if who not in self._behind]
            if background and self._taken:
                return Objection.BUSY
            if len(seated) >= (most if left is None else min(most, left)):
                return Objection.BUSY
            mine = seated.count(owner)
            if limits.each_clients is not None and mine >= limits.each_clients:
                return Objection.TOO_MANY_SESSIONS
            if self._spent(owner, 1):
                return Objection.SPENT
            held = max(sum(size for _, size in self._taken.values()), self._resident())
            if limits.memory_bytes is not None and held + takes > limits.memory_bytes:
                return Objection.NO_MEMORY
            self._taken[guest] = owner, takes
            if background:
                self._behind.add(guest)
            others = bool(self._behind) and not background
        if others:
            self._go()
        return None

    def leave(self, guest: Hashable, *, served: bool) -> None:
        """As a `Desk`."""
        with self._lock:
            taken, seated = self._taken.pop(guest, None), guest not in self._behind
            self._behind.discard(guest)
            if taken and seated and served and self._left is not None:
                self._left -= 1

    def permit(self, owner: str, count: int) -> bool:
        """As a `Desk`."""
        if not self._permits(owner, count):
            return False
        with self._lock:
            if self._spent(owner, count):
                return False
            if self._limits.each_inferences is not None:
                self._answers.add(owner, count)
            return True

    def _spent(self, owner: str, count: int) -> bool:
        most = self._limits.each_inferences
        return most is not None and self._answers.of(owner) + count > most

    def close_after(self, sessions: int | None) -> None:
        """As a `Desk`."""
        with self._lock:
            self._left = sessions

    @property
    def over(self) -> bool:
        """As a `Desk`."""
        return self._left == 0

    @property
    def owners(self) -> Counter[str]:
        """How many sessions every client has."""
        with self._lock:
            return Counter(owner for owner, _ in self._taken.values())

    def give_way(self, go: Callable[[], None]) -> None:
        """As a `Desk`."""
        self._go = go


@dataclasses.dataclass(frozen=True)
class _Books:
    """The file's fields."""

    day: str
    answers: Mapping[str, Annotated[int, Between(0, 1 << 60)]]


class Answers:
    """How many answers every client has had today.

    A day ends when a later one begins: a clock that goes back gives nobody the same day twice.
    """

    def __init__(self, books: pathlib.Path | None = None):
        self._books, self._day, self._counts = books, _today(), Counter[str]()
        if books is not None and books.exists():
            try:
                found = read(_Books, parse(books.read_bytes(), _MOST_BYTES))
                day = datetime.date.fromisoformat(found.day).isoformat()
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{books} does not hold what clients have had today ({error}): delete it, and it is "
                    "counted anew"
                ) from error
            if day >= self._day:
                self._day, self._counts = day, Counter(found.answers)

    def of(self, owner: str) -> int:
        """Today's, of one client."""
        if _today() > self._day:
            self._day, self._counts = _today(), Counter()
        return self._counts[owner]

    def add(self, owner: str, count: int) -> None:
        """Counts so many more, on the disk before anybody gets them."""
        self._counts[owner] = self.of(owner) + count
        if self._books is not None:
            part = self._books.with_name(f"{self._books.name}.part")
            text = json.dumps({"day": self._day, "answers": self._counts})
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            os.replace(part, self._books)


def session_bytes(plan: Plan) -> int:
    """What one session of this plan takes of a server at the least."""
    return least_bytes(plan)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
