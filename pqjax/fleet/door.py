"""The directory over HTTP, as a Ray Serve deployment: what clients ask, and what operators look at.

    POST /session  {"model": "cats", "owner": "certificate 12ab...", "wait_s": 20}, all three optional
                   -> 200 {"address": "host:port", "ticket": "64 hexadecimal digits", "model": "cats"}
                   -> 400, 404, 429, 503 {"error": "...", "refused": "busy"}
    GET  /state    the replicas
    GET  /health   200 while a replica takes clients, else 503

Without an owner the ticket is for the host that asks.
"""

import asyncio
import dataclasses
import importlib
import re
from typing import Annotated, Any

from pqjax.errors import InputError
from pqjax.fleet.ray import DIRECTORY, NAMESPACE, ray
from pqjax.graph.strict_json import parse
from pqjax.schema import Between, Length, Printable, read
from pqjax.wire.address import format_address

MOST_WAIT_S = 60
_MOST_BYTES = 4096
_CERTIFICATE = re.compile(r"certificate [0-9a-f]{64}")
_CODES = {
    "unknown model": 404,
    "too many sessions": 429,
    "spent": 429,
    "no certificate": 400,
    "busy": 503,
}

Reply = tuple[int, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Question:
    """What a client asks for.

    Attributes:
      model: NAME or NAME@VERSION; empty: the first one.
      owner: "certificate " and its SHA-256; empty: the host that asks.
      wait_s: how long it waits for a seat.
    """

    model: Annotated[str, Length(0, 129), Printable()] = ""
    owner: Annotated[str, Length(0, 76), Printable()] = ""
    wait_s: Annotated[int, Between(0, MOST_WAIT_S)] = 0

    @classmethod
    def of(cls, body: bytes) -> "Question":
        """Of a request's body.

        Raises:
          InputError: it is something else.
        """
        asked = read(cls, parse(body or b"{}", _MOST_BYTES))
        if asked.owner and not _CERTIFICATE.fullmatch(asked.owner):
            raise InputError('owner: "certificate " and a SHA-256 in hexadecimal digits expected')
        return asked


class Door:
    """What Serve calls with every request."""

    def __init__(self) -> None:
        self._responses = importlib.import_module("starlette.responses")

    async def __call__(self, request: Any) -> Any:
        """Answers one request."""
        try:
            status, reply = await self._reply(request)
        except InputError as error:
            status, reply = 400, {"error": str(error), "refused": "bad request"}
        except ray().exceptions.RayError:
            status = 503
            reply = {"error": "the fleet has no directory; try again later", "refused": "busy"}
        return self._responses.JSONResponse(reply, status)

    async def _reply(self, request: Any) -> Reply:
        what = request.method, request.url.path
        if what == ("POST", "/session"):
            asked = Question.of(await request.body())
            host = format_address(request.client.host, 0).rpartition(":")[0]
            who = asked.owner or host, bool(asked.owner)
            answer = await self._ask("session", asked.model or None, *who, asked.wait_s)
            return _CODES.get(answer.get("refused", ""), 200), answer
        if what == ("GET", "/state"):
            state = await self._ask("state")
            state.pop("failed")  # its text names files
            return 200, state
        if what == ("GET", "/health"):
            ready = (await self._ask("state"))["ready"]
            return (200 if ready else 503), {"ready": ready}
        known = "POST /session, GET /state or GET /health expected"
        return 404, {"error": known, "refused": "bad request"}

    async def _ask(self, what: str, *about: Any) -> dict[str, Any]:
        # By its name every time: another may have taken its place.
        find = ray().get_actor
        try:
            directory = await asyncio.to_thread(find, DIRECTORY, namespace=NAMESPACE)
        except ValueError as error:
            raise ray().exceptions.RayError(str(error)) from error
        return await getattr(directory, what).remote(*about)
