"""`pqjax client`: private inference for programs of this machine, in any language, over HTTP and JSON.

GET  /health    whether it lives, and how many questions wait
GET  /model     what the network takes and tells, and what an inference moves
POST /infer     a picture, an .npy file, or {"input": [...]}: the answer; ?top=5 classes of it
"""

import asyncio
import traceback
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pqjax.errors import PqjaxError
from pqjax.planner import Plan
from pqjax.questions import question_of
from pqjax.version import VERSION
from pqjax.web.asking import Asker
from pqjax.web.guard import Guard
from pqjax.web.problem import Problem
from pqjax.web.upload import body_of

_TOP, _MOST_TOP = 10, 1000


def sidecar(asker: Asker, server: str, hosts: set[str], token: str | None = None) -> ASGIApp:
    """The application.

    Args:
      asker: has the session.
      server: the address that it is with, for GET /health.
      hosts: "host:port" by which the application is asked.
      token: what programs have to show, see `Guard`; None: nothing.
    """

    async def health(request: Request) -> Response:
        return JSONResponse({"state": "alive", "server": server, "waiting": asker.waiting})

    async def model(request: Request) -> Response:
        return JSONResponse(_described(asker.plan))

    async def infer(request: Request) -> Response:
        top = request.query_params.get("top", str(_TOP))
        if not (top.isascii() and top.isdigit() and 0 < int(top) <= _MOST_TOP):
            raise Problem(
                400, "InputError", "top: how many classes to name", f"1..{_MOST_TOP}", top[:60],
                f"leave it out for {_TOP}",
            )  # fmt: skip
        raw = await body_of(request)
        question = await run_in_threadpool(question_of, raw, "the request's body")
        return JSONResponse(await asyncio.wrap_future(asker.ask(question, int(top))))

    routes = [
        Route("/health", health),
        Route("/model", model),
        Route("/infer", infer, methods=["POST"]),
    ]
    return Guard(application(routes), hosts, token)


def application(routes: list[Route]) -> Starlette:
    """One whose errors are all told as `Problem`."""

    async def told(request: Request, error: Exception) -> Response:
        if not isinstance(error, (Problem, PqjaxError)):
            traceback.print_exception(error)
        return Problem.of(error).response(request.headers)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = ", ".join(sorted(route.path for route in routes))
        problem = Problem(
            error.status_code, error.detail.title().replace(" ", ""), error.detail, f"one of {known}",
            f"{request.method} {request.url.path[:60]}", "see the address, and whether it is to be POST",
        )  # fmt: skip
        return problem.response(request.headers)

    kinds = (Problem, PqjaxError, Exception)
    return Starlette(
        routes=routes, exception_handlers={HTTPException: of_http} | dict.fromkeys(kinds, told)
    )


def _described(made: Plan) -> dict[str, Any]:
    out, y = made.source.input.out, made.source.output.out
    return {
        "version": VERSION,
        "protocol": made.protocol,
        "input": {"shape": list(out.shape), "low": out.low, "high": out.high, "batch": made.batch},
        "output": {"shape": list(y.shape), "unit": 2.0**-y.scale},
        "classes": list(made.classes),
        "bytes": {
            phase: -(-made.cost(phase).bits // 8)
            for phase in ("setup", "install", "offline", "online")
        },
    }
