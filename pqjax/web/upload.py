"""What a request brings: read no further than it may be long."""

from starlette.requests import Request

from pqjax.web.problem import Problem

MOST_BYTES = 32 << 20  # photographs have 10


async def body_of(request: Request, most_bytes: int = MOST_BYTES) -> bytes:
    """A request's body.

    Raises:
      Problem: it is empty, or too long.
    """
    parts, n = [], 0
    too_long = Problem(
        413, "TooLong", f"at most {most_bytes} bytes are taken", f"at most {most_bytes} bytes", "more",
        "send a smaller picture",
    )  # fmt: skip
    told = request.headers.get("content-length", "0")
    if not told.isdigit() or int(told) > most_bytes:
        raise too_long
    async for part in request.stream():
        n += len(part)
        if n > most_bytes:
            raise too_long
        parts.append(part)
    if not n:
        raise Problem(
            400, "Empty", "there is nothing in the request", "a picture, an array or JSON",
            "0 bytes", "send the file itself as the request's body",
        )  # fmt: skip
    return b"".join(parts)
