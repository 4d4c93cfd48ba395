"""The page of `pqjax demo`: its files, what it may ask, and a stream of what happens."""

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from pqjax.errors import InputError
from pqjax.graph.strict_json import parse
from pqjax.questions import Picture, question_of
from pqjax.web.demo import Demo
from pqjax.web.guard import Guard
from pqjax.web.problem import Problem, page_file
from pqjax.web.sidecar import application
from pqjax.web.upload import body_of

FILES = {
    "/": "index.html", "/style.css": "style.css", "/page.js": "page.js", "/views.js": "views.js",
    "/icon.svg": "icon.svg",
}  # fmt: skip
_FREE = ("/style.css", "/icon.svg")  # of pages that say who may not ask, too
_EVERY_S, _QUIET = 0.25, 60  # how often the state is looked at; and so many times without news
_NAME = 80  # characters of a file's name that are shown
_CHOICE_BYTES = 1024


def demo_page(demo: Demo, hosts: set[str], token: str) -> ASGIApp:
    """The application, see `Guard`."""

    async def file(request: Request) -> Response:
        name = FILES[request.url.path]
        return Response(page_file(name), media_type=mimetypes.guess_type(name)[0])

    async def ask(request: Request) -> Response:
        name = request.query_params.get("name", "")[:_NAME]
        raw = await body_of(request)
        called = "".join(c for c in name if c.isprintable()) or "the picture"
        question = await run_in_threadpool(question_of, raw, called)
        if not isinstance(question, Picture):
            raise Problem(
                415, "NoPicture", "this is an array, and the page shows pictures", "a picture",
                "integers", "ask with `pqjax infer` or `pqjax client`",
            )  # fmt: skip
        inquiry = await run_in_threadpool(demo.ask, question)
        return JSONResponse({"number": inquiry.number}, 201)

    async def choose(request: Request) -> Response:
        try:
            tree = parse(await body_of(request, _CHOICE_BYTES), _CHOICE_BYTES)
            preset = str(tree["preset"])
        except (InputError, KeyError, TypeError) as error:
            raise Problem(
                400,
                "InputError",
                "no preset in it",
                '{"preset": "pqjax"}',
                "something else",
                "choose one",
            ) from error
        demo.choose(preset)
        return JSONResponse({"preset": preset}, 202)

    async def seen(request: Request) -> Response:
        inquiry = demo.inquiry(request.path_params["number"])
        return Response(await run_in_threadpool(lambda: inquiry.picture), media_type="image/png")

    async def noise(request: Request) -> Response:
        return Response(demo.inquiry(request.path_params["number"]).noise, media_type="image/png")

    async def timeline(request: Request) -> Response:
        return JSONResponse(demo.inquiry(request.path_params["number"]).timeline)

    async def steps(request: Request) -> Response:
        return JSONResponse(demo.steps(request.path_params["preset"]))

    async def events(request: Request) -> Response:
        return StreamingResponse(_states(demo), media_type="text/event-stream")

    routes = [
        *(Route(path, file) for path in FILES),
        Route("/events", events),
        Route("/pictures", ask, methods=["POST"]),
        Route("/pictures/{number:int}/seen.png", seen),
        Route("/pictures/{number:int}/noise.png", noise),
        Route("/pictures/{number:int}/timeline", timeline),
        Route("/preset", choose, methods=["POST"]),
        Route("/plans/{preset}", steps),
    ]
    return Guard(application(routes), hosts, token, _FREE)


async def _states(demo: Demo) -> AsyncIterator[str]:
    """Every new state as an event; a sign of life where there is none."""
    last: dict[str, Any] = {}
    quiet = 0
    while True:
        state, quiet = demo.state, quiet + 1
        if state != last:
            last, quiet = state, 0
            yield f"data: {json.dumps(state)}\n\n"
        elif quiet >= _QUIET:
            quiet = 0
            yield ": alive\n\n"
        await asyncio.sleep(_EVERY_S)
