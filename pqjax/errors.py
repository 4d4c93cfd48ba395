"""Every error pqjax raises on purpose: one small tree, so that a caller can catch what it can mend.

A message names what was expected, what came, where, and what to do. No message carries a secret.
"""

import collections.abc
import itertools

_MOST_SHOWN = 60  # characters of a value that a message repeats: it may be a stranger's
_MOST_LISTED = 8


class PqjaxError(Exception):
    """The root of all errors that pqjax raises on purpose."""


class InputError(PqjaxError, ValueError):
    """A value handed to a public function has the wrong shape, dtype, width or range."""


class GraphError(PqjaxError, ValueError):
    """A graph is malformed, or a width in it cannot hold the values that reach it."""


class PlanError(PqjaxError, ValueError):
    """A plan cannot be made, or a preset, variant or layer name is unknown."""


class CheckpointError(PqjaxError):
    """A stored graph, weight file or training checkpoint is missing, truncated or altered."""


class DataError(PqjaxError):
    """A data set or picture is missing or unreadable."""


class StoreError(PqjaxError):
    """A store of preparations cannot keep any more, or be used at all: says whose, and why."""


class OutOfCorrelations(PqjaxError):
    """A store of correlations was asked for more than it holds: a planning bug, never refilled."""


class WireError(PqjaxError):
    """The connection to the other party can no longer carry this session."""


class PeerGone(WireError):
    """The other party closed the connection, was killed, or could not be reached."""


class SessionEnded(PeerGone):
    """The other party ended the session and said why.

    Attributes:
      reason: in one word: "idle", "closing", "slow", "drift", "fault", "refused", "interrupted",
        "left", "done", "full", "spent", "yield", or "unknown" for one that only another version knows.
    """

    def __init__(self, text: str, reason: str = "unknown"):
        super().__init__(text)
        self.reason = reason


class DeadlineExceeded(WireError):
    """The other party did not send or accept bytes within the deadline."""


class Drift(WireError):
    """A frame arrived whose step or length is not the one the plan prescribes here."""


class Spent(WireError):
    """A client asks a server for more answers than it may have in a day."""


class HandshakeError(WireError):
    """The two parties do not share a protocol version, plan or complementary roles."""


class Refused(HandshakeError):
    """The server does not take this client, whose greeting was fine, and says why.

    Attributes:
      reason: "busy", "unknown model", "no memory", "too many sessions", "spent", "no ticket" or, of a
        fleet, "no certificate".
    """

    def __init__(self, text: str, reason: str):
        super().__init__(text)
        self.reason = reason


class AddressError(WireError):
    """An address cannot be parsed, bound or used without TLS."""


def shown(value: object) -> str:
    """A value as a message may repeat it: escaped, and cut if it is long."""
    if isinstance(value, int) and value.bit_length() > 256:  # too long for decimal digits
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value[: _MOST_SHOWN + 1] if isinstance(value, (str, bytes)) else value)
    except ValueError:  # such an integer inside
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def listed(names: collections.abc.Iterable[str]) -> str:
    """Some names with commas, the first few if there are many."""
    some = list(itertools.islice(names, _MOST_LISTED + 1))
    short = (shown(x)[1:-1] if len(x) > _MOST_SHOWN else x for x in some[:_MOST_LISTED])
    text = ", ".join(short)
    return f"{text}, ..." if len(some) > _MOST_LISTED else text
