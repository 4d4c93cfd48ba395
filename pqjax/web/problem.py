"""What goes wrong, as HTTP says it: a status, and JSON with what was expected, what came, what to do."""

import html
import importlib.resources
import string

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response

from pqjax.errors import (
    CheckpointError,
    DataError,
    DeadlineExceeded,
    HandshakeError,
    InputError,
    PqjaxError,
    Refused,
    SessionEnded,
    StoreError,
    WireError,
)

_LATER_S = 5  # when to come again
_LATER = {"busy", "no memory", "too many sessions"}


class Problem(Exception):
    """An answer that is none.

    Attributes:
      status: of HTTP.
      kind: in one word: a type of `pqjax.errors`, or of HTTP's own errors.
      expected, got, remedy: what was expected, what came, and what to do about it.
    """

    def __init__(
        self, status: int, kind: str, text: str, expected: str = "", got: str = "", remedy: str = ""
    ):
        super().__init__(text)
        self.status, self.kind = status, kind
        self.expected, self.got, self.remedy = expected, got, remedy

    @classmethod
    def of(cls, error: BaseException) -> "Problem":
        """What an error is to who asks over HTTP; of one that is a bug no word is told."""
        if isinstance(error, Problem):
            return error
        if not isinstance(error, PqjaxError):
            kind, text = "Fault", f"internal error: {type(error).__name__}"
            return cls(500, kind, text, "an answer", text, "see what this program printed")
        status, remedy = _status(error)
        return cls(status, type(error).__name__, str(error), remedy=remedy)

    @property
    def tree(self) -> dict[str, dict[str, str | int]]:
        """For JSON."""
        return {
            "error": {
                "status": self.status, "kind": self.kind, "message": str(self),
                "expected": self.expected, "got": self.got, "do": self.remedy,
            }
        }  # fmt: skip

    def response(self, headers: Headers) -> Response:
        """As it is sent: JSON, or a page to who goes there with a browser."""
        later = {"Retry-After": str(_LATER_S)} if self.status in (429, 503) else {}
        if "text/html" not in headers.get("accept", ""):
            return JSONResponse(self.tree, self.status, later)
        page = string.Template(page_file("problem.html").decode())
        words = {key: html.escape(str(value)) for key, value in self.tree["error"].items()}
        return HTMLResponse(page.substitute(words), self.status, later)


def page_file(name: str) -> bytes:
    """A file of the page."""
    return (importlib.resources.files("pqjax.web") / "page" / name).read_bytes()


def _status(error: PqjaxError) -> tuple[int, str]:
    """HTTP's number for it, and what to do."""
    reason = getattr(error, "reason", "")
    if isinstance(error, (Refused, SessionEnded)) and reason == "spent":
        return 429, "ask again tomorrow, or ask who runs the server for more"
    if isinstance(error, Refused) and reason in _LATER:
        return 503, "ask again later"
    if isinstance(error, DeadlineExceeded):
        return 504, "see whether the server is alive, then ask again"
    if isinstance(error, HandshakeError):
        return 502, "see that the server is pqjax, of this version, and has the model"
    if isinstance(error, WireError):
        return 502, "see that the server runs, then ask again"
    if isinstance(error, (InputError, DataError)):
        return 400, "send what the network takes: GET /model says what that is"
    if isinstance(error, (StoreError, CheckpointError)):
        return 500, "see what the message says of this machine's files"
    return 500, "see what the message says"
