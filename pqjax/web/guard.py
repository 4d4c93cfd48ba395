"""Who may ask: programs and pages of this machine that know the token, under this server's own name.

A page from anywhere can have its reader's browser send requests to loopback, and by an own domain name
that turns to 127.0.0.1 even read the answers (DNS rebinding). So every request has to name this server
as its host, and as its origin if it says one; and who asks shows a token that is new at every start:
programs in a header, browsers in a cookie that they send to nobody else's pages.
"""

import hmac
import pathlib
import secrets
from collections.abc import Collection
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pqjax.engine.process import write_private
from pqjax.errors import DataError
from pqjax.web.problem import Problem

_SHORTEST = 16  # of a token
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)


def kept_token(path: pathlib.Path) -> str:
    """The token in a file of its owner's alone, which is made if it is not there.

    Raises:
      DataError: it cannot be read or made, or holds none.
    """
    try:
        if not path.exists():
            write_private(path, new_token() + "\n")
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"no token in {path}: {error}") from error
    if len(found) < _SHORTEST or not found.isascii() or not found.isprintable():
        raise DataError(
            f"no token in {path}: {_SHORTEST} printable characters or more expected, got {len(found)}; "
            "delete the file, and one is made"
        )
    return found


class Guard:
    """Lets requests through to an application that may ask it; says to the others why not."""

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], token: str | None, free: Collection[str] = ()
    ):
        """Of one start.

        Args:
          app: what is guarded.
          hosts: "host:port" by which this server may be asked.
          token: what has to be known; None: nothing.
          free: paths for which it need not be: they tell nothing.
        """
        self._app, self._hosts, self._token, self._free = app, set(hosts), token, set(free)
        port = min(self._hosts).rpartition(":")[2]
        self._cookie = f"pqjax-{port}"  # cookies know no ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return  # there is nothing but HTTP here

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update(HEADERS)
            await send(message)

        asked = HTTPConnection(scope)
        try:
            answer = self._entry(asked) or self._app
        except Problem as problem:
            answer = problem.response(asked.headers)
        await answer(scope, receive, headed)

    def _entry(self, asked: HTTPConnection) -> Response | None:
        """The first visit by the address with the token in it; None where a request goes on."""
        self._check_names(asked.headers)
        if self._token is None or asked.url.path in self._free:
            return None
        told = parse_qs(asked.url.query).get("token", [""])[0]
        if asked.url.path == "/" and self._right(told):
            answer = RedirectResponse("/", 303)  # the token leaves the address bar
            answer.set_cookie(self._cookie, told, httponly=True, samesite="strict", path="/")
            return answer
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if not self._right(bearer) and not self._right(asked.cookies.get(self._cookie, "")):
            raise Problem(
                403, "Forbidden", "this request does not show the token of this start",
                "the token, in the address's ?token= or as Authorization: Bearer", "another or none",
                "open the address that pqjax printed when it started",
            )  # fmt: skip
        return None

    def _check_names(self, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        known = ", ".join(sorted(self._hosts))
        if host not in self._hosts:
            raise Problem(
                421, "Misdirected", "this server is not asked by that name", f"Host: {known}", host[:60],
                "ask it by its address on loopback",
            )  # fmt: skip
        # Programs say neither; browsers do, and no page can change what they say.
        elsewhere = origin is not None and origin not in {f"http://{each}" for each in self._hosts}
        if elsewhere or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Problem(
                403, "Forbidden", "another site's page asks", f"Origin: http://{host} or none",
                (origin or headers["sec-fetch-site"])[:60], "ask from this server's own page",
            )  # fmt: skip

    def _right(self, told: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(told.encode(), self._token.encode())
