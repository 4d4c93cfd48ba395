"""What a server tells of, to whoever runs it: logs, metrics and spans are made of it."""

import traceback
from collections.abc import Sequence
from typing import Any

from pqjax.engine.visit import Visit
from pqjax.errors import PqjaxError
from pqjax.wire.trace import Trace


class Events:
    """Told of everything; does nothing with it. Make a subclass of what you want to hear.

    Called from the threads of connections, several at once. What a method raises is printed, and no
    session suffers. No secret is ever told.
    """

    def began(self, visit: Visit) -> None:
        """A client has greeted; its session begins."""

    def done(self, visit: Visit, phase: str, seconds: float, count: int) -> None:
        """A session has finished a phase: "setup", "install", "offline" or "online".

        Of the online phase `count` are the answers that the client got.
        """

    def ended(self, visit: Visit, trace: Trace | None, error: PqjaxError | None) -> None:
        """A session is over: with its trace, or by an error."""

    def refused(self, client: str, error: PqjaxError) -> None:
        """A connection never became a session."""

    def noted(self, client: str, text: str) -> None:
        """What became of a client's stored preparations, where they are not spent."""

    def stopping(self, visits: Sequence[Visit], drain_s: float) -> None:
        """The server lets nobody in any more and waits for these sessions, for so long at most."""


class All(Events):
    """Tells several of everything, each on its own: what one raises keeps no other from hearing."""

    def __init__(self, *events: Events):
        self._events = events

    def began(self, visit: Visit) -> None:
        """As `Events`."""
        self._tell("began", visit)

    def done(self, visit: Visit, phase: str, seconds: float, count: int) -> None:
        """As `Events`."""
        self._tell("done", visit, phase, seconds, count)

    def ended(self, visit: Visit, trace: Trace | None, error: PqjaxError | None) -> None:
        """As `Events`."""
        self._tell("ended", visit, trace, error)

    def refused(self, client: str, error: PqjaxError) -> None:
        """As `Events`."""
        self._tell("refused", client, error)

    def noted(self, client: str, text: str) -> None:
        """As `Events`."""
        self._tell("noted", client, text)

    def stopping(self, visits: Sequence[Visit], drain_s: float) -> None:
        """As `Events`."""
        self._tell("stopping", visits, drain_s)

    def _tell(self, what: str, *about: Any) -> None:
        for each in self._events:
            try:
                getattr(each, what)(*about)
            except Exception:  # noqa: BLE001  a listener's fault is the listener's
                traceback.print_exc()
